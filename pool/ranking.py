"""An ordered set of credentials: the best level first, ties at random, all in O(log n)."""

from __future__ import annotations

import heapq
from collections.abc import Collection
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

    def choose(self, random: Random, exclude: Collection[int]) -> int | None:
        """A random id outside ``exclude``, found in as many steps as that has members."""
        ids = self._ids
        start = int(random.random() * len(ids))
        for offset in range(len(ids)):
            if ids[start - offset] not in exclude:
                return ids[start - offset]
        return None


class Ranking:
    """Members with an integer rank, highest first."""

    __slots__ = ("_heap", "_levels", "_ranks")

    def __init__(self) -> None:
        self._levels: dict[int, Level] = {}
        self._ranks: dict[int, int] = {}
        self._heap: list[int] = []
        """Every key of ``_levels`` once, negated: the highest comes first."""

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, member: int) -> bool:
        return member in self._ranks

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

    def best(self, random: Random, exclude: Collection[int] = ()) -> int | None:
        """A random member of the highest level that has one outside ``exclude``.

        Passes over at most as many levels as ``exclude`` has members, and empty ones, which
        are dropped.
        """
        passed: list[int] = []
        found = None
        while self._heap and found is None:
            level = self._levels[-self._heap[0]]
            found = level.choose(random, exclude)
            if found is None:
                rank = heapq.heappop(self._heap)
                if level:
                    passed.append(rank)
                else:
                    del self._levels[-rank]
        for rank in passed:
            heapq.heappush(self._heap, rank)
        return found
