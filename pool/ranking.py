"""An ordered set of credentials: the best level first, ties at random, all in O(log n)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from random import Random


class Level:
    """The ids that share one rank; add, discard and random choice in O(1)."""

    __slots__ = ("_ids", "_places")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, member: int) -> None:
        self._places[member] = len(self._ids)
        self._ids.append(member)

    def discard(self, member: int) -> None:
        place = self._places.pop(member)
        last = self._ids.pop()
        if last != member:
            self._ids[place] = last
            self._places[last] = place

    def shuffled(self, random: Random) -> Iterator[int]:
        """Every id once, from a random start with a random stride direction."""
        ids = self._ids
        start = int(random.random() * len(ids))
        for offset in range(len(ids)):
            yield ids[start - offset]


class Ranking:
    """Members with an integer rank, highest first."""

    __slots__ = ("_heap", "_levels", "_ranks")

    def __init__(self) -> None:
        self._levels: dict[int, Level] = {}
        self._ranks: dict[int, int] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def put(self, member: int, rank: int | None) -> None:
        """Give ``member`` a rank, move it to another, or (None) take it out."""
        old = self._ranks.get(member)
        if old == rank:
            return
        if old is not None:
            del self._ranks[member]
            self._levels[old].discard(member)
        if rank is None:
            return
        self._ranks[member] = rank
        level = self._levels.get(rank)
        if level is None:
            level = self._levels[rank] = Level()
            heapq.heappush(self._heap, -rank)
        level.add(member)

    def best(self, random: Random, accept: Callable[[int], bool]) -> int | None:
        """The first acceptable member of the highest level that has one."""
        self._drop_empty_top()
        if not self._heap:
            return None
        for member in self._levels[-self._heap[0]].shuffled(random):
            if accept(member):
                return member
        return self._best_below_top(random, accept)

    def _best_below_top(self, random: Random, accept: Callable[[int], bool]) -> int | None:
        for rank in sorted(self._levels, reverse=True)[1:]:
            for member in self._levels[rank].shuffled(random):
                if accept(member):
                    return member
        return None

    def _drop_empty_top(self) -> None:
        while self._heap and not self._levels[-self._heap[0]]:
            del self._levels[-heapq.heappop(self._heap)]
