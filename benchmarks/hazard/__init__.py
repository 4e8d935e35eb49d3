"""The parts of `hazards.py`: libraries, a recording server, rows, and how a row's cells are read."""
