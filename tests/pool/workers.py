"""A worker process's share of the pool, driven step by step from a test's own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from pool import roster
from pool.entries import Entry
from pool.fingerprints import fingerprint
from pool.keys import KeyDirectory
from pool.leases import Lane, Want
from pool.models import Credential, Kind
from pool.outcomes import SUCCESS, Outcome
from pool.policy import PoolPolicy
from pool.upkeep import Upkeep
from tests.pool.samples import Clock, make_pool

T = TypeVar("T")
LANE = Lane("sso", "fast")
WANT = Want((LANE,), "grok-4")


def moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)


def add(number: int = 1, kind: Kind = Kind.SSO, **changes: Any) -> Credential:
    """A stored credential whose secret is ``secret-NUMBER`` (sealed as itself)."""
    secret = f"secret-{number}"
    fields: dict[str, Any] = {"sealed": secret.encode(), "hint": secret[-4:]}
    fields["fingerprint"] = fingerprint(kind, secret)
    return Credential.objects.create(kind=kind, **(fields | changes))


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop and other threads go on until ``condition`` holds; at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another thread
            await asyncio.sleep(0.001)


class Worker:
    """``with Worker() as worker:`` has loaded the record; leaving writes what is pending.

    The database is only touched from the worker's own thread, as in production; between
    two calls no coroutine runs, so a test may look at the database itself.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        write: Callable[[Iterable[roster.Change]], Mapping[int, datetime] | None] = roster.write,
        save_delay: float = 0.0,
        policy: PoolPolicy | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.upkeep = Upkeep(save_delay=lambda: save_delay, poll=0.0, write=write, clock=self.clock)
        self.pool = make_pool(clock=self.clock, policy=policy, changed=self.upkeep.note)
        self.keys = KeyDirectory(lambda: "", clock=self.clock)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self.run(self.upkeep.load(self.pool, self.keys))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(self.upkeep.close())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def refresh(self) -> None:
        self.run(self.upkeep.refresh(self.pool, self.keys))

    def flush(self) -> None:
        self.run(self.upkeep.flush())

    def use(self, outcome: Outcome = SUCCESS, want: Want = WANT) -> int:
        return self.run(self.ause(outcome, want))

    async def ause(self, outcome: Outcome = SUCCESS, want: Want = WANT) -> int:
        lease = await self.pool.lease(want)
        await self.pool.settle(lease, outcome)
        await self.pool.release(lease)
        return lease.credential_id

    def entry(self, credential: Credential) -> Entry:
        found = self.pool.get(credential.pk)
        assert found is not None
        return found
