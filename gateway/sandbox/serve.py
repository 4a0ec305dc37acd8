"""Running the sandbox: inside a loop, or in a thread of its own for synchronous callers."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web

from gateway.sandbox.app import build_app
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.state import STATE, SandboxState

SHUTDOWN_S = 0.2


@dataclass(slots=True)
class RunningSandbox:
    """A sandbox that listens at ``url``; ``stop`` ends every open stream."""

    url: str
    state: SandboxState
    _runner: web.AppRunner

    async def stop(self) -> None:
        self.state.closing = True
        await self._runner.cleanup()


async def start_sandbox(
    host: str = "127.0.0.1", port: int = 0, options: SandboxOptions | None = None
) -> RunningSandbox:
    """Listen on ``host``; port 0 picks a free one. Raises OSError if the port is taken."""
    app = build_app(options)
    # Without cancellation a handler that waits would never learn that its client has gone.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound_host, bound_port = runner.addresses[0][:2]
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    return RunningSandbox(f"http://{shown}:{bound_port}", app[STATE], runner)


class SandboxThread:
    """``with SandboxThread() as sandbox:`` runs one in an event loop of its own.

    ``state`` may be read from the caller's thread.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, options: SandboxOptions | None = None
    ) -> None:
        self._where = (host, port, options)
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._running: RunningSandbox | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="sandbox", daemon=True)

    @property
    def url(self) -> str:
        return self._up.url

    @property
    def state(self) -> SandboxState:
        return self._up.state

    @property
    def _up(self) -> RunningSandbox:
        if self._running is None:
            raise RuntimeError("the sandbox is not running")
        return self._running

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        host, port, options = self._where
        try:
            self._running = await start_sandbox(host, port, options)
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await self._running.stop()
