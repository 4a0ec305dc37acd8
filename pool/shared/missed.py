"""What Redis has to be told after an absence, kept small while it lasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from pool.entries import Entry
from pool.selection import Hold
from pool.shared.courier import Operation
from pool.shared.documents import Document, box_of, seed_of

Find = Callable[[int], Entry | None]


def patch_of(entry: Entry, patch: Document, *, exact: bool = False) -> Operation:
    """``patch`` is contained in the seed, which is for a Redis that has no document yet."""
    return {
        "o": "patch",
        "i": entry.id,
        "n": entry.revision,
        "p": patch,
        "x": int(exact),
        "seed": seed_of(entry),
    }


def reset_of(entry: Entry) -> Operation:
    return {"o": "reset", "i": entry.id, "n": entry.revision, "seed": seed_of(entry)}


def adoption_of(hold: Hold, now: float) -> Operation:
    """Tells of an open lease that Redis may not know."""
    entry, lease = hold.entry, hold.lease
    return {
        "o": "adopt",
        "l": lease.id,
        "i": entry.id,
        "n": entry.revision,
        "b": lease.lane.bucket,
        "box": box_of(entry.look(lease.lane.bucket)),
        "cost": 0 if hold.settled else hold.reserved,
        "t": now,
        "seed": seed_of(entry),
    }


class Missed:
    """Two operations per lease that ended, one number per credential and bucket used, and one
    mark or patch per credential that changed. A missed measurement is not kept: the next one
    comes anyway."""

    def __init__(self) -> None:
        self._ended: list[Operation] = []
        self._owed: dict[int, dict[str, int]] = defaultdict(dict)
        self._changed: set[int] = set()
        self._amended: dict[int, Document] = {}

    def note(self, operation: Operation) -> None:
        """Keep what could not be told."""
        match operation["o"]:
            case "settle" | "finish":
                self._ended.append(operation)
            case "charge":
                for bucket, units in operation["used"].items():
                    self.owe(operation["i"], bucket, units)
            case "patch" if operation["x"]:
                self._amend(operation["i"], operation["p"])
            case "patch" | "reset":
                self._changed.add(operation["i"])

    def _amend(self, credential_id: int, patch: Document) -> None:
        if told := {field: value for field, value in patch.items() if field != "b"}:
            self._amended.setdefault(credential_id, {}).update(told)

    def owe(self, credential_id: int, bucket: str, units: int) -> None:
        """Remember that a lease of which Redis knows nothing has consumed ``units``."""
        if units:
            owed = self._owed[credential_id]
            owed[bucket] = owed.get(bucket, 0) + units

    def take_ended(self) -> list[Operation]:
        ended, self._ended = self._ended, []
        return ended

    def charge_ended(self) -> None:
        """Redis has forgotten the leases that ended: what they consumed is owed."""
        for operation in self.take_ended():
            if operation["o"] == "settle" and operation["u"]:
                self.owe(operation["i"], operation["b"], operation["cost"])

    def take_charges(self, find: Find, cool_until: float) -> list[Operation]:
        """``cool_until`` is for a bucket that turns out to be used up."""
        owed, self._owed = self._owed, defaultdict(dict)
        return [
            _charge(entry, used, cool_until)
            for credential_id, used in owed.items()
            if (entry := find(credential_id)) is not None
        ]

    def take_changed(self, find: Find) -> list[Operation]:
        amended, self._amended = self._amended, {}
        changed, self._changed = self._changed, set()
        operations = [
            patch_of(entry, patch, exact=True)
            for credential_id, patch in amended.items()
            if (entry := find(credential_id)) is not None
        ]
        found = (find(credential_id) for credential_id in sorted(changed))
        return [*operations, *(_whole_state(entry) for entry in found if entry is not None)]


def _charge(entry: Entry, used: dict[str, int], cool_until: float) -> Operation:
    return {
        "o": "charge",
        "i": entry.id,
        "n": entry.revision,
        "used": used,
        "c": cool_until,
        "seed": seed_of(entry),
    }


def _whole_state(entry: Entry) -> Operation:
    """Only what makes a credential less usable: the longer cool-down stays, and what others
    have learnt meanwhile is not undone."""
    patch: dict[str, Any] = {
        "r": entry.resting_until,
        "k": entry.failures,
        "s": dict(entry.skip_models),
        "b": {
            bucket: {"q": 0, "c": quota.cooling_until}
            if quota.is_spent()
            else {"c": quota.cooling_until}
            for bucket, quota in entry.quotas.items()
            if quota.cooling_until
        },
    }
    if not entry.active:
        patch |= {"a": 0, "w": entry.invalid_reason}
    return patch_of(entry, patch)
