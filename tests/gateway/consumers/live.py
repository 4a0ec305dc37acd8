"""The picture socket on a real port, and a client that talks to it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from random import Random
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gateway import conf
from gateway.api.errors import translate
from gateway.consumers.sockets import Sockets
from gateway.exchange import Exchange
from gateway.relay.imagine_round import ImagineRelay, PictureKeeper
from gateway.relay.imagine_run import imagine_relay
from gateway.relay.settings import web_settings
from gateway.routing import socket_routes
from gateway.sandbox.serve import SandboxThread
from gateway.upstream.web.client import WebUpstream
from pool.crypto import seal
from pool.entries import Entry, Quota
from pool.keys import KeyRecord
from tests.gateway.live import KEY, LiveGateway

PATH = "/api/v1/admin/imagine/ws"
WITH_KEY = f"?api_key={KEY}"
# The client of a test speaks to nobody's log.
_SILENT = logging.Logger("client", level=logging.CRITICAL + 1)


class Ear:
    """An observer that remembers how every round ended, and tells the real one."""

    def __init__(self, observer: Any) -> None:
        self._observer = observer
        self.ended_: list[Exchange] = []

    def began(self, exchange: Exchange) -> None:
        self._observer.began(exchange)

    def streams(self, exchange: Exchange) -> None:
        self._observer.streams(exchange)

    def ended(self, exchange: Exchange, *, streamed: bool) -> None:
        self._observer.ended(exchange, streamed=streamed)
        self.ended_.append(exchange)


class LiveSockets(LiveGateway):
    """``naps`` are the seconds between rounds, which are not slept; with ``hold`` they last
    for ever. ``ear.ended_`` are the records of all rounds that are over."""

    def __init__(
        self,
        sandbox: SandboxThread,
        credentials: tuple[str, ...] = ("ok-1",),
        *,
        sockets: Mapping[str, Any] | None = None,
        keys: Mapping[str, KeyRecord] | None = None,
        settings: Mapping[str, Any] | None = None,
        hold: bool = False,
        keeper: PictureKeeper | None = None,
    ) -> None:
        chosen = {"grok.max_retry": 0, **(settings or {})}
        super().__init__(sandbox, credentials, keys=keys, settings=chosen)
        self.sockets = Sockets(**{"check_every": 0.05, **(sockets or {})})
        self.naps: list[float] = []
        self.hold = hold
        self.ear: Ear
        self.relay: ImagineRelay
        self._keeper = keeper
        self.prepare = rank
        self.server_options = {"ws_per_message_deflate": False}

    def asgi(self) -> Any:
        self.relay = self._relay()
        self.sockets.serve(self.relay, self.runtime.keys)
        routes = socket_routes(self.sockets)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            door = routes if scope["type"] == "websocket" else self.application
            await door(scope, receive, send)

        return application

    def _relay(self) -> ImagineRelay:
        relay = imagine_relay(self.runtime, translate, self._keeper)
        if conf.current().grok.media_protocol == "legacy":
            relay = replace(relay, web=self._older_web())
        self.ear = Ear(relay.observer)
        return replace(relay, observer=self.ear, sleep=self._nap, random=Random(0))

    def _older_web(self) -> WebUpstream:
        settings = replace(web_settings(conf.current)(), media_protocol="legacy")
        return WebUpstream(
            self.runtime.transports.web,
            lambda: settings,
            now_ms=lambda: time.time_ns() // 1_000_000,
            new_uuid=lambda: str(uuid.uuid4()),
        )

    async def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(1000 if self.hold else 0.01)

    def connect(self, query: str = WITH_KEY, **options: Any) -> Client:
        return Client(self.url.replace("http", "ws", 1) + PATH + query, **options)

    @property
    def rounds(self) -> list[Exchange]:
        return list(self.ear.ended_)

    def add(self, token: str) -> None:
        """One more credential for the pool."""
        pool = self.runtime.pool
        entry = Entry(900 + len(pool), "sso", True, seal(token), token[-4:])
        self.inside(lambda: pool.put(entry))

    def used(self, key_id: int = 1) -> tuple[int, int]:
        """Pictures of today that a key has used, and those that are reserved for it."""
        limiter: Any = self.runtime.limiter
        day = limiter._days.today()
        _, used, reserved = self.inside(lambda: limiter.numbers(key_id, day))
        return (0 if used is None else used.image), reserved.image


def rank(gateway: LiveGateway) -> None:
    """The credentials are tried in the order in which they were given."""
    for entry in gateway.runtime.pool.entries:
        entry.quotas["image_pro"] = Quota(100_000 - entry.id)


def at_rest(gateway: LiveSockets) -> bool:
    """No lease is out, and the simulated upstream has nobody connected."""
    sandbox = gateway.sandbox.state
    return gateway.runtime.pool.open_leases == 0 and sandbox.open_streams == 0


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


class Client:
    """A browser's side of one socket; leaving its block closes it."""

    def __init__(
        self, url: str, *, offer: tuple[str, ...] = (), headers: Any = None, **options: Any
    ) -> None:
        fixed: dict[str, Any] = {"proxy": None, "compression": None, "logger": _SILENT}
        fixed |= {"max_size": None, "additional_headers": headers, "close_timeout": 2}
        if offer:
            fixed["subprotocols"] = [Subprotocol(name) for name in offer]
        self.url = url
        self._options = {**fixed, **options}
        self._closing = ExitStack()
        self.socket: ClientConnection

    def __enter__(self) -> Self:
        self.socket = self._closing.enter_context(connect(self.url, **self._options))
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def say(self, type_: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": type_, **fields}))

    def hear(self, timeout: float = 10) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.socket.recv(timeout))
        return heard

    def hear_until(self, found: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Everything up to the first event of that kind."""
        heard = [self.hear()]
        while not found(heard[-1]):
            heard.append(self.hear())
        return heard

    def start(self, prompt: str = "a lighthouse", **fields: Any) -> str:
        """Start a run and hear that it runs; its id."""
        self.say("start", prompt=prompt, **fields)
        heard = self.hear_until(is_running)[-1]
        return str(heard["run_id"])

    def leave(self) -> None:
        """Go away without a word."""
        self.socket.socket.close()


def is_running(event: Mapping[str, Any]) -> bool:
    return (event["type"], event.get("status")) == ("status", "running")


def is_stopped(event: Mapping[str, Any]) -> bool:
    return (event["type"], event.get("status")) == ("status", "stopped")


def is_image(event: Mapping[str, Any]) -> bool:
    return bool(event["type"] == "image")


def is_pong(event: Mapping[str, Any]) -> bool:
    return bool(event["type"] == "pong")


def is_error(event: Mapping[str, Any]) -> bool:
    return bool(event["type"] == "error")
