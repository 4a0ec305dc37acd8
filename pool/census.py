"""How many credentials of each kind are in which state, counted without holding anybody up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from pool.entries import Entry

EVERY = 5.0
AT_ONCE = 2000
STATES = ("active", "cooling", "invalid", "disabled")


class Census:
    """``entries`` gives the credentials, ``now`` Unix time; ``run_forever`` keeps counting."""

    def __init__(self, entries: Callable[[], Iterable[Entry]], now: Callable[[], float]) -> None:
        self._entries = entries
        self._now = now
        self.counts: Mapping[str, Mapping[str, int]] = {}
        """By kind, then by state."""

    async def run_forever(self) -> None:
        while True:
            await self.take()
            await asyncio.sleep(EVERY)

    async def take(self) -> None:
        """Count everybody; requests get their turn every few thousand credentials."""
        counts: dict[str, dict[str, int]] = {}
        now = self._now()
        rest = iter(list(self._entries()))
        while part := list(islice(rest, AT_ONCE)):
            for entry in part:
                by_state = counts.setdefault(entry.kind, dict.fromkeys(STATES, 0))
                by_state[state_of(entry, now)] += 1
            await asyncio.sleep(0)
        self.counts = counts


def state_of(entry: Entry, now: float) -> str:
    """One of STATES; a credential some bucket of which cools is cooling."""
    if entry.disabled:
        return "disabled"
    if not entry.active:
        return "invalid"
    return "cooling" if entry.is_cooling(now) else "active"
