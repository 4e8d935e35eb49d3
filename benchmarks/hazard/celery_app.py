"""An application for celery's prefork pool: the client is made with the application, so before the fork."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

from .case import stay_local
from .libraries import LIBRARIES, properties

stay_local()
_folder = Path(os.environ["HAZARD_FOLDER"])
app = Celery("hazard")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(_folder / "queue"),
        "data_folder_out": str(_folder / "queue"),
        "processed_folder": str(_folder / "processed"),
        "control_folder": str(_folder / "control"),
    },
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)
_client = LIBRARIES[os.environ["HAZARD_LIBRARY"]](os.environ["HAZARD_URL"])


@app.task
def work(index: int) -> None:
    """Track one event, and mark the task as done."""
    _client.track(properties(index))
    with (_folder / "done").open("ab", buffering=0) as marks:
        marks.write(b".")
