"""Choosing a credential, in memory: reserve, settle, release.

Every method is a coroutine so that a shared store can stand behind the same interface;
here none of them awaits anything, so each is atomic within the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random

from pool.crypto import WrongKey
from pool.entries import Entry
from pool.incidents import BLAMING, IncidentWatch
from pool.leases import Lane, Lease, Reading, Subject, Want
from pool.outcomes import NEUTRAL, Outcome, Verdict
from pool.penalties import apply_outcome, forgive
from pool.policy import PoolPolicy
from pool.refusals import Refusals
from pool.standings import Standings

logger = logging.getLogger(__name__)

WAKE_AT_ONCE = 32
"""How many cooled credentials one request brings back, lest it wait for thousands."""


@dataclass(slots=True)
class Hold:
    """An open lease: what was taken from the bucket, and how its use ended.

    ``shared`` says that other workers know of it.
    """

    entry: Entry
    lease: Lease
    sealed: bytes
    reserved: int
    settled: bool = False
    consumed: bool = False
    shared: bool = False


def ignore(*_: object) -> None:
    """For those who do not want to be told."""


class MemoryPool:
    """The pool of one process.

    ``now`` gives Unix time in seconds, ``unseal`` opens a stored secret (only the winner's
    is ever opened; raises WrongKey). ``policy`` gives the same object for as long as nothing
    in it has changed. Told are: ``changed`` of each entry that has something to write,
    ``suspect`` of a credential that has failed often enough to be worth a check, ``freed``
    when a lease has ended.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], PoolPolicy],
        now: Callable[[], float],
        random: Random,
        unseal: Callable[[bytes], str],
        changed: Callable[[Entry], None] = ignore,
        suspect: Callable[[int], None] = ignore,
        freed: Callable[[], None] = ignore,
    ) -> None:
        self._read_policy = policy
        self._policy = policy()
        self._now = now
        self._random = random
        self._unseal = unseal
        self._changed = changed
        self.suspect = suspect
        self.freed = freed
        self.incidents = IncidentWatch()
        self._entries: dict[int, Entry] = {}
        self._teams: dict[str, set[int]] = {}
        self._standings = Standings()
        self._refusals = Refusals(self._standings.members)
        self._open: dict[int, Hold] = {}
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
        return self._take(want).lease

    def _take(self, want: Want, *, reserve: bool = True) -> Hold:
        """The best credential; without ``reserve`` nothing is taken off its bucket yet."""
        now = self._begin()
        while True:
            for lane in want.lanes:
                hold = self._take_from(lane, want, now, reserve)
                if hold is not None:
                    return hold
            if not self._wake_some(now):
                raise self._refusals.explain(want, now)

    def _take_from(self, lane: Lane, want: Want, now: float, reserve: bool) -> Hold | None:
        while (entry := self._choose(lane, want, now)) is not None:
            secret = self._opened(entry, now)
            if secret is not None:
                return self._hold(entry, secret, lane, want, now, reserve)
        return None

    def _choose(self, lane: Lane, want: Want, now: float) -> Entry | None:
        kind = lane.kind
        ranking = self._standings.ranking(kind, lane.bucket, want.model, now, self._cap(kind))
        if want.only is None:
            chosen = ranking.best(self._random, want.exclude)
            return None if chosen is None else self._entries[chosen]
        usable = want.only in ranking and want.only not in want.exclude
        return self._entries[want.only] if usable else None

    def _opened(self, entry: Entry, now: float) -> str | None:
        """The secret; one that cannot be opened is set aside, but only in memory: the stored
        row may be fine for a process with the right key."""
        try:
            return self._unseal(entry.sealed)
        except WrongKey:
            logger.error("credential %d cannot be opened with the secret keys in use", entry.id)
            entry.active = False
            self._place(entry, now)
            return None

    def _hold(
        self, entry: Entry, secret: str, lane: Lane, want: Want, now: float, reserve: bool
    ) -> Hold:
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
        entry.in_flight += 1
        reserved = self._reserve(entry, lane) if reserve else 0
        hold = self._open[lease.id] = Hold(entry, lease, entry.sealed, reserved)
        self._standings.place_after_use(entry, lane.bucket, now, self._cap(entry.kind))
        return hold

    def _reserve(self, entry: Entry, lane: Lane) -> int:
        quota = entry.look(lane.bucket)
        if quota is None or quota.remaining is None:
            return 0
        return entry.quota(lane.bucket).reserve(lane.cost)

    def _place(self, entry: Entry, now: float) -> None:
        self._standings.place(entry, now, self._cap(entry.kind))

    async def settle(self, lease: Lease, outcome: Outcome) -> None:
        hold = self._held(lease)
        if hold.settled:
            raise ValueError(f"lease {lease.id} was settled before")
        hold.settled = True
        entry, now = hold.entry, self._now()
        hold.consumed = outcome.verdict in _CONSUMING
        if hold.consumed:
            entry.pending_uses += 1
            entry.last_used = now
        elif hold.sealed != entry.sealed and not self._still_has(entry, lease.secret):
            outcome = NEUTRAL  # the secret was replaced meanwhile; this is about the old one
        self._end_reservation(hold, refund=not hold.consumed)
        self._judge(entry, lease.lane.bucket, lease.model, outcome, now)

    def _still_has(self, entry: Entry, secret: str) -> bool:
        """Whether the secret is the same, only sealed anew with another key."""
        try:
            return self._unseal(entry.sealed) == secret
        except WrongKey:
            return False

    async def judge(self, credential_id: int, bucket: str, outcome: Outcome) -> None:
        entry = self._entries.get(credential_id)
        if entry is not None:
            self._judge(entry, bucket, "", outcome, self._now())

    def _judge(self, entry: Entry, bucket: str, model: str, outcome: Outcome, now: float) -> None:
        outcome = self._weigh(entry, outcome, now)
        for peer in self._peers(entry) if outcome.verdict in _TEAM_WIDE else (entry,):
            self._apply(peer, bucket, model, outcome, now)
        worth_a_check = entry.failures == self._policy.fail_threshold
        if outcome.verdict is Verdict.BACK_OFF and worth_a_check:
            self.suspect(entry.id)

    def _weigh(self, entry: Entry, outcome: Outcome, now: float) -> Outcome:
        """In an upstream incident nobody is penalised; who failed is tried after the others."""
        if outcome.verdict is Verdict.SUCCESS and entry.doubtful:
            entry.doubtful = False
            self._place(entry, now)
        if outcome.verdict not in BLAMING:
            return outcome
        reason = outcome.reason[:MAX_REASON]
        for other in self.incidents.failed(reason, entry.id, now, self._policy):
            self._forgive(other, reason, now)
        if not self.incidents.is_open(reason):
            return outcome
        entry.doubtful = True
        return NEUTRAL

    def _forgive(self, credential_id: int, reason: str, now: float) -> None:
        entry = self._entries.get(credential_id)
        if entry is not None:
            entry.doubtful = True
            self._amend(entry, lambda: forgive(entry, reason), now)

    def _amend(self, entry: Entry, change: Callable[[], None], now: float) -> None:
        """Make a change that outranks what others may have learnt meanwhile."""
        change()
        self._place(entry, now)
        if entry.has_changes:
            self._changed(entry)

    def end_incidents(self) -> None:
        """Trust those again that failed in an incident which has passed."""
        now = self._now()
        for credential_id in self.incidents.take_recovered(now):
            entry = self._entries.get(credential_id)
            if entry is not None and entry.doubtful:
                entry.doubtful = False
                self._place(entry, now)

    def _apply(self, entry: Entry, bucket: str, model: str, outcome: Outcome, now: float) -> None:
        apply_outcome(entry, bucket, model, outcome, now, self._policy)
        if outcome.verdict is Verdict.SKIP_MODEL:
            self._standings.restrict(entry.kind, model)
        if outcome.verdict in _CONSUMING and entry.usable_from(bucket) <= now:
            self._standings.place_after_use(entry, bucket, now, self._cap(entry.kind))
        else:
            self._place(entry, now)
        if entry.has_changes:
            self._changed(entry)

    def _peers(self, entry: Entry) -> Iterable[Entry]:
        """The credentials that share an upstream bucket with ``entry``, itself included."""
        team = self._teams.get(entry.team_id, ()) if entry.team_id else ()
        return [entry, *(self._entries[peer] for peer in team if peer != entry.id)]

    def _end_reservation(self, hold: Hold, *, refund: bool) -> None:
        if hold.reserved:
            quota = hold.entry.quota(hold.lease.lane.bucket)
            quota.end_reservation(hold.reserved, refund=refund)
            if not refund:
                quota.dirty = True
                hold.entry.pending_columns |= {"quotas"}

    def _held(self, lease: Lease) -> Hold:
        try:
            return self._open[lease.id]
        except KeyError:
            raise ValueError(f"lease {lease.id} is not open") from None

    async def release(self, lease: Lease) -> None:
        self._release(self._held(lease))

    def _release(self, hold: Hold) -> None:
        lease, entry = hold.lease, hold.entry
        del self._open[lease.id]
        if not hold.settled:
            self._end_reservation(hold, refund=True)
        entry.in_flight -= 1
        now = self._now()
        self._standings.place_after_use(entry, lease.lane.bucket, now, self._cap(entry.kind))
        self.freed()

    async def learn(self, lease: Lease, *, user_id: str) -> None:
        entry = self._held(lease).entry
        if entry.user_id != user_id and _is_storable(user_id):
            entry.user_id = user_id
            entry.pending_columns |= {"user_id"}
            self._changed(entry)

    def subject(self, credential_id: int) -> Subject | None:
        entry = self._entries.get(credential_id)
        secret = None if entry is None else self._opened(entry, self._now())
        if entry is None or secret is None:
            return None
        return Subject(entry.id, entry.kind, secret, entry.user_id, entry.team_id)

    async def measure(self, credential_id: int, readings: Mapping[str, Reading]) -> None:
        entry = self._entries.get(credential_id)
        if entry is None:
            return
        now = self._now()
        for bucket, reading in readings.items():
            entry.quota(bucket).measure(reading, now)
        entry.pending_columns |= {"quotas"}
        self._place(entry, now)
        self._changed(entry)

    async def join_team(self, credential_id: int, team_id: str) -> None:
        entry = self._entries.get(credential_id)
        if entry is None or entry.team_id == team_id or not _is_storable(team_id):
            return
        self._withdraw(entry)
        entry.team_id = team_id
        entry.pending_columns |= {"team_id"}
        self._add(entry, self._now())
        self._changed(entry)

    def buckets_of(self, credential_id: int) -> tuple[str, ...]:
        """The buckets of which something is known."""
        entry = self._entries.get(credential_id)
        return () if entry is None else tuple(entry.quotas)

    def cooling(self) -> list[int]:
        now = self._now()
        return [
            entry.id for entry in self._entries.values() if entry.active and entry.is_cooling(now)
        ]

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


def _is_storable(upstream_id: str) -> bool:
    """Whether it fits the column that keeps it; a longer one is not an upstream id."""
    return len(upstream_id) <= MAX_ID and upstream_id.isprintable()


MAX_ID = 64
MAX_REASON = 200
_TEAM_WIDE = frozenset({Verdict.COOL_TEAM, Verdict.COOL_BUCKET})
_CONSUMING = frozenset({Verdict.SUCCESS, Verdict.SPENT})
