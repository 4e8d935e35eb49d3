"""The parts of `bench.py`: a sink, the libraries, one process a round, and what is made of the figures."""
