"""The parts of `fleet.py`."""
