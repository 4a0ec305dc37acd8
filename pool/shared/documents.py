"""A credential's state as workers share it; the fields are described in pool.lua."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pool.entries import Entry, Quota

Document = dict[str, Any]


def seed_of(entry: Entry) -> Document:
    """What this worker knows, as if no lease were open."""
    return {
        "a": int(entry.active),
        "w": entry.invalid_reason,
        "r": entry.resting_until,
        "k": entry.failures,
        "b": {bucket: box_of(quota) for bucket, quota in entry.quotas.items()},
        "s": dict(entry.skip_models),
    }


def box_of(quota: Quota | None) -> dict[str, float]:
    box: dict[str, float] = {}
    if quota is None:
        return box
    if quota.remaining is not None:
        box["q"] = quota.remaining + quota.reserved
    if quota.cooling_until:
        box["c"] = quota.cooling_until
    return box


def adopt(entry: Entry, document: Document, worker: str, now: float) -> None:
    """Take over the shared state; ``worker`` is this one, whose leases are counted here.

    The operator's changes are not taken from here but from the database, with all that
    belongs to them.
    """
    entry.elsewhere = sum(n for name, n in document["m"].items() if name != worker)
    entry.active, entry.invalid_reason = document["a"] == 1, document["w"]
    entry.resting_until, entry.failures = document["r"], int(document["k"])
    entry.skip_models = dict(document["s"])
    if entry.version:  # else there may be more in the database than whoever made it had read
        for bucket in entry.quotas.keys() - document["b"].keys():
            del entry.quotas[bucket]
    for bucket, box in document["b"].items():
        quota = entry.quota(bucket)
        remaining = box.get("q")
        quota.remaining = None if remaining is None else int(remaining)
        quota.cooling_until = box.get("c", 0.0)
        quota.reserved = int(box.get("h", 0))
    entry.version = document["v"]
    entry.wake(now)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an outcome may change, of one credential, for one bucket and one model."""

    active: bool
    reason: str
    resting_until: float
    failures: int
    remaining: int | None
    cooling_until: float
    skipped_until: float

    @classmethod
    def of(cls, entry: Entry, bucket: str, model: str) -> Facts:
        quota = entry.quotas.get(bucket)
        return cls(
            entry.active,
            entry.invalid_reason,
            entry.resting_until,
            entry.failures,
            quota.remaining if quota else None,
            quota.cooling_until if quota else 0.0,
            entry.skip_models.get(model, 0.0),
        )

    def changes(self, after: Facts, bucket: str, model: str) -> Document:
        """The patch that makes another worker's picture of it the same."""
        patch: Document = {}
        if (after.active, after.reason) != (self.active, self.reason):
            patch |= {"a": int(after.active), "w": after.reason}
        if after.resting_until != self.resting_until:
            patch["r"] = after.resting_until
        if after.failures > self.failures:
            patch["f"] = after.failures - self.failures
        elif after.failures < self.failures:
            patch["k"] = after.failures
        if after.skipped_until != self.skipped_until:
            patch["s"] = {model: after.skipped_until}
        box: dict[str, float] = {}
        if after.remaining != self.remaining and after.remaining is not None:
            box["q"] = after.remaining
        if after.cooling_until != self.cooling_until:
            box["c"] = after.cooling_until
        if box:
            patch["b"] = {bucket: box}
        return patch
