"""One request while it runs: what will be remembered of it, and its place under a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.exchange import Attempt, End, Exchange
from gateway.upstream.errors import UpstreamError
from gateway.upstream.events import Usage
from pool.keys import KeyRecord
from pool.leases import Lease
from pool.limits.charges import Charge
from pool.limits.limiter import KeyLimiter, Ticket


class Observer(Protocol):
    """Hears of every request: at its beginning and, once, at its end."""

    def began(self, exchange: Exchange) -> None: ...

    def streams(self, exchange: Exchange) -> None: ...

    def ended(self, exchange: Exchange, *, streamed: bool) -> None: ...


class Recording:
    """``close`` it in every case, also when cancelled; ``clock`` gives seconds from any start."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        clock: Callable[[], float],
        limiter: KeyLimiter,
        observer: Observer,
    ) -> None:
        self.exchange = exchange
        self._clock = clock
        self._limiter = limiter
        self._observer = observer
        self._start = clock()
        self._ticket: Ticket | None = None
        self._closed = False
        self._streamed = False
        observer.began(exchange)

    def _elapsed(self) -> float:
        return self._clock() - self._start

    async def admit(self, key: KeyRecord, charge: Charge) -> None:
        """Reserve what the request costs its key; raises LimitExceeded."""
        self._ticket = await self._limiter.reserve(key, charge)

    async def commit(self) -> None:
        """The answer has begun: what was reserved is used, and nothing can be refunded."""
        if self._ticket is not None:
            await self._limiter.settle(self._ticket)

    def streams(self) -> None:
        """The answer is a stream, which stays open until ``close``."""
        self._streamed = True
        self._observer.streams(self.exchange)

    def tries(self, lease: Lease) -> Attempt:
        kind = lease.lane.kind
        upstream = "api" if kind == "api" else "web"
        attempt = Attempt(lease.credential_id, lease.hint, kind, upstream, lease.lane.bucket)
        attempt.seconds = -self._elapsed()
        self.exchange.attempts.append(attempt)
        return attempt

    def begins(self, attempt: Attempt) -> None:
        """Upstream's first event has come."""
        self.exchange.first_event = self._elapsed()
        attempt.seconds += self.exchange.first_event

    def leaves(self, attempt: Attempt, error: BaseException) -> None:
        """Also for a request that ends while it waits, which has left nothing else."""
        attempt.left = type(error).__name__
        attempt.seconds += self._elapsed()
        if isinstance(error, UpstreamError):
            attempt.row, attempt.status = error.row, error.upstream_status

    def sent(self, message: bytes) -> None:
        self.exchange.bytes_out += len(message)

    def used(self, usage: Usage | None) -> None:
        if usage is not None:
            exchange = self.exchange
            exchange.prompt_tokens = usage.prompt
            exchange.completion_tokens = usage.completion
            exchange.reasoning_tokens = usage.reasoning
            exchange.tokens = "estimated" if usage.estimated else "measured"

    def ends(self, end: End, status: int, error_code: str | None = None) -> None:
        """How it went, as far as is known now; a later word outranks an earlier one."""
        self.exchange.end, self.exchange.status = end, status
        self.exchange.error_code = error_code or ""

    async def close(self) -> None:
        """Give the place back and hand over what is remembered; once."""
        if self._closed:
            return
        self._closed = True
        self.exchange.duration = self._elapsed()
        try:
            if self._ticket is not None:
                await self._limiter.release(self._ticket)
        finally:
            self._observer.ended(self.exchange, streamed=self._streamed)
