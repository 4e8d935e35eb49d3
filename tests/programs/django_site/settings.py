"""The project's settings. `SETTINGS` in the environment is `ANALYTICS_BATCHER`, as JSON; `-`: there is none."""

from __future__ import annotations

import json
import os

SECRET_KEY = "of-the-tests"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "django_site.web"
WSGI_APPLICATION = "django_site.wsgi.application"
INSTALLED_APPS = ["analytics_batcher.integrations.django.AnalyticsBatcher", "django_site"]
if os.environ["SETTINGS"] != "-":
    ANALYTICS_BATCHER = json.loads(os.environ["SETTINGS"])
