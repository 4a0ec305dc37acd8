"""``GET /metrics``, for admins and for who brings ``metrics.token``."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from gateway.telemetry.metrics import Metrics

View = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]


def metrics_view(metrics: Callable[[], Metrics | None], token: Callable[[], str]) -> View:
    """The view over what ``metrics`` gives; None is answered with 503. ``token`` "": admins only.

    A client key opens nothing here: it is neither the token nor a session.
    """

    @require_safe
    async def view(request: HttpRequest) -> HttpResponse:
        refused = None if _brings(request, token()) else await _not_admin(request)
        if refused is not None:
            return refused
        found = metrics()
        if found is None:
            return _plain("The gateway is not running.\n", 503)
        found.sampler.sample()
        accept = request.headers.get("Accept", "")
        body, content_type = await asyncio.to_thread(found.render, accept)
        return HttpResponse(body, content_type=content_type, headers={"Cache-Control": "no-store"})

    return view


def _brings(request: HttpRequest, token: str) -> bool:
    scheme, _, given = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if not token or scheme.lower() != "bearer":
        return False
    # Headers are decoded as Latin-1, whatever they hold. Hashes hide the length, too.
    bytes_given = given.strip().encode("latin-1", "replace")
    return hmac.compare_digest(_digest(bytes_given), _digest(token.encode()))


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


async def _not_admin(request: HttpRequest) -> HttpResponse | None:
    user = await request.auser()
    if not user.is_authenticated:
        refused = _plain("Sign in as an admin, or send the metrics token.\n", 401)
        refused["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return refused
    return None if user.is_staff else _plain("Metrics are for admins.\n", 403)


def _plain(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
