"""Which credential holds some opaque upstream state, so that later requests reach it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEEP = 30 * 24 * 3600.0
MOST = 100_000
"""States that one worker remembers; the one used longest ago goes first."""


class Affinity:
    """What one worker remembers. ``now`` gives Unix time."""

    def __init__(self, now: Callable[[], float], most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def remember(self, state: str, credential_id: int) -> None:
        """``state`` is any identifier of upstream's; it is kept for thirty days."""
        self._known[state] = (credential_id, self._now() + KEEP)
        self._known.move_to_end(state)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    async def find(self, state: str) -> int | None:
        """The credential that holds ``state``, for ``Want.only``; None when nobody knows."""
        known = self._known.get(state)
        if known is None:
            return None
        credential_id, until = known
        if until <= self._now():
            del self._known[state]
            return None
        self._known.move_to_end(state)
        return credential_id
