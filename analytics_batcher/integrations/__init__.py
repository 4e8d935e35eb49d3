"""Glue for frameworks, each in a file of its own."""
