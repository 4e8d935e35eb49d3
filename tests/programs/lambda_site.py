"""A function of AWS Lambda, for `tests/test_aws_lambda.py`. `RECEIVER` is where messages go, `CLIENT` its options."""

from __future__ import annotations

import json
import os

from canary import TOKEN

from analytics_batcher import Client, Retry, Vitally
from analytics_batcher.integrations.aws_lambda import delivers

client = Client(
    Vitally(api_token=TOKEN, base_url=os.environ["RECEIVER"]),
    flush_interval=60,
    retry=Retry(base=0.01, cap=0.02),
    **json.loads(os.environ["CLIENT"]),
)


@delivers(client)
def handler(event, context):
    """Track a message of each user, and then do as it is told."""
    accepted = [client.track(user, "Invoked", account_id="a") for user in event["users"]]
    if event.get("fails"):
        raise KeyError("as it was told")
    return {"pid": os.getpid(), "accepted": accepted, "request": context.aws_request_id}
