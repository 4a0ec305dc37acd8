"""Saying why nothing can serve a request, so that the operator knows what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pool.entries import Entry
from pool.errors import NoCredential
from pool.leases import Lane, Want

TIERS = {"sso": "basic", "ssoSuper": "super", "api": "api"}
ORDER = ("invalid", "disabled", "busy", "not entitled", "tried")
BIG = 1000
REMEMBER_FOR = 1e-4
"""Seconds, per credential looked at, for which the causes found in a big pool are believed."""

Members = Callable[[str], Mapping[int, Entry]]
"""The credentials of a kind, by id."""


@dataclass(slots=True)
class Causes:
    """``soonest`` is the Unix time at which the first of the ``cooling`` ones is back."""

    counts: Counter[str] = field(default_factory=Counter)
    cooling: int = 0
    soonest: float = 0.0

    def add(self, members: Iterable[Entry], lane: Lane, want: Want, now: float) -> None:
        """Count ``members``, none of which can serve ``lane`` of ``want``."""
        bucket, model, exclude = lane.bucket, want.model, want.exclude
        waits: list[float] = []
        for entry in members:
            if entry.id in exclude:
                self.counts["tried"] += 1
            elif not entry.active:
                self.counts["disabled" if entry.disabled else "invalid"] += 1
            elif entry.skip_models and entry.skip_models.get(model, 0.0) > now:
                self.counts["not entitled"] += 1
            elif (until := entry.usable_from(bucket)) > now:
                waits.append(until)
            else:
                self.counts["busy"] += 1
        if waits:
            self.cooling += len(waits)
            self.soonest = min(*waits, self.soonest or waits[0])

    @property
    def looked_at(self) -> int:
        return self.cooling + self.counts.total()

    def refusal(self, want: Want, now: float) -> NoCredential:
        tiers = " or ".join(TIERS.get(lane.kind, lane.kind) for lane in want.lanes) or "any"
        parts = (
            [f"{self.cooling} cooling until {_clock(self.soonest, now)}"] if self.cooling else []
        )
        parts += [f"{self.counts[cause]} {cause}" for cause in ORDER if self.counts[cause]]
        detail = ", ".join(parts) if parts else "the pool holds none"
        return NoCredential(f"No active credential of tier {tiers}: {detail}.", self._wait(now))

    def _wait(self, now: float) -> float | None:
        """Seconds; a busy credential may be free at any moment, a cooling one not before."""
        if self.counts["busy"]:
            return 0.0
        return max(0.0, self.soonest - now) if self.cooling else None


class Refusals:
    """Finds causes by looking at every credential, so it does that seldom in a big pool."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._remembered: dict[tuple[tuple[Lane, ...], str], tuple[float, Causes]] = {}

    def explain(self, want: Want, now: float) -> NoCredential:
        """The refusal with its cause: how many are cooling (until when), busy or invalid."""
        if want.exclude or want.only is not None:
            return self._survey(want, now).refusal(want, now)
        key = (want.lanes, want.model)
        found_at, causes = self._remembered.get(key, (now, None))
        if causes is None or not found_at <= now < found_at + causes.looked_at * REMEMBER_FOR:
            causes = self._survey(want, now)
            if causes.looked_at >= BIG:
                self._remembered[key] = (now, causes)
        return causes.refusal(want, now)

    def _survey(self, want: Want, now: float) -> Causes:
        causes = Causes()
        for lane in want.lanes:
            members = self._members(lane.kind)
            if want.only is None:
                causes.add(members.values(), lane, want, now)
            elif want.only in members:
                causes.add([members[want.only]], lane, want, now)
        return causes


def _clock(moment: float, now: float) -> str:
    """The time of day, with the date when that is not today's."""
    then, today = datetime.fromtimestamp(moment, tz=UTC), datetime.fromtimestamp(now, tz=UTC)
    date = "" if then.date() == today.date() else f"{then:%Y-%m-%d} "
    return f"{date}{then:%H:%M:%S} UTC"
