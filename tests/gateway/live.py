"""The gateway on a real socket inside the test process, with a pool of the test's own.

Everything of the request path is real (uvicorn, the API, the relay, the upstream clients,
the sandbox); only the database is left out, so that a gateway starts in milliseconds and
a test may look into its pool.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import uvicorn

from gateway import conf
from gateway.api.application import ApiApplication, Limits
from gateway.relay import runtime
from gateway.sandbox.serve import SandboxThread
from pool.crypto import seal
from pool.entries import Entry, Quota
from pool.keys import KeyRecord, digest

T = TypeVar("T")
KEY = "sk-test-0000000000000000000000000000000000000000"
UPSTREAMS = ("grok.base_url", "grok.accounts_url", "grok.assets_url")
UPSTREAMS_XAI = ("xai.base_url", "xai.management_url")
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares every client the reading of the certificates, which takes longer than most tests."""
_running: list[LiveGateway] = []


class MemoryStore:
    """Saved settings without a database."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def stamp(self) -> object:
        return tuple(sorted((key, repr(value)) for key, value in self._values.items()))

    def read(self) -> dict[str, Any]:
        return dict(self._values)

    def write(self, values: Mapping[str, Any], by: str) -> None:
        self._values |= values

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._values.pop(key, None)


def record(**changes: Any) -> KeyRecord:
    return KeyRecord(**{"id": 1, "name": "test", "prefix": "sk-test-0", **changes})


class LiveGateway:
    """``with LiveGateway(sandbox, ["ok-1"]) as gateway:`` serves at ``gateway.url``.

    Credentials are tokens whose names choose the sandbox's behaviour; one that begins with
    ``xai-`` is an API key, one with ``super`` in it a Super session. They are ranked in the
    order given (the first has the most quota left), so that a test knows who is tried
    first. ``settings`` are dotted configuration keys.
    """

    def __init__(
        self,
        sandbox: SandboxThread,
        credentials: Iterable[str] = ("ok-1",),
        *,
        settings: Mapping[str, Any] | None = None,
        keys: Mapping[str, KeyRecord] | None = None,
    ) -> None:
        self.sandbox = sandbox
        self._credentials = list(credentials)
        self._keys = {KEY: record()} if keys is None else dict(keys)
        self._settings: dict[str, Any] = dict.fromkeys((*UPSTREAMS, *UPSTREAMS_XAI), sandbox.url)
        self._settings |= {"grok.timeout": 5, "xai.timeout": 5, **(settings or {})}
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="grok2api-live-")
        self._thread = threading.Thread(target=self._main, name="live-gateway", daemon=True)
        self.prepare: Callable[[LiveGateway], None] = lambda gateway: None
        self.server_options: dict[str, Any] = {}
        self.application: ApiApplication
        self.runtime: runtime.Runtime
        self._loop: asyncio.AbstractEventLoop
        self._server: uvicorn.Server
        # asyncio turns Nagle off only where the protocol is named.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY}"}

    def __enter__(self) -> Self:
        self._load_settings()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        _running.append(self)
        return self

    def _load_settings(self) -> None:
        conf.live.load(Path(self._directory.name), {}, MemoryStore(self._settings))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        _running.remove(self)
        if _running:
            # What a process has only one of goes back to the gateway around this one.
            _running[-1]._load_settings()
            runtime.install(_running[-1].runtime)
        self._socket.close()
        self._directory.cleanup()

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.runtime = self._build()
        except BaseException as error:  # noqa: BLE001 - re-raised in the test's thread
            self._failure = error
            self._ready.set()
            return
        self.prepare(self)
        runtime.install(self.runtime)
        self.application = ApiApplication("grok2api.urls", self._limits)
        config = uvicorn.Config(
            self.asgi(),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            **self.server_options,
        )
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():  # noqa: ASYNC110 - uvicorn's flag
            await asyncio.sleep(0.002)
        self._ready.set()
        await serving
        runtime.install(None)
        await self.runtime.transports.aclose()
        self.runtime.abandon()

    def asgi(self) -> Any:
        """What uvicorn serves; ``server_options`` are its further settings."""
        return self.application

    def _build(self) -> runtime.Runtime:
        gateway = runtime.Runtime()
        total = len(self._credentials)
        for number, token in enumerate(self._credentials, start=1):
            kind = "api" if token.startswith("xai-") else "ssoSuper" if "super" in token else "sso"
            entry = Entry(number, kind, True, seal(token), token[-4:])
            if kind != "api":
                entry.quotas = {
                    bucket: Quota(1000 + total - number)
                    for bucket in ("fast", "auto", "expert", "grok-3", "grok-4")
                }
            gateway.pool.put(entry)
        gateway.keys.install({digest(clear): found for clear, found in self._keys.items()})
        gateway.catalog.set_aliases(conf.current().models.aliases)
        gateway.ready = True
        return gateway

    def _limits(self) -> Limits:
        server = conf.current().server
        return Limits(
            server.max_body_mb * 1_000_000, float(server.keepalive_sec), server.cors_origins
        )

    def inside(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the server's loop and give its result."""

        async def call() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(5)

    def inside_async(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await ``work()`` in the server's loop and give its result."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)

    def entry(self, number: int) -> Entry:
        """The credential at a place of the list given at the start, counted from 1."""
        found = self.runtime.pool.get(number)
        assert found is not None
        return found

    def penalised(self) -> list[int]:
        """The numbers of the credentials that carry a penalty of any form."""
        return [entry.id for entry in self.runtime.pool.entries if is_penalised(entry)]

    def client(self, **options: Any) -> httpx.Client:
        fixed: dict[str, Any] = {"base_url": self.url, "headers": self.headers, "verify": NO_TLS}
        return httpx.Client(**fixed, timeout=15, **options)

    def ask(self, model: str = "grok-4", prompt: str = "Hello", **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)


def is_penalised(entry: Entry) -> bool:
    return bool(
        not entry.active
        or entry.resting_until
        or entry.skip_models
        or any(quota.cooling_until for quota in entry.quotas.values())
    )
