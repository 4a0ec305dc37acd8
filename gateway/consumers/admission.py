"""Who may open the picture socket: a client key, or a staff session of this very site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest

from pool.keys import KeyDirectory, KeyRecord, UnknownKey

Scope = Mapping[str, Any]
PROTOCOL = "grok2api.imagine"
_KEY_PROTOCOL = "key."
SESSION_RECHECK = 15
"""A session is looked up in the database every so many checks; a key is in memory."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """``name`` is whose sockets are counted together, ``key`` the record that limits and
    records name. Both callables raise KeyRefused once the visitor is welcome no more."""

    name: str
    key: Callable[[], KeyRecord]
    recheck: Callable[[], Awaitable[object]]
    subprotocol: str | None


async def admit(scope: Scope, keys: KeyDirectory) -> Visitor:
    """Raises KeyRefused. A key that is presented has to be good, session or not."""
    subprotocol = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
    clear = _presented(scope)
    if clear is None:
        return await _staff(scope, subprotocol)

    def key() -> KeyRecord:
        return keys.lookup(clear)

    async def recheck() -> KeyRecord:
        return key()

    return Visitor(f"key {key().id}", key, recheck, subprotocol)


def _presented(scope: Scope) -> str | None:
    """From the query, the Authorization header or a subprotocol, in this order."""
    text: str = scope["query_string"].decode("latin-1")
    query = parse_qs(text, keep_blank_values=True)
    if "api_key" in query:
        return query["api_key"][0].strip()
    if (header := _header(scope, b"authorization")) is not None:
        scheme, _, clear = header.partition(" ")
        return clear.strip() if scheme.lower() == "bearer" else ""
    offered: Iterable[str] = scope["subprotocols"]
    found = (name for name in offered if name.startswith(_KEY_PROTOCOL))
    name = next(found, None)
    return None if name is None else name.removeprefix(_KEY_PROTOCOL)


def _header(scope: Scope, wanted: bytes) -> str | None:
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for name, value in pairs if name == wanted), None)


async def _staff(scope: Scope, subprotocol: str | None) -> Visitor:
    """A browser sends its cookie to whoever asks, so the asking page has to be ours."""
    request = _as_request(scope)
    if not _is_same_origin(request):
        raise UnknownKey
    look_up = database_sync_to_async(_staff_name)
    name = await look_up(request)
    checks = 0

    async def recheck() -> None:
        nonlocal checks
        checks += 1
        if checks % SESSION_RECHECK == 0:
            await look_up(request)

    record = KeyRecord(id=0, name=name, prefix="")
    return Visitor(f"user {name}", lambda: record, recheck, subprotocol)


def _as_request(scope: Scope) -> ASGIRequest:
    """The handshake as Django sees requests, for its own rules on hosts and schemes."""
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())


def _is_same_origin(request: ASGIRequest) -> bool:
    origin = request.META.get("HTTP_ORIGIN", "")
    try:
        own = f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return False
    return origin == own or origin in settings.CSRF_TRUSTED_ORIGINS


def _staff_name(request: ASGIRequest) -> str:
    """The user name of an active staff session; raises UnknownKey for anybody else."""
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    if not (user.is_authenticated and user.is_active and user.is_staff):
        raise UnknownKey
    return user.get_username()
