"""Choosing a credential, in memory: reserve, settle, release.

Every method is a coroutine so that a shared store can stand behind the same interface;
here none of them awaits anything, so each is atomic within the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from random import Random

from pool.crypto import WrongKey
from pool.entries import Entry
from pool.leases import Lane, Lease, Want
from pool.outcomes import NEUTRAL, Outcome, Verdict
from pool.penalties import apply_outcome
from pool.policy import PoolPolicy
from pool.refusals import Refusals
from pool.standings import Standings

logger = logging.getLogger(__name__)

WAKE_AT_ONCE = 32
"""How many cooled credentials one request brings back, lest it wait for thousands."""


@dataclass(slots=True)
class _Hold:
    """An open lease: what was taken from the bucket, and whether its end was told."""

    entry: Entry
    sealed: bytes
    reserved: int
    settled: bool = False


class MemoryPool:
    """The pool of one process.

    ``now`` gives Unix time in seconds, ``unseal`` opens a stored secret (only the winner's
    is ever opened; raises WrongKey), ``changed`` is told of each entry that has something
    to write. ``policy`` gives the same object for as long as nothing in it has changed.
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
        self._read_policy = policy
        self._policy = policy()
        self._now = now
        self._random = random
        self._unseal = unseal
        self._changed = changed
        self._entries: dict[int, Entry] = {}
        self._teams: dict[str, set[int]] = {}
        self._standings = Standings()
        self._refusals = Refusals(self._standings.members)
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
        """Add a credential; its id must be new to the pool."""
        self._entries[entry.id] = entry
        self._add(entry, self._now())

    def update(self, entry: Entry, fresh: Entry) -> None:
        """Take over what the database says about a credential that may be in use now."""
        now = self._now()
        self._withdraw(entry)
        entry.adopt(fresh, now)
        self._add(entry, now)

    def remove(self, credential_id: int) -> None:
        """Forget a credential. Its open leases may still be settled and released."""
        entry = self._entries.pop(credential_id, None)
        if entry is not None:
            self._withdraw(entry)

    def _add(self, entry: Entry, now: float) -> None:
        if entry.team_id:
            self._teams.setdefault(entry.team_id, set()).add(entry.id)
        entry.wake(now)
        for model in entry.skip_models:
            self._standings.restrict(entry.kind, model)
        self._standings.add(entry, now, self._cap(entry.kind))

    def _withdraw(self, entry: Entry) -> None:
        self._standings.remove(entry)
        team = self._teams.get(entry.team_id)
        if team is not None:
            team.discard(entry.id)
            if not team:
                del self._teams[entry.team_id]

    def _cap(self, kind: str) -> int:
        return self._policy.cap(kind)

    def _begin(self) -> float:
        """The time, once what it and the configuration have changed is accounted for."""
        policy = self._read_policy()
        if policy is not self._policy:
            self._policy = policy
            self._standings.forget_rankings()
        now = self._now()
        self._wake_some(now)
        return now

    def _wake_some(self, now: float) -> bool:
        """Bring back, soonest first, some of what has finished cooling; False when none has."""
        waking = self._standings.take_waking(now, WAKE_AT_ONCE)
        for entry in waking:
            entry.wake(now)
            self._standings.place(entry, now, self._cap(entry.kind))
        return bool(waking)

    async def lease(self, want: Want) -> Lease:
        now = self._begin()
        while True:
            for lane in want.lanes:
                lease = self._lease_from(lane, want, now)
                if lease is not None:
                    return lease
            if not self._wake_some(now):
                raise self._refusals.explain(want, now)

    def _lease_from(self, lane: Lane, want: Want, now: float) -> Lease | None:
        while (entry := self._choose(lane, want, now)) is not None:
            try:
                secret = self._unseal(entry.sealed)
            except WrongKey:
                self._set_aside(entry, now)
            else:
                return self._reserve(entry, secret, lane, want, now)
        return None

    def _choose(self, lane: Lane, want: Want, now: float) -> Entry | None:
        kind = lane.kind
        ranking = self._standings.ranking(kind, lane.bucket, want.model, now, self._cap(kind))
        if want.only is None:
            chosen = ranking.best(self._random, want.exclude)
            return None if chosen is None else self._entries[chosen]
        usable = want.only in ranking and want.only not in want.exclude
        return self._entries[want.only] if usable else None

    def _set_aside(self, entry: Entry, now: float) -> None:
        """Only in memory: the stored row may be fine for a process with the right key."""
        logger.error("credential %d cannot be opened with the secret keys in use", entry.id)
        entry.active = False
        self._standings.place(entry, now, self._cap(entry.kind))

    def _reserve(self, entry: Entry, secret: str, lane: Lane, want: Want, now: float) -> Lease:
        quota = entry.look(lane.bucket)
        measured = quota is not None and quota.remaining is not None
        reserved = entry.quota(lane.bucket).reserve(lane.cost) if measured else 0
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
        self._open[lease.id] = _Hold(entry, entry.sealed, reserved)
        self._standings.place_after_use(entry, lane.bucket, now, self._cap(entry.kind))
        return lease

    async def settle(self, lease: Lease, outcome: Outcome) -> None:
        hold = self._held(lease)
        if hold.settled:
            raise ValueError(f"lease {lease.id} was settled before")
        hold.settled = True
        entry, now = hold.entry, self._now()
        consumed = outcome.verdict in _CONSUMING
        if consumed:
            entry.pending_uses += 1
            entry.last_used = now
        elif hold.sealed != entry.sealed:
            outcome = NEUTRAL  # the secret was replaced meanwhile; this is about the old one
        self._end_reservation(hold, lease.lane.bucket, refund=not consumed)
        for peer in self._peers(entry) if outcome.verdict in _TEAM_WIDE else (entry,):
            self._apply(peer, lease, outcome, now)

    def _apply(self, entry: Entry, lease: Lease, outcome: Outcome, now: float) -> None:
        bucket = lease.lane.bucket
        apply_outcome(entry, bucket, lease.model, outcome, now, self._policy)
        if outcome.verdict is Verdict.SKIP_MODEL:
            self._standings.restrict(entry.kind, lease.model)
        if outcome.verdict in _CONSUMING and entry.usable_from(bucket) <= now:
            self._standings.place_after_use(entry, bucket, now, self._cap(entry.kind))
        else:
            self._standings.place(entry, now, self._cap(entry.kind))
        if entry.has_changes:
            self._changed(entry)

    def _peers(self, entry: Entry) -> Iterable[Entry]:
        """The credentials that share an upstream bucket with ``entry``, itself included."""
        team = self._teams.get(entry.team_id, ()) if entry.team_id else ()
        return [entry, *(self._entries[peer] for peer in team if peer != entry.id)]

    def _end_reservation(self, hold: _Hold, bucket: str, *, refund: bool) -> None:
        if hold.reserved:
            quota = hold.entry.quota(bucket)
            quota.end_reservation(hold.reserved, refund=refund)
            if not refund:
                quota.dirty = True
                hold.entry.pending_columns.add("quotas")

    def _held(self, lease: Lease) -> _Hold:
        try:
            return self._open[lease.id]
        except KeyError:
            raise ValueError(f"lease {lease.id} is not open") from None

    async def release(self, lease: Lease) -> None:
        hold = self._held(lease)
        del self._open[lease.id]
        if not hold.settled:
            self._end_reservation(hold, lease.lane.bucket, refund=True)
        entry = hold.entry
        entry.in_flight -= 1
        now = self._now()
        self._standings.place_after_use(entry, lease.lane.bucket, now, self._cap(entry.kind))

    async def learn(self, lease: Lease, *, user_id: str) -> None:
        hold = self._held(lease)
        entry = hold.entry
        storable = len(user_id) <= MAX_USER_ID and user_id.isprintable()
        if entry.user_id != user_id and storable:
            entry.user_id = user_id
            entry.pending_columns.add("user_id")
            self._changed(entry)

    def serves(self, lanes: tuple[Lane, ...]) -> bool:
        return any(self._standings.has_active(lane.kind) for lane in lanes)

    def usable_now(self, lanes: tuple[Lane, ...]) -> bool:
        now = self._begin()
        while True:
            for lane in lanes:
                cap = self._cap(lane.kind)
                if len(self._standings.ranking(lane.kind, lane.bucket, "", now, cap)):
                    return True
            if not self._wake_some(now):
                return False


MAX_USER_ID = 64
"""Characters of the column that keeps it; a longer one is not an upstream id."""
_TEAM_WIDE = frozenset({Verdict.COOL_TEAM, Verdict.COOL_BUCKET})
_CONSUMING = frozenset({Verdict.SUCCESS, Verdict.SPENT})
