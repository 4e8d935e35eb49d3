"""The project's settings. `SETTINGS` in the environment is `ANALYTICS_BATCHER`, as JSON; `-`: there is none.

With `HANDLER` in the environment the project handles SIGTERM itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys

SECRET_KEY = "of-the-tests"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "django_site.web"
WSGI_APPLICATION = "django_site.wsgi.application"
INSTALLED_APPS = ["analytics_batcher.integrations.django.AnalyticsBatcher", "django_site"]
if os.environ["SETTINGS"] != "-":
    ANALYTICS_BATCHER = json.loads(os.environ["SETTINGS"])
if "HANDLER" in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
