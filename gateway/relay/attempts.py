"""Lease, call, wait for the first event, and on failure perhaps another credential.

The one retry policy of the project. Nothing has been sent to the client while this runs;
once it returns, the stream is committed and no other credential will ever be tried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway.relay.recording import Recording
from gateway.relay.verdicts import Blame
from gateway.upstream.errors import UpstreamError, UpstreamIncomplete
from gateway.upstream.events import SEMANTIC, Event, Finished
from gateway.upstream.requests import Account
from pool.errors import NoCredential
from pool.leases import Lease, Pool, Want
from pool.outcomes import NEUTRAL, SPENT, SUCCESS, Outcome
from pool.waiting import WaitingRoom

logger = logging.getLogger(__name__)

Batches = AsyncGenerator[list[Event], None]
Call = Callable[[Lease, Account], Batches]


class Watcher(Protocol):
    """Is told what uses of credentials have shown; must not block."""

    def failed(self, error: UpstreamError) -> None:
        """An attempt failed."""

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        """A use has ended."""


class Committed:
    """An answer that has begun: iterate it once, close it in every case."""

    def __init__(
        self,
        pool: Pool,
        lease: Lease,
        account: Account,
        events: Batches,
        blame: Blame,
        watcher: Watcher,
    ) -> None:
        self.lease = lease
        self._pool = pool
        self._account = account
        self._events = events
        self._blame = blame
        self._watcher = watcher
        self._first: list[Event] = []
        self._outcome: Outcome = SPENT

    async def prime(self) -> None:
        """Wait for the first semantic event; raises UpstreamError before there is one."""
        async for batch in self._events:
            self._first += batch
            if any(isinstance(event, SEMANTIC) for event in batch):
                return
        raise UpstreamIncomplete("The upstream gave an empty answer.", row=14)

    async def batches(self) -> AsyncIterator[list[Event]]:
        """The whole answer; raises UpstreamError when it breaks off."""
        try:
            last = self._first
            yield last
            async for batch in self._events:
                last = batch
                yield batch
            if not isinstance(last[-1], Finished):
                raise UpstreamIncomplete(row=14)
            self._outcome = SUCCESS
        except UpstreamError as error:
            self.fail(error)
            raise

    def fail(self, error: UpstreamError) -> None:
        self._outcome = self._blame.outcome_of(error)
        self._watcher.failed(error)

    def abandon(self, *, cancelled: bool) -> None:
        """Nobody wants the answer any more; upstream may have worked for a cancelled one."""
        self._outcome = SPENT if cancelled else NEUTRAL

    async def aclose(self) -> None:
        """Close upstream, settle, release: in that order, also when cancelled meanwhile."""
        try:
            await self._events.aclose()
        finally:
            try:
                if self._account.user_id and self._account.user_id != self.lease.user_id:
                    await self._pool.learn(self.lease, user_id=self._account.user_id)
                await self._pool.settle(self.lease, self._outcome)
                self._watcher.settled(self.lease, self._outcome)
            finally:
                await self._pool.release(self.lease)


GOVERNED = frozenset({401, 403, 429})
"""The upstream statuses whose retry the operator may switch off."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``most`` further credentials at the most; ``statuses`` are the governed ones retried."""

    most: int
    statuses: frozenset[int] = GOVERNED

    def allows(self, error: UpstreamError, attempt: int) -> bool:
        """Whether another credential may try after ``attempt`` (from 1) failed so."""
        if not error.retry or attempt > self.most:
            return False
        if error.max_attempts is not None and attempt >= error.max_attempts:
            return False
        status = error.upstream_status
        return status not in GOVERNED or status in self.statuses


@dataclass(frozen=True, slots=True)
class Attempts:
    """Tries one credential after the other for one request.

    ``room`` is where a request waits for its first credential. ``blame`` is shared by all the
    calls of one request, where it needs several.
    """

    pool: Pool
    room: WaitingRoom
    call: Call
    policy: RetryPolicy
    recording: Recording
    watcher: Watcher
    blame: Blame = field(default_factory=Blame)

    async def commit(self, want: Want) -> Committed:
        """The first answer that begins.

        Raises NoCredential when nothing could be tried, else the last UpstreamError.
        """
        lease = await self.room.lease(want)
        for attempt in range(1, self.policy.most + 2):
            try:
                return await self._begin(lease)
            except UpstreamError as failure:
                _log(attempt, lease, failure)
                if attempt > self.policy.most or not self.policy.allows(failure, attempt):
                    raise
                want = replace(want, exclude=want.exclude | {lease.credential_id})
                try:
                    lease = await self.pool.lease(want)
                except NoCredential:
                    raise failure from None
        raise AssertionError("the last attempt returns or raises")

    async def _begin(self, lease: Lease) -> Committed:
        account = Account(lease.secret, lease.user_id or None)
        attempt = self.recording.tries(lease)
        events = self.call(lease, account)
        committed = Committed(self.pool, lease, account, events, self.blame, self.watcher)
        try:
            await committed.prime()
        except BaseException as error:
            self.recording.leaves(attempt, error)
            if isinstance(error, UpstreamError):
                committed.fail(error)
            else:
                committed.abandon(cancelled=isinstance(error, asyncio.CancelledError))
            await committed.aclose()
            raise
        self.recording.begins(attempt)
        return committed


def _log(attempt: int, lease: Lease, error: UpstreamError) -> None:
    logger.info(
        "attempt %d with credential %d for %s failed: %s (row %s, HTTP %s) %s",
        attempt,
        lease.credential_id,
        lease.model,
        type(error).__name__,
        error.row,
        error.upstream_status,
        error.evidence,
    )
