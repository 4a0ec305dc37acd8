"""The in-memory picture of one credential, as selection needs it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from pool.leases import Reading

ANY_BUCKET = "*"
"""Quota imported from old data, where one number stood for every web bucket."""
HEAVY = "heavy"


@dataclass(slots=True)
class Quota:
    """``remaining`` None: never measured. ``cooling_until`` is a Unix time, 0 for none.

    ``reserved`` is what open leases hold; it has been taken off ``remaining``. ``dirty``
    and ``cooling_dirty`` say which of the two numbers is still to be written, ``reading``
    is what upstream said and has not been written either.
    """

    remaining: int | None = None
    cooling_until: float = 0.0
    reserved: int = 0
    dirty: bool = False
    cooling_dirty: bool = False
    reading: Reading | None = None

    def reserve(self, cost: int) -> int:
        """Take up to ``cost`` and give how much that was; an unmeasured bucket gives 0."""
        if self.remaining is None:
            return 0
        taken = min(cost, self.remaining)
        self.remaining -= taken
        self.reserved += taken
        return taken

    def end_reservation(self, taken: int, *, refund: bool) -> None:
        self.reserved = max(0, self.reserved - taken)
        if refund and self.remaining is not None:
            self.remaining += taken

    def to_store(self) -> int | None:
        """What would be left if every open lease were given back; a bucket that cools has none."""
        if self.remaining is None or self.cooling_until:
            return self.remaining
        return self.remaining + self.reserved

    def is_spent(self) -> bool:
        """Whether nothing is left and no open lease can give anything back."""
        return self.remaining is not None and self.remaining + self.reserved <= 0

    def adopt(self, stored: Quota, now: float) -> None:
        """Take the stored numbers, except one that is newer here and not yet written.

        Stored numbers know nothing of open leases, so what those hold is taken off.
        """
        if not self.dirty:
            self.remaining = stored.remaining
            if stored.remaining is not None:
                self.remaining = max(0, stored.remaining - self.reserved)
        if not self.dirty and not self.cooling_dirty:
            self.cooling_until = stored.cooling_until
        elif stored.cooling_until > now:
            self.cooling_until = max(self.cooling_until, stored.cooling_until)

    def obey(self, stored: Quota) -> None:
        """Take the stored numbers whatever is known here: the operator has set them."""
        self.remaining, self.cooling_until = stored.remaining, stored.cooling_until
        if self.remaining is not None:
            self.remaining = max(0, self.remaining - self.reserved)
        self.dirty = self.cooling_dirty = False
        self.reading = None

    def measure(self, reading: Reading, now: float) -> None:
        """Take what upstream says, less what open leases hold; a bucket with some left is free.

        An unknown number leaves what was counted here.
        """
        if reading.remaining is None:
            return
        self.remaining = max(0, reading.remaining - self.reserved)
        self.cooling_until = 0.0
        if reading.remaining <= 0 and reading.resets_at is not None and reading.resets_at > now:
            self.cooling_until = reading.resets_at
        self.dirty = self.cooling_dirty = True
        self.reading = reading


@dataclass(slots=True)
class Entry:
    """One credential; ``pending_*`` are changes not yet written to the database.

    ``resting_until`` (Unix time) covers the whole credential, ``skip_models`` maps a
    model id to the time until which this credential is not asked for it. ``active`` is
    false for what was retired and for what the operator ``disabled``. ``stamp`` tells two
    readings of the stored row apart; ``revision`` counts the operator's own changes.
    ``elsewhere`` are open leases of other workers and ``version`` the state last taken from
    what they share. ``doubtful`` ones failed in an upstream incident and are tried last.
    """

    id: int
    kind: str
    active: bool
    sealed: bytes = field(repr=False)
    hint: str
    user_id: str = ""
    team_id: str = ""
    quotas: dict[str, Quota] = field(default_factory=dict)
    in_flight: int = 0
    failures: int = 0
    resting_until: float = 0.0
    wakes_at: float = 0.0
    skip_models: dict[str, float] = field(default_factory=dict)
    pending_uses: int = 0
    pending_columns: Set[str] = frozenset()
    last_used: float = 0.0
    last_failed: float = 0.0
    last_reason: str = ""
    invalid_reason: str = ""
    disabled: bool = False
    stamp: object = None
    revision: int = 0
    elsewhere: int = 0
    version: int = 0
    doubtful: bool = False

    @property
    def has_changes(self) -> bool:
        return bool(self.pending_uses or self.pending_columns)

    def look(self, bucket: str) -> Quota | None:
        """The number that stands for ``bucket``: its own, else the any-bucket one."""
        found = self.quotas.get(bucket)
        if found is None and bucket != HEAVY and self.kind != "api":
            return self.quotas.get(ANY_BUCKET)
        return found

    def quota(self, bucket: str) -> Quota:
        """The bucket's own quota, made from the any-bucket number on first use."""
        found = self.quotas.get(bucket)
        if found is None:
            seed = self.look(bucket) or Quota()
            found = self.quotas[bucket] = Quota(seed.remaining, seed.cooling_until)
        return found

    def rank(self, bucket: str, model: str, now: float, cap: int) -> int | None:
        """Higher is better; None means not usable now. ``model`` "" stands for any.

        A measured bucket ranks by what is left. An unmeasured one comes after every
        measured one that has something left, except in the heavy bucket, where it
        comes first (http-contract section 8, selection).
        """
        if not self.active or self.resting_until > now or self.in_flight + self.elsewhere >= cap:
            return None
        if self.skip_models and self.skip_models.get(model, 0.0) > now:
            return None
        quota = self.look(bucket)
        if quota is not None:
            if quota.cooling_until > now:
                return None
            if quota.remaining is not None:
                return self._rank_of(quota.remaining) if quota.remaining > 0 else None
        return self._rank_of(1 << 30 if bucket == HEAVY else 0)

    def _rank_of(self, remaining: int) -> int:
        return -1 if self.doubtful else remaining

    def adopt(self, fresh: Entry, now: float) -> None:
        """Take the stored facts of ``fresh``, except where a newer one is still unwritten.

        Counts of running work stay as they are. What the operator has changed since is
        taken in any case.
        """
        if fresh.revision > self.revision:
            self._give_way(fresh)
        pending = self.pending_columns
        self.adopt_identity(fresh)
        if "status" not in pending:
            self.active, self.invalid_reason = fresh.active, fresh.invalid_reason
        if "fail_count" not in pending:
            self.failures = fresh.failures
        if "resting_until" not in pending:
            self.resting_until = fresh.resting_until
        self._adopt_quotas(fresh.quotas, now)

    def _give_way(self, fresh: Entry) -> None:
        """Forget what was learnt here before the operator's change."""
        self.revision = fresh.revision
        self.pending_columns &= {"user_id", "team_id"}
        self.skip_models = {}
        self.doubtful = False
        for bucket, quota in self.quotas.items():
            quota.obey(fresh.quotas.get(bucket) or Quota())

    def adopt_identity(self, fresh: Entry) -> None:
        """Take who the credential is, not how it fares: that is known better from elsewhere."""
        self.kind, self.sealed, self.hint = fresh.kind, fresh.sealed, fresh.hint
        self.stamp, self.disabled = fresh.stamp, fresh.disabled
        if "team_id" not in self.pending_columns:
            self.team_id = fresh.team_id
        if "user_id" not in self.pending_columns:
            self.user_id = fresh.user_id

    def _adopt_quotas(self, fresh: dict[str, Quota], now: float) -> None:
        """Buckets that were forgotten in the database go, unless something of them is open."""
        for bucket, stored in fresh.items():
            known = self.quotas.setdefault(bucket, stored)
            if known is not stored:
                known.adopt(stored, now)
        for bucket in self.quotas.keys() - fresh.keys():
            quota = self.quotas[bucket]
            if not (quota.reserved or quota.dirty or quota.cooling_dirty):
                del self.quotas[bucket]

    def next_wakeup(self, now: float) -> float | None:
        """The soonest Unix time at which something of this credential stops waiting."""
        times = [quota.cooling_until for quota in self.quotas.values()]
        times += self.skip_models.values()
        times.append(self.resting_until)
        return min((time for time in times if time > now), default=None)

    def usable_from(self, bucket: str) -> float:
        """The Unix time from which the bucket may be used; 0 when it is not cooling."""
        quota = self.quotas.get(bucket) or self.look(bucket)
        if quota is None or quota.cooling_until < self.resting_until:
            return self.resting_until
        return quota.cooling_until

    def is_cooling(self, now: float) -> bool:
        return self.resting_until > now or any(
            quota.cooling_until > now for quota in self.quotas.values()
        )

    def wake(self, now: float) -> None:
        """End what has waited long enough: what is left in a cooled bucket is then unknown.

        Nothing of this is written: a cool-down in the past reads the same after a restart.
        """
        for quota in self.quotas.values():
            if quota.cooling_until <= now and (quota.cooling_until or quota.is_spent()):
                quota.cooling_until = 0.0
                quota.remaining = None
        if self.skip_models:
            self.skip_models = {m: until for m, until in self.skip_models.items() if until > now}
        if self.resting_until <= now:
            self.resting_until = 0.0
