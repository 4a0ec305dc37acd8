"""The ASGI application: the client API without middleware, the pages with it, and lifespan."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

# What follows imports models, so the apps have to be loaded by then.
from gateway import conf
from gateway.api.application import ApiApplication, Limits
from gateway.api.errors import translate
from gateway.consumers.sockets import Sockets
from gateway.relay import runtime
from gateway.relay.deployment import Deployment
from gateway.relay.imagine_run import imagine_relay
from gateway.relay.settings import per_snapshot
from gateway.routing import socket_routes
from gateway.wire.errors import ApiError
from grok2api import __version__
from grok2api.draining import on_stop_signal, stop_with_parent
from grok2api.patience import once_the_database_answers

logger = logging.getLogger(__name__)
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
PROBES = frozenset({"/health", "/livez", "/readyz"})


class Application:
    """Dispatches by scope type and path."""

    def __init__(self) -> None:
        limits = per_snapshot(conf.current, _limits)
        self._api = ApiApplication("grok2api.urls", limits, _count)
        self._sockets = Sockets()
        self._socket_routes = socket_routes(self._sockets)
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case _:
                await self._socket_routes(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start and stop what this worker owns."""
        await receive()
        self._draining = False
        try:
            gateway = await _start()
        except BaseException:
            logger.exception("this worker cannot start")
            await send({"type": "lifespan.startup.failed", "message": "see the log"})
            raise
        self._sockets.serve(imagine_relay(gateway, translate, gateway.hosting), gateway.keys)
        on_stop_signal(self.drain)
        stop_with_parent()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._sockets.aclose()
        runtime.install(None)
        await gateway.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/v1/") or path in PROBES:
            await self._api(scope, receive, send)
        else:
            await django_application(scope, receive, send)

    def drain(self) -> None:
        """Readiness and sockets end at once, what else runs after ``server.drain_sec``."""
        if not self._draining:
            self._draining = True
            runtime.begin_drain()
            self._sockets.drain()
            patience = conf.current().server.drain_sec
            asyncio.get_running_loop().call_later(patience, self._end_requests)

    def _end_requests(self) -> None:
        text = "The service is stopping."
        self._api.interrupt_all(ApiError(503, text, type_="server_error", code="service_stopping"))


def _count(route: str, status: int) -> None:
    if runtime.is_running():
        runtime.current().metrics.http(route, status)


def _limits(config: conf.Config) -> Limits:
    return Limits(
        max_body=config.server.max_body_mb * 1_000_000,
        keepalive=float(config.server.keepalive_sec),
        origins=tuple(config.server.cors_origins),
    )


async def _start() -> runtime.Runtime:
    stopping = asyncio.Event()
    on_stop_signal(stopping.set)
    await once_the_database_answers(lambda: conf.live.aload(settings.DATA_DIR), stopping)
    gateway = runtime.Runtime(_deployment())
    try:
        await once_the_database_answers(gateway.load, stopping)
        await gateway.start()
    except BaseException:
        await gateway.stop()
        raise
    runtime.install(gateway)
    _settle_memory()
    return gateway


def _deployment() -> Deployment:
    return Deployment(
        version=__version__,
        redis_url=settings.REDIS_URL,
        limit_table=settings.LIMIT_TABLE,
        day_offset=settings.DAY_OFFSET,
    )


def _settle_memory() -> None:
    """Keep the collector off what lives as long as the process, and call it less often.

    A request makes a few thousand short-lived objects, nearly all freed by counting; at
    Python's default of 700 the collector runs several times per request for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 20)


application = Application()
