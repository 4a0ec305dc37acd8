"""Looking into a running sandbox from outside: ``/__sandbox__/state`` and ``/reset``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from gateway.sandbox.state import STATE, RecordedRequest, SandboxState

SHOWN_REQUESTS = 100
SHOWN_BODY = 4096


async def show(request: web.Request) -> web.Response:
    """Counters, violations, disconnects and the newest requests; secrets are in clear."""
    return web.json_response(snapshot(request.app[STATE]))


async def reset(request: web.Request) -> web.Response:
    """Forget everything that was counted and kept."""
    request.app[STATE].reset()
    return web.json_response({})


def snapshot(state: SandboxState) -> dict[str, Any]:
    """The state as plain JSON."""
    newest = list(state.requests)[-SHOWN_REQUESTS:]
    return {
        "counters": dict(state.counters),
        "violations": [asdict(violation) for violation in state.violations],
        "disconnects": [asdict(disconnect) for disconnect in state.disconnects],
        "open_streams": state.open_streams,
        "accounts": sorted(state.accounts),
        "requests": [_request(record) for record in newest],
    }


def _request(record: RecordedRequest) -> dict[str, Any]:
    return {
        "method": record.method,
        "path": record.path,
        "query": dict(record.query),
        "headers": dict(record.headers),
        "token": record.token,
        "status": record.status,
        "at": record.at,
        "body": record.body[:SHOWN_BODY].decode("utf-8", "replace"),
        "frames": record.frames,
    }


ROUTES = (
    web.get("/__sandbox__/state", show),
    web.post("/__sandbox__/reset", reset),
)
