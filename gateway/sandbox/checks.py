"""What a well-behaved client sends; each breach is noted, none is answered.

Rules: upstream-web 1.1-1.3, 3.1, 11 and its boundary (no client hints, no ``Sec-Fetch-*``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from gateway.sandbox.state import SandboxState

Surface = Literal["web", "accounts", "asset", "xai", "management", "public"]
FORGED = ("sec-ch-", "sec-fetch-", "baggage", "priority")
CLOUDFLARE = ("cf_clearance", "__cf_bm", "_cfuvid")


@dataclass(frozen=True, slots=True)
class Expect:
    """The headers one route wants. ``referer_path`` None: no Referer may be sent; "*": any."""

    surface: Surface = "web"
    referer_path: str | None = "/"
    origin: bool = True
    request_id: bool = False
    json: bool = False
    grpc: bool = False


def check_headers(request: web.Request, state: SandboxState, expect: Expect) -> None:
    """Note every breach of ``expect`` by this request."""
    path = request.path
    for rule, detail in _breaches(request, state, expect):
        state.violate(rule, path, detail)


def _breaches(
    request: web.Request, state: SandboxState, expect: Expect
) -> Iterable[tuple[str, str]]:
    headers = request.headers
    for name in headers:
        if name.lower().startswith(FORGED):
            yield "forged-header", name
    yield from _credential_breaches(request, expect.surface)
    if expect.surface in ("xai", "management", "public"):
        return
    if not headers.get("User-Agent"):
        yield "missing-header", "User-Agent"
    yield from _origin_breaches(request, expect)
    yield from _referer_breaches(request, expect)
    yield from _content_type_breaches(request, expect)
    statsig = headers.get("x-statsig-id")
    if statsig is not None and statsig != state.options.statsig_id:
        yield "unexpected-statsig-id", statsig
    if expect.request_id:
        yield from _request_id_breaches(request, state)


def _credential_breaches(request: web.Request, surface: Surface) -> Iterable[tuple[str, str]]:
    if surface in ("xai", "management", "public"):
        if "Cookie" in request.headers:
            yield "cookie-leak", surface
        if surface == "public" and "Authorization" in request.headers:
            yield "key-leak", surface
        return
    if "Authorization" in request.headers:
        yield "key-leak", surface
    if surface == "accounts":
        for name in CLOUDFLARE:
            if name in request.cookies:
                yield "cookie-leak", name


def _own_origins(request: web.Request, expect: Expect) -> tuple[str, str]:
    real = "https://accounts.x.ai" if expect.surface == "accounts" else "https://grok.com"
    return real, f"http://{request.host}"


def _origin_breaches(request: web.Request, expect: Expect) -> Iterable[tuple[str, str]]:
    origin = request.headers.get("Origin")
    if origin is None:
        if expect.origin:
            yield "missing-header", "Origin"
    elif origin not in _own_origins(request, expect):
        yield "wrong-header", f"Origin: {origin}"


def _referer_breaches(request: web.Request, expect: Expect) -> Iterable[tuple[str, str]]:
    referer = request.headers.get("Referer")
    if expect.referer_path is None:
        if referer is not None:
            yield "unexpected-header", "Referer"
        return
    if expect.referer_path == "*":
        return
    if referer is None:
        yield "missing-header", "Referer"
        return
    wanted = tuple(origin + expect.referer_path for origin in _own_origins(request, expect))
    exact = expect.referer_path in ("/", "/files")
    if not (referer in wanted if exact else referer.startswith(wanted)):
        yield "wrong-header", f"Referer: {referer}"


def _content_type_breaches(request: web.Request, expect: Expect) -> Iterable[tuple[str, str]]:
    sent = request.headers.get("Content-Type", "")
    if expect.json and not sent.startswith("application/json"):
        yield "wrong-header", f"Content-Type: {sent}"
    if expect.grpc:
        if sent != "application/grpc-web+proto":
            yield "wrong-header", f"Content-Type: {sent}"
        if request.headers.get("x-grpc-web") != "1":
            yield "missing-header", "x-grpc-web"


def is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return len(text) == 36


def _request_id_breaches(request: web.Request, state: SandboxState) -> Iterable[tuple[str, str]]:
    request_id = request.headers.get("x-xai-request-id", "")
    if not is_uuid(request_id):
        yield "missing-header", "x-xai-request-id"
    elif request_id in state.request_ids:
        yield "stale-request-id", request_id
    state.request_ids.append(request_id)
