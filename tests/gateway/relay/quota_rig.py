"""A quota sync over real upstream clients, with time and randomness in the test's hands."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import httpx

from gateway.conf.schema import Config, Performance, Token
from gateway.relay.quota_queries import QuotaQueries
from gateway.relay.quota_sync import QuotaSync
from gateway.sandbox.serve import SandboxThread
from gateway.upstream.http import Http, open_transport
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.xai.client import XaiUpstream
from gateway.upstream.xai.settings import XaiSettings
from pool.entries import Entry, Quota
from pool.leases import Lane, Lease
from pool.policy import PoolPolicy
from tests.pool.samples import Clock, make_entry, make_pool

RATE_LIMITS = "/rest/rate-limits"
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class SteppedTime:
    """Seconds that pass only in ``advance``; whoever sleeps wakes in the right order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        waker = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), waker))
        await waker

    async def advance(self, seconds: float, calm: Callable[[], bool] = lambda: True) -> None:
        """Let ``seconds`` pass; after each step, work goes on until ``calm``."""
        end = self.now + seconds
        await breathe(calm)
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, waker = heapq.heappop(self._sleepers)
            if not waker.done():
                waker.set_result(None)
                await breathe(calm)
        self.now = end


async def breathe(calm: Callable[[], bool] = lambda: True) -> None:
    """Let the loop go on, and then what is on the network, for at most ten seconds."""
    for _ in range(12):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not calm():  # noqa: ASYNC110 - what is waited for is in another thread
            await asyncio.sleep(0.001)


def reply(remaining: object = 50, total: object = 100, **fields: Any) -> httpx.Response:
    body = {"remainingQueries": remaining, "totalQueries": total, "windowSizeSeconds": 7200}
    return httpx.Response(200, json=body | fields)


def token_of(request: httpx.Request) -> str:
    cookies: dict[str, str] = dict(
        part.split("=", 1) for part in request.headers.get("cookie", "").split("; ")
    )
    return cookies["sso"]


class Scripted:
    """An upstream that answers as ``answer`` does and keeps what it was asked, and when."""

    def __init__(self, answer: Handler | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[float, str, str]] = []
        self.open = self.most_open = 0
        self.gate: asyncio.Event | None = None
        self.clock: Callable[[], float] = lambda: 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        web = "cookie" in request.headers
        name = json.loads(request.content).get("modelName", "media") if web else ""
        token = token_of(request) if web else request.headers["authorization"][7:]
        self.asked.append((self.clock(), token, name))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return await self.answer(request) if self.answer else reply()
        finally:
            self.open -= 1

    @property
    def tokens(self) -> list[str]:
        return [token for _, token, _ in self.asked]


def always(response: Callable[[], httpx.Response]) -> Scripted:
    async def answer(request: httpx.Request) -> httpx.Response:
        return response()

    return Scripted(answer)


class Rig:
    """``tokens`` become credentials 1, 2, ...: one that begins with ``xai-`` an API key."""

    def __init__(
        self,
        upstream: SandboxThread | Scripted,
        tokens: Sequence[str] = ("ok-1",),
        *,
        seed: int = 1,
        web: WebSettings | None = None,
        **options: Any,
    ) -> None:
        self.time = SteppedTime()
        self.unix = Clock(time.time())
        self.config = Config(performance=Performance(), token=Token())
        self.leads = False
        self.entries = [_entry(number, token) for number, token in enumerate(tokens, start=1)]
        self.pool = make_pool(*self.entries, clock=self.unix, policy=PoolPolicy())
        url = upstream.url if isinstance(upstream, SandboxThread) else "http://127.0.0.1:9"
        self._settings = replace(web or WebSettings(timeout=5.0), base_url=url)
        self._http = Http(_transport(upstream, self.time))
        self.queries = QuotaQueries(
            self.pool,
            WebUpstream(
                lambda: self._http,
                lambda: self._settings,
                now_ms=lambda: int(self.unix() * 1000),
                new_uuid=lambda: str(uuid.uuid4()),
            ),
            XaiUpstream(lambda: self._http, lambda: XaiSettings(base_url=url, timeout=5.0)),
            form=self._form,
            known=lambda number: self.entries[number - 1].quotas,
            now=self.unix,
        )
        self.sync = QuotaSync(
            self.pool,
            self.queries,
            config=lambda: self.config,
            leads=lambda: self.leads,
            random=Random(seed),
            clock=self.time,
            sleep=self.time.sleep,
            **options,
        )

    def _form(self) -> Any:
        settings = self._settings
        return "mgw" if settings.chat_protocol == "mgw" else settings.rest_form

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.sync.run_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._http.aclose()

    async def advance(self, seconds: float) -> None:
        """Let time pass, waiting for every answer on the way."""
        await self.time.advance(seconds, self.is_calm)

    def is_calm(self) -> bool:
        return not self.sync.running

    def use(self, number: int = 1, bucket: str = "fast") -> None:
        """As if a lease of the credential had ended that used some of ``bucket``."""
        entry = self.entries[number - 1]
        lane = Lane(entry.kind, bucket)
        secret = entry.sealed.decode()
        self.sync.after_use(
            Lease(1, number, lane, "grok-4", secret, entry.user_id, entry.team_id, entry.hint)
        )

    def set(self, section: str, **values: Any) -> None:
        """Change settings while everything runs."""
        changed = getattr(self.config, section).model_copy(update=values)
        self.config = replace(self.config, **{section: changed})

    def remaining(self, number: int = 1, bucket: str = "fast") -> int | None:
        quota = self.entries[number - 1].quotas.get(bucket)
        return None if quota is None else quota.remaining


def _entry(number: int, token: str) -> Entry:
    kind = "api" if token.startswith("xai-") else "sso"
    entry = make_entry(number, kind, sealed=token.encode())
    if kind == "sso":
        entry.quotas["fast"] = Quota(7)
    return entry


def _transport(upstream: SandboxThread | Scripted, clock: Callable[[], float]) -> Any:
    if isinstance(upstream, SandboxThread):
        return open_transport()
    upstream.clock = clock
    return httpx.MockTransport(upstream)
