"""Waiting a little for a credential instead of refusing at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pool.errors import NoCredential
from pool.leases import Lease, Pool, Want

LOOK_AGAIN = 0.25
"""Seconds after which a waiting request looks again, whatever it was told: other workers
free credentials without a word."""


@dataclass(frozen=True, slots=True)
class Patience:
    """``seconds`` that one request waits at the most, ``most`` requests at the same time."""

    seconds: float = 0.0
    most: int = 1000


async def wait_for(signal: asyncio.Future[None], seconds: float) -> None:
    """Until ``signal`` is given or the time is up."""
    await asyncio.wait([signal], timeout=seconds)


class WaitingRoom:
    """First come, first served: a freed credential wakes the request that waits longest.

    ``clock`` gives seconds from any start. A request is let in only if a credential can be
    free before its patience ends; when the room is full it is refused as if there were none.
    """

    def __init__(
        self,
        pool: Pool,
        patience: Callable[[], Patience],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[asyncio.Future[None], float], Awaitable[None]] = wait_for,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._clock = clock
        self._wait = wait
        self._queue: deque[asyncio.Future[None]] = deque()
        self.turned_away = 0
        """Requests that found the room full."""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def freed(self) -> None:
        """Wake the request that waits longest."""
        while self._queue:
            signal = self._queue.popleft()
            if not signal.done():
                signal.set_result(None)
                return

    async def lease(self, want: Want) -> Lease:
        """As Pool.lease; raises NoCredential once patience is at its end."""
        patience = self._patience()
        until = self._clock() + patience.seconds
        while True:
            try:
                return await self._pool.lease(want)
            except NoCredential as refusal:
                left = until - self._clock()
                if refusal.soonest is None or refusal.soonest > left or left <= 0:
                    raise
                if len(self._queue) >= patience.most:
                    self.turned_away += 1
                    raise
                await self._sit(min(left, refusal.soonest or LOOK_AGAIN, LOOK_AGAIN))

    async def _sit(self, seconds: float) -> None:
        signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(signal)
        woken = False
        try:
            await self._wait(signal, seconds)
            woken = True
        finally:
            if signal in self._queue:
                self._queue.remove(signal)
            elif not woken:
                self.freed()  # this one was woken and has left: the next in line may have it
