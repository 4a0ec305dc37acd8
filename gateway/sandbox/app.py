"""The simulated upstream as one aiohttp application, told apart by paths only."""

from __future__ import annotations

from aiohttp import web

from gateway.sandbox import (
    control,
    imagine,
    management_api,
    mgw,
    web_account,
    web_chat,
    web_files,
    web_media,
    xai_account,
    xai_chat,
    xai_media,
    xai_responses,
)
from gateway.sandbox.calls import track
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.state import STATE, SandboxState

MAX_BODY = 96 * 1024 * 1024
_PARTS = (
    web_chat,
    xai_chat,
    mgw,
    web_account,
    web_files,
    web_media,
    imagine,
    xai_account,
    xai_responses,
    xai_media,
    management_api,
    control,
)


def build_app(options: SandboxOptions | None = None) -> web.Application:
    """grok.com, accounts.x.ai, assets.grok.com, api.x.ai and the Management API on one port.

    ``app[STATE]`` is the SandboxState.
    """
    app = web.Application(middlewares=[track], client_max_size=MAX_BODY)
    app[STATE] = SandboxState(options or SandboxOptions())
    for part in _PARTS:
        app.add_routes(part.ROUTES)
    return app
