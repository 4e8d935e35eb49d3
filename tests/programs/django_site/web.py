"""The project's URLs and views."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from itertools import count

from canary import TOKEN
from django.http import JsonResponse
from django.urls import path

import analytics_batcher
from analytics_batcher import Client, Vitally

NUMBERS = count()

if "CHANGED" in os.environ:
    sys.path.append(os.environ["CHANGED"])
    importlib.import_module("changed")


def track(request):
    """Track a message; `/slow` takes its time before that."""
    if request.path == "/slow":
        os.write(2, b"A request has begun\n")
        threading.Event().wait(0.7)
    user = f"{os.getpid()}-{next(NUMBERS)}"
    accepted = analytics_batcher.track(user, "Requested", {"path": request.path}, account_id="a")
    return JsonResponse({"user": user, "accepted": accepted, "pid": os.getpid()})


def make():
    """Make the client of `{"CLIENT": "django_site.web.make"}`."""
    return Client(Vitally(api_token=TOKEN, base_url=os.environ["RECEIVER"]), flush_interval=60)


def change(message):
    """Be the `before_send` of `{"BEFORE_SEND": "django_site.web.change"}`."""
    return {**message, "properties": {**message["properties"], "changed": True}}


urlpatterns = [path("track", track), path("slow", track)]
