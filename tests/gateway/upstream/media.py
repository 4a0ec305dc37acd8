"""The media clients against a sandbox of their own, over real sockets."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.sandbox.media_bytes import png
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import start_sandbox
from gateway.sandbox.state import SandboxState
from gateway.upstream.errors import UpstreamError
from gateway.upstream.events import Event
from gateway.upstream.http import Http, open_transport
from gateway.upstream.requests import Account, StoredFile
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.xai.client import XaiUpstream
from gateway.upstream.xai.settings import XaiSettings

UID = "11111111-2222-4333-8444-555555555555"


@dataclass
class Rig:
    """``naps`` are the seconds that were to be slept; nobody slept."""

    url: str
    state: SandboxState
    http: Http
    naps: list[float] = field(default_factory=list)

    async def nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)

    def web(self, **settings: Any) -> WebUpstream:
        values: dict[str, Any] = {
            "base_url": self.url,
            "assets_url": self.url,
            "user_agent": "test",
            "timeout": 5.0,
        }
        chosen = WebSettings(**values | settings)
        return WebUpstream(
            lambda: self.http,
            lambda: chosen,
            now_ms=lambda: 1_790_000_000_000,
            new_uuid=lambda: str(uuid.uuid4()),
            sleep=self.nap,
        )

    def xai(self, **settings: Any) -> XaiUpstream:
        values: dict[str, Any] = {"base_url": self.url, "timeout": 5.0}
        chosen = XaiSettings(**values | settings)
        return XaiUpstream(lambda: self.http, lambda: chosen, sleep=self.nap)

    def rules_broken(self) -> list[str]:
        return [f"{found.rule}: {found.detail}" for found in self.state.violations]

    async def left(self, path: str) -> None:
        """Wait until the sandbox has noticed that a client of ``path`` went away."""
        await until(lambda: any(gone.path == path for gone in self.state.disconnects))


async def until(true: Callable[[], bool]) -> None:
    """Wait for what happens in the same loop; fails after two seconds."""
    deadline = asyncio.get_running_loop().time() + 2
    while not true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Rig]:
    sandbox = await start_sandbox(options=SandboxOptions(**{"slow_ms": 5} | options))
    http = Http(open_transport())
    try:
        yield Rig(sandbox.url, sandbox.state, http)
    finally:
        await http.aclose()
        await sandbox.stop()


Batches = AsyncGenerator[list[Event], None]


async def outcome(batches: Batches) -> tuple[list[Event], UpstreamError | None]:
    """Everything a stream gave, and how it failed."""
    events: list[Event] = []
    try:
        async for batch in batches:
            assert batch
            events += batch
    except UpstreamError as error:
        return events, error
    return events, None


async def events_of(batches: Batches) -> list[Event]:
    events, error = await outcome(batches)
    if error is not None:
        raise error
    return events


def only(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def stored(folder: Path, name: str = "cat.png", content: bytes | None = None) -> StoredFile:
    """A picture on disk."""
    content = png(name) if content is None else content
    path = folder / f"{uuid.uuid4()}"
    path.write_bytes(content)
    return StoredFile(name, "image/png", path, len(content))


def patience(behaviour: str) -> float:
    """Seconds to wait for a sandbox that behaves so: few only where it will not answer."""
    return 0.3 if behaviour in ("hang", "silent") else 5.0


def account(token: str) -> Account:
    return Account(token)


def scripted(
    handler: Callable[[httpx.Request], httpx.Response], **settings: Any
) -> tuple[WebUpstream, list[float]]:
    """A client of grok.com over a transport of the test's own, and what it would sleep."""
    http = Http(httpx.MockTransport(handler))
    chosen = WebSettings(**{"base_url": "http://grok.test", "chat_protocol": "rest"} | settings)
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    return (
        WebUpstream(
            lambda: http,
            lambda: chosen,
            now_ms=lambda: 1_790_000_000_000,
            new_uuid=lambda: UID,
            sleep=nap,
        ),
        naps,
    )
