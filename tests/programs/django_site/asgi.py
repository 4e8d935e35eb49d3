"""The project for servers of ASGI."""

from __future__ import annotations

from django.apps import apps
from django.core.asgi import get_asgi_application

from analytics_batcher.integrations.asgi import with_lifespan

application = get_asgi_application()
application = with_lifespan(application, apps.get_app_config("analytics_batcher").client)
