"""Choosing a credential, in memory: reserve, settle, release.

Every method is a coroutine so that a shared store can stand behind the same interface;
here none of them awaits anything, so each is atomic within the event loop.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from random import Random

from pool.entries import Entry
from pool.leases import Lane, Lease, Want
from pool.outcomes import Outcome, Verdict
from pool.penalties import apply_outcome
from pool.policy import PoolPolicy
from pool.ranking import Ranking
from pool.refusals import explain


@dataclass(slots=True)
class _Hold:
    """An open lease: what was taken from the bucket, and whether its end was told."""

    entry: Entry
    reserved: int
    settled: bool = False


class MemoryPool:
    """The pool of one process.

    ``now`` gives Unix time in seconds, ``unseal`` opens a stored secret (only the winner's
    is ever opened), ``changed`` is told of each entry that has something to write.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], PoolPolicy],
        now: Callable[[], float],
        random: Random,
        unseal: Callable[[bytes], str],
        changed: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        self._policy = policy
        self._now = now
        self._random = random
        self._unseal = unseal
        self._changed = changed
        self._entries: dict[int, Entry] = {}
        self._teams: dict[str, set[int]] = {}
        self._usable: dict[str, set[int]] = defaultdict(set)
        self._rankings: dict[tuple[str, str], Ranking] = {}
        self._wakeups: list[tuple[float, int]] = []
        self._open: dict[int, _Hold] = {}
        self._ids = count(1)

    @property
    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def open_leases(self) -> int:
        return len(self._open)

    def get(self, credential_id: int) -> Entry | None:
        return self._entries.get(credential_id)

    def put(self, entry: Entry) -> None:
        """Add a credential."""
        self._entries[entry.id] = entry
        if entry.team_id:
            self._teams.setdefault(entry.team_id, set()).add(entry.id)
        self._rerank(entry)

    def update(self, entry: Entry, fresh: Entry) -> None:
        """Take over what the database says about a credential that may be in use now."""
        moved = (entry.kind, entry.team_id) != (fresh.kind, fresh.team_id)
        if moved:
            self._unrank(entry)
            self._forget_team(entry)
        entry.adopt(fresh)
        if moved and entry.team_id:
            self._teams.setdefault(entry.team_id, set()).add(entry.id)
        self._rerank(entry)

    def remove(self, credential_id: int) -> None:
        entry = self._entries.pop(credential_id, None)
        if entry is not None:
            self._unrank(entry)
            self._forget_team(entry)

    def _unrank(self, entry: Entry) -> None:
        self._usable[entry.kind].discard(entry.id)
        for (kind, _), ranking in self._rankings.items():
            if kind == entry.kind:
                ranking.put(entry.id, None)

    def _forget_team(self, entry: Entry) -> None:
        if entry.team_id in self._teams:
            self._teams[entry.team_id].discard(entry.id)

    async def lease(self, want: Want) -> Lease:
        now = self._now()
        self._wake(now)
        for lane in want.lanes:
            entry = self._choose(lane, want, now)
            if entry is not None:
                return self._reserve(entry, lane, want, now)
        raise explain(want, self._entries.values(), now, self._policy())

    def _choose(self, lane: Lane, want: Want, now: float) -> Entry | None:
        def acceptable(member: int) -> bool:
            if member in want.exclude or (want.only is not None and member != want.only):
                return False
            skipped = self._entries[member].skip_models
            return not skipped or skipped.get(want.model, 0.0) <= now

        chosen = self._ranking(lane, now).best(self._random, acceptable)
        return None if chosen is None else self._entries[chosen]

    def _ranking(self, lane: Lane, now: float) -> Ranking:
        key = (lane.kind, lane.bucket)
        ranking = self._rankings.get(key)
        if ranking is None:
            ranking = self._rankings[key] = Ranking()
            cap = self._policy().cap(lane.kind)
            for entry in self._entries.values():
                if entry.kind == lane.kind:
                    ranking.put(entry.id, entry.rank(lane.bucket, now, cap))
        return ranking

    def _reserve(self, entry: Entry, lane: Lane, want: Want, now: float) -> Lease:
        secret = self._unseal(entry.sealed)
        quota = entry.quota(lane.bucket)
        reserved = 0
        if quota.remaining is not None:
            reserved = min(lane.cost, quota.remaining)
            quota.remaining -= reserved
        entry.in_flight += 1
        lease = Lease(
            id=next(self._ids),
            credential_id=entry.id,
            lane=lane,
            model=want.model,
            secret=secret,
            user_id=entry.user_id,
            team_id=entry.team_id,
            hint=entry.hint,
        )
        self._open[lease.id] = _Hold(entry, reserved)
        self._rerank_after_use(entry, lane.bucket, now)
        return lease

    async def settle(self, lease: Lease, outcome: Outcome) -> None:
        hold = self._open[lease.id]
        if hold.settled:
            raise ValueError(f"lease {lease.id} was settled before")
        hold.settled = True
        self._end_reservation(hold, lease.lane, refund=outcome.verdict not in _CONSUMING)
        entry, now = hold.entry, self._now()
        if outcome.verdict is not Verdict.NEUTRAL:
            entry.last_used = now
            entry.pending_uses += 1
        for peer in self._peers(entry) if outcome.verdict in _TEAM_WIDE else (entry,):
            apply_outcome(peer, lease.lane.bucket, lease.model, outcome, now, self._policy())
            if outcome.verdict in _CONSUMING:
                self._rerank_after_use(peer, lease.lane.bucket, now)
            else:
                self._rerank(peer)
            if peer.has_changes:
                self._changed(peer)

    def _peers(self, entry: Entry) -> tuple[Entry, ...]:
        """The credentials that share an upstream bucket with ``entry``, itself included."""
        if not entry.team_id:
            return (entry,)
        return tuple(self._entries[peer] for peer in self._teams[entry.team_id])

    def _end_reservation(self, hold: _Hold, lane: Lane, *, refund: bool) -> None:
        if not hold.reserved:
            return
        quota = hold.entry.quota(lane.bucket)
        if refund and quota.remaining is not None:
            quota.remaining += hold.reserved
        else:
            quota.dirty = True
            hold.entry.pending_columns.add("quotas")

    async def release(self, lease: Lease) -> None:
        hold = self._open.pop(lease.id)
        if not hold.settled:
            self._end_reservation(hold, lease.lane, refund=True)
        hold.entry.in_flight -= 1
        self._rerank_after_use(hold.entry, lease.lane.bucket, self._now())

    async def learn(self, lease: Lease, *, user_id: str) -> None:
        entry = self._open[lease.id].entry
        if entry.user_id != user_id:
            entry.user_id = user_id
            entry.pending_columns.add("user_id")
            self._changed(entry)

    def serves(self, lanes: tuple[Lane, ...]) -> bool:
        return any(self._usable[lane.kind] for lane in lanes)

    def usable_now(self, lanes: tuple[Lane, ...]) -> bool:
        now = self._now()
        self._wake(now)
        return any(len(self._ranking(lane, now)) for lane in lanes)

    def _rerank_after_use(self, entry: Entry, bucket: str, now: float) -> None:
        """Reaching or leaving the concurrency cap touches every bucket, other uses only one."""
        cap = self._policy().cap(entry.kind)
        if entry.in_flight >= cap - 1:
            self._rerank(entry)
            return
        ranking = self._rankings.get((entry.kind, bucket))
        if ranking is not None:
            ranking.put(entry.id, entry.rank(bucket, now, cap))

    def _rerank(self, entry: Entry) -> None:
        if self._entries.get(entry.id) is not entry:
            return
        now = self._now()
        if entry.active:
            self._usable[entry.kind].add(entry.id)
        else:
            self._usable[entry.kind].discard(entry.id)
        cap = self._policy().cap(entry.kind)
        for (kind, bucket), ranking in self._rankings.items():
            if kind != entry.kind:
                continue
            ranking.put(entry.id, entry.rank(bucket, now, cap))
        self._schedule_wakeup(entry, now)

    def _schedule_wakeup(self, entry: Entry, now: float) -> None:
        soonest = entry.next_wakeup(now)
        if soonest is not None and not now < entry.wakes_at <= soonest:
            entry.wakes_at = soonest
            heapq.heappush(self._wakeups, (soonest, entry.id))

    def _wake(self, now: float) -> None:
        """Bring back, soonest first, what has finished cooling."""
        while self._wakeups and self._wakeups[0][0] <= now:
            _, credential_id = heapq.heappop(self._wakeups)
            entry = self._entries.get(credential_id)
            if entry is not None:
                entry.wake(now)
                self._rerank(entry)


_TEAM_WIDE = frozenset({Verdict.COOL_TEAM, Verdict.COOL_BUCKET})
_CONSUMING = frozenset({Verdict.SUCCESS, Verdict.SPENT})
