"""The health probes; they touch neither the database nor a thread."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from gateway.relay import runtime


def _json(value: dict[str, object], status: int = 200) -> HttpResponse:
    return HttpResponse(json.dumps(value), status=status, content_type="application/json")


@require_safe
async def health(request: HttpRequest) -> HttpResponse:
    """Compatible with the older service (http-contract section 4)."""
    return _json({"status": "healthy", "service": "Grok2API", "runtime": "python-django"})


@require_safe
async def livez(request: HttpRequest) -> HttpResponse:
    """200 while the event loop turns."""
    return _json({"status": "alive"})


@require_safe
async def readyz(request: HttpRequest) -> HttpResponse:
    """200 once credentials and keys are loaded, until the server begins to stop."""
    if not runtime.is_ready():
        return _json({"status": "not ready"}, 503)
    gateway = runtime.current()
    return _json(
        {
            "status": "ready",
            "credentials": len(gateway.pool),
            "browser_session_accepted": gateway.health.unhealthy_since is None,
        }
    )
