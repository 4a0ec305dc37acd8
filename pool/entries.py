"""The in-memory picture of one credential, as selection needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

ANY_BUCKET = "*"
"""Quota imported from old data, where one number stood for every web bucket."""
HEAVY = "heavy"


@dataclass(slots=True)
class Quota:
    """``remaining`` None: never measured. ``cooling_until`` is a Unix time, 0 for none."""

    remaining: int | None = None
    cooling_until: float = 0.0
    dirty: bool = False


@dataclass(slots=True)
class Entry:
    """One credential; ``pending_*`` are changes not yet written to the database.

    ``resting_until`` (Unix time) covers the whole credential, ``skip_models`` maps a
    model id to the time until which this credential is not asked for it.
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
    pending_columns: set[str] = field(default_factory=set)
    last_used: float = 0.0
    last_failed: float = 0.0
    last_reason: str = ""
    invalid_reason: str = ""

    @property
    def has_changes(self) -> bool:
        return bool(self.pending_uses or self.pending_columns)

    def quota(self, bucket: str) -> Quota:
        """The bucket's quota, made on first use from the any-bucket number if there is one."""
        found = self.quotas.get(bucket)
        if found is None:
            seed = self.quotas.get(ANY_BUCKET) if bucket != HEAVY and self.kind != "api" else None
            found = self.quotas[bucket] = Quota(seed.remaining if seed else None)
        return found

    def rank(self, bucket: str, now: float, cap: int) -> int | None:
        """Higher is better; None means not usable now.

        A measured bucket ranks by what is left. An unmeasured one comes after every
        measured one that has something left, except in the heavy bucket, where it
        comes first (http-contract section 8, selection).
        """
        if not self.active or self.in_flight >= cap or self.resting_until > now:
            return None
        quota = self.quota(bucket)
        if quota.cooling_until > now:
            return None
        if quota.remaining is None:
            return 1 << 30 if bucket == HEAVY else 0
        return quota.remaining if quota.remaining > 0 else None

    def adopt(self, fresh: Entry) -> None:
        """Take the stored facts of ``fresh``; counts of running work stay as they are."""
        self.kind, self.active, self.sealed = fresh.kind, fresh.active, fresh.sealed
        self.hint, self.user_id, self.team_id = fresh.hint, fresh.user_id, fresh.team_id
        self.failures, self.resting_until = fresh.failures, fresh.resting_until
        self.invalid_reason, self.quotas = fresh.invalid_reason, fresh.quotas

    def next_wakeup(self, now: float) -> float | None:
        """The soonest Unix time at which something of this credential stops cooling."""
        times = [quota.cooling_until for quota in self.quotas.values()]
        times.append(self.resting_until)
        return min((time for time in times if time > now), default=None)

    def usable_from(self, bucket: str) -> float:
        """The Unix time from which the bucket may be used; 0 when it is not cooling."""
        return max(self.resting_until, self.quota(bucket).cooling_until)

    def wake(self, now: float) -> None:
        """End what has cooled long enough: what is left in the bucket is then unknown."""
        for quota in self.quotas.values():
            if 0 < quota.cooling_until <= now:
                quota.cooling_until = 0.0
                quota.remaining = None
                quota.dirty = True
                self.pending_columns.add("quotas")
