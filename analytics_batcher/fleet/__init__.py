"""Past one machine: producers add records to Redis streams, relays deliver them."""
