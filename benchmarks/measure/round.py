"""One round in a fresh interpreter: `python -m measure.round FIGURE LIBRARY '{"events": 1000}'` prints its figures."""

from __future__ import annotations

import json
import os
import sys

from .figures import FIGURES
from .growth import GROWTH


def main() -> None:
    """Measure, print, and end at once: how a library ends is not what is measured."""
    figure, library, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    figures = {**FIGURES, **GROWTH}[figure](library, options)
    print(json.dumps(figures), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
