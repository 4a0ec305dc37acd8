"""The routes for files on a real socket, over a directory of the test's own."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import uvicorn

from gateway.api.application import ApiApplication, Limits
from gateway.api.files import MediaServing
from gateway.media.links import LinkPolicy, MediaLinks
from gateway.media.store import MediaStore
from tests.gateway.live import NO_TLS
from tests.gateway.media.urls import BEARER, Current, has_key

T = TypeVar("T")
KEY = b"k" * 32
MAX_BODY = 100_000
PUBLIC = LinkPolicy("", signed=False, lifetime=0)


class MediaServer:
    """``with MediaServer(directory) as server:``; ``policy`` may be replaced meanwhile."""

    def __init__(self, root: Path, policy: LinkPolicy = PUBLIC, *, reserve: int = 0) -> None:
        self.root = root
        self.policy = policy
        self.now = 1_000_000.0
        self.store = MediaStore(root, reserve=reserve)
        self.links = MediaLinks(KEY, lambda: self.policy, now=lambda: self.now)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._loop: asyncio.AbstractEventLoop
        self._server: uvicorn.Server
        self.application: ApiApplication

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def put(self, kind: str, name: str, content: bytes) -> Path:
        file = self.root / kind / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def left(self) -> list[str]:
        """Everything on the disk but finished files."""
        found = [path for path in self.root.rglob("*") if path.is_file()]
        return [path.name for path in found if path.name.startswith(".")]

    def stored(self) -> list[str]:
        found = [path for path in self.root.rglob("*") if path.is_file()]
        return sorted(path.name for path in found if not path.name.startswith("."))

    def configure(self, **changes: Any) -> None:
        Current.serving = dataclasses.replace(Current.serving, **changes)

    def client(self, *, key: bool = False) -> httpx.Client:
        headers = {"Authorization": BEARER} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, verify=NO_TLS, timeout=20)

    def inside(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await ``work()`` in the server's loop and give its result."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)

    def __enter__(self) -> Self:
        Current.refuse = None
        Current.serving = MediaServing(self.store, self.links, has_key)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        limits = Limits(MAX_BODY, 15.0, ("*",))
        self.application = ApiApplication("tests.gateway.media.urls", lambda: limits)
        config = uvicorn.Config(
            self.application,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110 - uvicorn's flag
            await asyncio.sleep(0.002)
        self._ready.set()
        await serving
        await self.store.aclose()
