"""What a client and the operator read when nothing can serve a request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from pool.entries import Entry, Quota
from pool.leases import Lane, Want
from pool.refusals import Refusals
from tests.pool.samples import make_entry

NOW = datetime(2026, 8, 27, 12, 30, tzinfo=UTC).timestamp()
BASIC = Lane("sso", "fast")
SUPER = Lane("ssoSuper", "fast")


def entry(number: int, kind: str = "ssoSuper", **changes: Any) -> Entry:
    return make_entry(number, kind, **changes)


def cooling(number: int, seconds: float, **changes: Any) -> Entry:
    return entry(number, quotas={"fast": Quota(0, NOW + seconds)}, **changes)


class Members:
    """Counts how often somebody looks at the credentials."""

    def __init__(self, *entries: Entry) -> None:
        self.kinds: dict[str, dict[int, Entry]] = defaultdict(dict)
        for each in entries:
            self.kinds[each.kind][each.id] = each
        self.looks = 0

    def __call__(self, kind: str) -> Mapping[int, Entry]:
        self.looks += 1
        return self.kinds[kind]


def refusal(*entries: Entry, want: Want | None = None) -> tuple[str, float | None]:
    want = want or Want((SUPER,), "grok-4-heavy")
    error = Refusals(Members(*entries)).explain(want, NOW)
    return error.message, error.retry_after


def test_it_names_how_many_cool_until_when_and_how_many_are_invalid() -> None:
    found = refusal(
        cooling(1, 900), cooling(2, 600), cooling(3, 1200),
        entry(4, active=False), entry(5, active=False),
    )  # fmt: skip
    message = "No active credential of tier super: 3 cooling until 12:40:00 UTC, 2 invalid."
    assert found == (message, 600.0)


@pytest.mark.parametrize(
    ("entries", "cause", "retry_after"),
    [
        ([], "the pool holds none", None),
        ([entry(1, active=False)], "1 invalid", None),
        ([entry(1, active=False, disabled=True)], "1 disabled", None),
        ([entry(1, in_flight=9)], "1 busy", 1.0),
        ([entry(1, skip_models={"grok-4-heavy": NOW + 60})], "1 not entitled", None),
        ([entry(1, skip_models={"grok-4-heavy": NOW - 1}, in_flight=9)], "1 busy", 1.0),
        ([entry(1, resting_until=NOW + 5)], "1 cooling until 12:30:05 UTC", 5.0),
        ([cooling(1, 0.2)], "1 cooling until 12:30:00 UTC", 1.0),
        ([cooling(1, 60, resting_until=NOW + 120)], "1 cooling until 12:32:00 UTC", 120.0),
        ([cooling(1, 86400)], "1 cooling until 2026-08-28 12:30:00 UTC", 86400.0),
        ([cooling(1, 60), entry(2, in_flight=9)], "1 cooling until 12:31:00 UTC, 1 busy", 1.0),
    ],
)
def test_it_names_the_cause(entries: list[Entry], cause: str, retry_after: float | None) -> None:
    assert refusal(*entries) == (f"No active credential of tier super: {cause}.", retry_after)


def test_it_names_every_tier_that_would_have_done() -> None:
    want = Want((BASIC, SUPER, Lane("api", "grok-4")), "grok-4")
    message, _ = refusal(entry(1, "sso", active=False), want=want)
    assert message == "No active credential of tier basic or super or api: 1 invalid."


def test_it_says_none_for_a_model_that_no_policy_allows() -> None:
    message, _ = refusal(entry(1), want=Want((), "grok-4"))
    assert message == "No active credential of tier any: the pool holds none."


def test_it_counts_those_already_tried_apart() -> None:
    want = Want((SUPER,), "grok-4-heavy", exclude=frozenset({1}))
    message, _ = refusal(cooling(1, 60), entry(2, active=False), want=want)
    assert message == "No active credential of tier super: 1 invalid, 1 tried."


def test_it_speaks_only_of_the_credential_a_request_is_pinned_to() -> None:
    entries = [cooling(1, 60), entry(2, active=False)]
    message, _ = refusal(*entries, want=Want((SUPER,), "grok-4-heavy", only=2))
    assert message == "No active credential of tier super: 1 invalid."
    message, _ = refusal(*entries, want=Want((SUPER,), "grok-4-heavy", only=3))
    assert message == "No active credential of tier super: the pool holds none."


def test_it_takes_the_any_bucket_number_for_a_bucket_never_seen() -> None:
    message, _ = refusal(entry(1, quotas={"*": Quota(0, NOW + 60)}))
    assert message == "No active credential of tier super: 1 cooling until 12:31:00 UTC."


def test_it_does_not_look_at_a_big_pool_for_every_refusal() -> None:
    members = Members(*(cooling(number, 600) for number in range(1, 20_001)))
    refusals, want = Refusals(members), Want((SUPER,), "grok-4-heavy")
    texts = {refusals.explain(want, NOW + tick / 100).message for tick in range(150)}
    assert members.looks == 1
    assert texts == {
        "No active credential of tier super: 20000 cooling until 12:40:00 UTC.",
    }
    assert refusals.explain(want, NOW + 1.5).retry_after == 598.5
    refusals.explain(want, NOW + 5)
    assert members.looks == 2


def test_it_looks_at_a_small_pool_every_time() -> None:
    members = Members(cooling(1, 600))
    refusals, want = Refusals(members), Want((SUPER,), "grok-4-heavy")
    refusals.explain(want, NOW)
    members.kinds["ssoSuper"][1].active = False
    assert refusals.explain(want, NOW).message.endswith(": 1 invalid.")
