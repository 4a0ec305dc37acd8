"""Saying why nothing can serve a request, so that the operator knows what to do."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from pool.entries import Entry
from pool.errors import NoCredential
from pool.leases import Lane, Want
from pool.policy import PoolPolicy

TIERS = {"sso": "basic", "ssoSuper": "super", "api": "api"}


def explain(want: Want, entries: Iterable[Entry], now: float, policy: PoolPolicy) -> NoCredential:
    """The refusal with its cause: how many are cooling (until when), busy or invalid."""
    lanes = {lane.kind: lane for lane in want.lanes}
    counts = {"invalid": 0, "busy": 0, "not entitled": 0, "tried": 0}
    cooling: list[float] = []
    for entry in entries:
        lane = lanes.get(entry.kind)
        if lane is None or (want.only is not None and entry.id != want.only):
            continue
        reason = _reason(entry, lane, want, now, policy)
        if isinstance(reason, float):
            cooling.append(reason)
        else:
            counts[reason] += 1
    tiers = " or ".join(TIERS.get(kind, kind) for kind in lanes) or "any"
    parts = _cooling_part(cooling) + [f"{n} {what}" for what, n in counts.items() if n]
    detail = ", ".join(parts) if parts else "the pool holds none"
    retry_after = max(1.0, min(cooling) - now) if cooling else (1.0 if counts["busy"] else None)
    return NoCredential(f"No active credential of tier {tiers}: {detail}.", retry_after)


def _reason(entry: Entry, lane: Lane, want: Want, now: float, policy: PoolPolicy) -> str | float:
    if entry.id in want.exclude:
        return "tried"
    if not entry.active:
        return "invalid"
    if entry.skip_models.get(want.model, 0.0) > now:
        return "not entitled"
    until = entry.usable_from(lane.bucket)
    if until > now:
        return until
    return "busy"


def _cooling_part(cooling: list[float]) -> list[str]:
    if not cooling:
        return []
    soonest = datetime.fromtimestamp(min(cooling), tz=UTC)
    return [f"{len(cooling)} cooling until {soonest:%H:%M:%S} UTC"]
