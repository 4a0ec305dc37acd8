"""Who may be used now, best first, kept in step with every change of a credential."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from pool.entries import Entry
from pool.ranking import Ranking


@dataclass(slots=True)
class _Kind:
    """The credentials of one kind.

    ``rankings`` are by bucket, then by model; "" stands for every model that is not in
    ``restricted``, the models that some credential of the kind was found not entitled to.
    """

    members: dict[int, Entry] = field(default_factory=dict)
    active: set[int] = field(default_factory=set)
    restricted: set[str] = field(default_factory=set)
    rankings: dict[str, dict[str, Ranking]] = field(default_factory=dict)


class Standings:
    """Rankings are made when first asked for; from then on a change costs O(log n)."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = defaultdict(_Kind)
        self._wakeups: list[tuple[float, int, Entry]] = []
        self._pushes = 0

    def members(self, kind: str) -> Mapping[int, Entry]:
        return self._kinds[kind].members

    def has_active(self, kind: str) -> bool:
        return bool(self._kinds[kind].active)

    def __contains__(self, entry: Entry) -> bool:
        return self._kinds[entry.kind].members.get(entry.id) is entry

    def add(self, entry: Entry, now: float, cap: int) -> None:
        self._kinds[entry.kind].members[entry.id] = entry
        self.place(entry, now, cap)

    def remove(self, entry: Entry) -> None:
        """Take out a credential; it must still be of the kind it was added with."""
        kind = self._kinds[entry.kind]
        kind.members.pop(entry.id, None)
        kind.active.discard(entry.id)
        for by_model in kind.rankings.values():
            for ranking in by_model.values():
                ranking.put(entry.id, None)

    def forget_rankings(self) -> None:
        """They were made with a concurrency cap that is no longer the one in force."""
        for kind in self._kinds.values():
            kind.rankings.clear()

    def restrict(self, kind: str, model: str) -> None:
        """From now on, keep a ranking of those entitled to ``model`` apart."""
        self._kinds[kind].restricted.add(model)

    def ranking(self, kind: str, bucket: str, model: str, now: float, cap: int) -> Ranking:
        members = self._kinds[kind]
        model = model if model in members.restricted else ""
        by_model = members.rankings.setdefault(bucket, {})
        ranking = by_model.get(model)
        if ranking is None:
            ranking = by_model[model] = Ranking()
            for entry in members.members.values():
                ranking.put(entry.id, entry.rank(bucket, model, now, cap))
        return ranking

    def place(self, entry: Entry, now: float, cap: int) -> None:
        """Rank a credential anew in every bucket; one that was removed is left alone."""
        if entry not in self:
            return
        kind = self._kinds[entry.kind]
        (kind.active.add if entry.active else kind.active.discard)(entry.id)
        for bucket, by_model in kind.rankings.items():
            for model, ranking in by_model.items():
                ranking.put(entry.id, entry.rank(bucket, model, now, cap))
        self._schedule(entry, now)

    def place_after_use(self, entry: Entry, bucket: str, now: float, cap: int) -> None:
        """Reaching or leaving the concurrency cap touches every bucket, other uses only one."""
        if entry.in_flight + entry.elsewhere >= cap - 1 or entry not in self:
            self.place(entry, now, cap)
            return
        for model, ranking in self._kinds[entry.kind].rankings.get(bucket, {}).items():
            ranking.put(entry.id, entry.rank(bucket, model, now, cap))

    def _schedule(self, entry: Entry, now: float) -> None:
        soonest = entry.next_wakeup(now)
        if soonest is not None and not now < entry.wakes_at <= soonest:
            entry.wakes_at = soonest
            self._pushes += 1
            heapq.heappush(self._wakeups, (soonest, self._pushes, entry))

    def take_waking(self, now: float, most: int) -> list[Entry]:
        """Up to ``most`` credentials that have waited long enough, soonest first.

        The caller wakes and places them. A removed one is not among them.
        """
        woken: list[Entry] = []
        while self._wakeups and self._wakeups[0][0] <= now and len(woken) < most:
            entry = heapq.heappop(self._wakeups)[2]
            if entry in self:
                woken.append(entry)
        return woken
