"""What an outcome does to a credential (design "The pool"; upstream-web section 12)."""

from __future__ import annotations

from collections.abc import Callable

from pool.entries import Entry, Quota
from pool.outcomes import Outcome, Verdict
from pool.policy import PoolPolicy


def apply_outcome(
    entry: Entry, bucket: str, model: str, outcome: Outcome, now: float, policy: PoolPolicy
) -> None:
    """Change ``entry`` as ``outcome`` of a use of ``bucket`` for ``model`` demands."""
    verdict = outcome.verdict
    if verdict is Verdict.NEUTRAL:
        return
    if verdict in {Verdict.SUCCESS, Verdict.SPENT}:
        _consumed(entry, bucket, now, policy)
        if verdict is Verdict.SUCCESS and entry.failures:
            entry.failures = 0
            entry.pending_columns |= {"fail_count"}
        return
    if verdict is Verdict.SKIP_MODEL:
        entry.skip_models[model] = now + policy.skip_model
        return
    entry.last_failed = now
    entry.last_reason = outcome.reason[:200]
    entry.pending_columns |= {"last_failed_at", "last_fail_reason"}
    _PENALTIES[verdict](entry, bucket, outcome, now, policy)


def forgive(entry: Entry, reason: str) -> None:
    """Take back the penalty for ``reason``, an error that was not the credential's own."""
    if not entry.active and not entry.disabled and entry.invalid_reason == reason:
        entry.active, entry.invalid_reason = True, ""
        entry.pending_columns |= {"status"}
    if entry.last_reason == reason:
        entry.resting_until, entry.failures = 0.0, 0
        entry.pending_columns |= {"resting_until", "fail_count"}


def _consumed(entry: Entry, bucket: str, now: float, policy: PoolPolicy) -> None:
    """A bucket whose last unit this was rests; one that cools already keeps upstream's time."""
    quota = entry.quotas.get(bucket)
    if quota is not None and quota.is_spent() and not quota.cooling_until:
        _cool(entry, quota, now + policy.bucket_cooldown)


def _cool(entry: Entry, quota: Quota, until: float) -> None:
    """Never shortens a cool-down that is already longer."""
    quota.cooling_until = max(quota.cooling_until, until)
    quota.dirty = quota.cooling_dirty = True
    entry.pending_columns |= {"quotas"}


def _rest(entry: Entry, until: float) -> None:
    entry.resting_until = max(entry.resting_until, until)
    entry.pending_columns |= {"resting_until"}


def _clamped(outcome: Outcome, otherwise: float, policy: PoolPolicy) -> float:
    """Seconds to cool: upstream's hint within the configured maximum, else ours."""
    hint = outcome.retry_after if outcome.retry_after is not None else otherwise
    return min(max(hint, 1.0), policy.max_cooldown)


def _retire(entry: Entry, bucket: str, outcome: Outcome, now: float, policy: PoolPolicy) -> None:
    entry.active = False
    entry.failures += 1
    entry.invalid_reason = outcome.reason[:200]
    entry.pending_columns |= {"status", "fail_count"}


def _cool_bucket(
    entry: Entry, bucket: str, outcome: Outcome, now: float, policy: PoolPolicy
) -> None:
    quota = entry.quota(bucket)
    quota.remaining = 0
    _cool(entry, quota, now + _clamped(outcome, policy.bucket_cooldown, policy))


def _cool_all(entry: Entry, bucket: str, outcome: Outcome, now: float, policy: PoolPolicy) -> None:
    _rest(entry, now + _clamped(outcome, policy.balance_cooldown, policy))


def _back_off(entry: Entry, bucket: str, outcome: Outcome, now: float, policy: PoolPolicy) -> None:
    entry.failures += 1
    entry.pending_columns |= {"fail_count"}
    doubled = min(policy.back_off * 2 ** min(entry.failures - 1, 20), policy.back_off_max)
    if entry.failures >= policy.fail_threshold:
        doubled = policy.back_off_max
    hint = min(outcome.retry_after or 0.0, policy.max_cooldown)
    _rest(entry, now + max(doubled, hint))


def _pause(entry: Entry, bucket: str, outcome: Outcome, now: float, policy: PoolPolicy) -> None:
    _rest(entry, now + policy.pause)


_Penalty = Callable[[Entry, str, Outcome, float, PoolPolicy], None]
_PENALTIES: dict[Verdict, _Penalty] = {
    Verdict.RETIRE: _retire,
    Verdict.COOL_BUCKET: _cool_bucket,
    Verdict.COOL_CREDENTIAL: _cool_all,
    Verdict.COOL_TEAM: _cool_all,
    Verdict.BACK_OFF: _back_off,
    Verdict.PAUSE: _pause,
}
