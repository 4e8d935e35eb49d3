"""The program of one case: `python -m hazard.child ROW LIBRARY URL FACTS FOLDER`."""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys

from hazard.case import Case, stay_local
from hazard.rows import ROWS


def main() -> None:
    """Work through one row with one library. Logging is as in an application: on, at WARNING or as the row says."""
    name, library, url, facts, folder = sys.argv[1:]
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # to look at one that hangs
    row = ROWS[name]
    if row.log_level is not None:
        logging.basicConfig(level=row.log_level, format="%(levelname)s %(name)s %(message)s")
    stay_local()
    case = Case(library, url, facts, folder)
    case.at("start")
    row.work(case)
    case.at("exit")


if __name__ == "__main__":
    main()
