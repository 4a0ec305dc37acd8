"""The addresses of the WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from channels.routing import URLRouter
from django.urls import path, re_path

from gateway.consumers.imagine import ImagineConsumer
from gateway.consumers.quiet_logs import keep_keys_out_of_logs
from gateway.consumers.sockets import Sockets

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def socket_routes(sockets: Sockets) -> Asgi:
    """The ASGI application for scopes of type "websocket"."""
    keep_keys_out_of_logs()
    imagine: Any = ImagineConsumer.as_asgi(sockets=sockets)
    nothing: Any = _refuse
    routes: Any = [path("api/v1/admin/imagine/ws", imagine), re_path("", nothing)]
    return URLRouter(routes)


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    """Refuse the handshake of a socket that is not here."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
