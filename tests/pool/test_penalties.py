"""What each verdict does to a credential, row by row (design "The pool")."""

from __future__ import annotations

from typing import Any

import pytest

from pool.entries import Entry, Quota
from pool.outcomes import NEUTRAL, SPENT, SUCCESS, Outcome, Verdict
from pool.penalties import apply_outcome
from pool.policy import PoolPolicy
from tests.pool.samples import make_entry

NOW = 1_000_000.0
POLICY = PoolPolicy(max_cooldown=7200.0, fail_threshold=1000)


def entry(**changes: Any) -> Entry:
    return make_entry(**{"quotas": {"fast": Quota(10), "auto": Quota(10)}} | changes)


def after(outcome: Outcome, subject: Entry | None = None, now: float = NOW) -> Entry:
    subject = subject or entry()
    apply_outcome(subject, "fast", "grok-4", outcome, now, POLICY)
    return subject


def state(subject: Entry) -> dict[str, object]:
    """What a penalty may change, relative to NOW."""
    return {
        "active": subject.active,
        "rests": subject.resting_until and subject.resting_until - NOW,
        "fast": subject.quotas["fast"].cooling_until and subject.quotas["fast"].cooling_until - NOW,
        "auto": subject.quotas["auto"].cooling_until,
        "left": subject.quotas["fast"].remaining,
        "failures": subject.failures,
        "skips": set(subject.skip_models),
    }


UNTOUCHED = {
    "active": True, "rests": 0, "fast": 0, "auto": 0, "left": 10, "failures": 0, "skips": set(),
}  # fmt: skip
TABLE: dict[Verdict, dict[str, object]] = {
    Verdict.SUCCESS: {},
    Verdict.SPENT: {},
    Verdict.NEUTRAL: {},
    Verdict.RETIRE: {"active": False, "failures": 1},
    Verdict.COOL_BUCKET: {"fast": 900, "left": 0},
    Verdict.COOL_CREDENTIAL: {"rests": 6 * 3600},
    Verdict.COOL_TEAM: {"rests": 6 * 3600},
    Verdict.BACK_OFF: {"rests": 2, "failures": 1},
    Verdict.PAUSE: {"rests": 5},
    Verdict.SKIP_MODEL: {"skips": {"grok-4"}},
}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_changes_this_and_nothing_else(verdict: Verdict) -> None:
    subject = entry()
    apply_outcome(subject, "fast", "grok-4", Outcome(verdict, "why"), NOW, PoolPolicy())
    assert state(subject) == UNTOUCHED | TABLE[verdict]


BLAMELESS = {Verdict.SUCCESS, Verdict.SPENT, Verdict.NEUTRAL, Verdict.SKIP_MODEL}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_a_penalty_is_kept_as_the_last_failure(verdict: Verdict) -> None:
    subject = after(Outcome(verdict, "why"))
    kept = (subject.last_failed, subject.last_reason)
    assert kept == ((0.0, "") if verdict in BLAMELESS else (NOW, "why"))


@pytest.mark.parametrize("verdict", [Verdict.COOL_BUCKET, Verdict.COOL_CREDENTIAL])
@pytest.mark.parametrize(
    ("hint", "seconds"),
    [(30.0, 30), (0.0, 1), (-5.0, 1), (7200.0, 7200), (7201.0, 7200), (1e12, 7200)],
)
def test_it_obeys_upstreams_time_within_limits(
    verdict: Verdict, hint: float, seconds: float
) -> None:
    subject = after(Outcome(verdict, retry_after=hint))
    assert max(subject.quotas["fast"].cooling_until, subject.resting_until) == NOW + seconds


def test_trouble_upstream_doubles_the_pause_up_to_a_limit() -> None:
    subject, pauses = entry(), []
    for _ in range(10):
        subject.resting_until = 0.0
        after(Outcome(Verdict.BACK_OFF), subject)
        pauses.append(subject.resting_until - NOW)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_the_pause_stays_finite_after_very_many_failures() -> None:
    subject = after(Outcome(Verdict.BACK_OFF), entry(failures=100_000))
    assert subject.resting_until == NOW + 300


@pytest.mark.parametrize(("hint", "seconds"), [(1.0, 2), (60.0, 60), (1e9, 7200)])
def test_a_longer_retry_after_wins_over_the_back_off(hint: float, seconds: float) -> None:
    assert after(Outcome(Verdict.BACK_OFF, retry_after=hint)).resting_until == NOW + seconds


def test_success_clears_the_count_of_failures() -> None:
    subject = after(SUCCESS, entry(failures=4))
    assert subject.failures == 0
    assert subject.pending_columns == {"fail_count"}


@pytest.mark.parametrize("outcome", [SPENT, NEUTRAL, Outcome(Verdict.PAUSE)])
def test_nothing_but_success_clears_it(outcome: Outcome) -> None:
    assert after(outcome, entry(failures=4)).failures == 4


@pytest.mark.parametrize("outcome", [SUCCESS, SPENT])
def test_using_up_the_last_of_a_bucket_cools_it(outcome: Outcome) -> None:
    subject = after(outcome, entry(quotas={"fast": Quota(0), "auto": Quota(3)}))
    assert subject.quotas["fast"].cooling_until == NOW + 900
    assert subject.quotas["auto"].cooling_until == 0


def test_a_late_success_does_not_lengthen_the_time_that_upstream_named() -> None:
    subject = after(Outcome(Verdict.COOL_BUCKET, retry_after=60.0))
    assert after(SUCCESS, subject).quotas["fast"].cooling_until == NOW + 60


def test_a_bucket_is_not_used_up_while_an_open_lease_may_give_something_back() -> None:
    subject = after(SUCCESS, entry(quotas={"fast": Quota(0, reserved=1), "auto": Quota(3)}))
    assert subject.quotas["fast"].cooling_until == 0


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.SUCCESS])
@pytest.mark.parametrize("hint", [None, 1.0])
def test_no_verdict_shortens_a_cool_down(verdict: Verdict, hint: float | None) -> None:
    late = NOW + 50_000
    subject = entry(quotas={"fast": Quota(1, late), "auto": Quota(1)}, resting_until=late)
    after(Outcome(verdict, retry_after=hint), subject)
    assert subject.quotas["fast"].cooling_until == late
    assert subject.resting_until == late


def test_a_reason_longer_than_its_column_is_cut() -> None:
    subject = after(Outcome(Verdict.RETIRE, "x" * 1000))
    assert len(subject.last_reason) == len(subject.invalid_reason) == 200


@pytest.mark.parametrize(
    ("verdict", "columns"),
    [
        (Verdict.RETIRE, {"status", "fail_count"}),
        (Verdict.COOL_BUCKET, {"quotas"}),
        (Verdict.COOL_CREDENTIAL, {"resting_until"}),
        (Verdict.COOL_TEAM, {"resting_until"}),
        (Verdict.BACK_OFF, {"resting_until", "fail_count"}),
        (Verdict.PAUSE, {"resting_until"}),
    ],
)
def test_a_penalty_names_what_has_to_be_written(verdict: Verdict, columns: set[str]) -> None:
    failed = {"last_failed_at", "last_fail_reason"}
    assert after(Outcome(verdict)).pending_columns == columns | failed
