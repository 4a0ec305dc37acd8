"""Every query of the operator's pages against the plain way of working it out.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from gateway.exchange import End
from gateway.ledger import queries
from gateway.ledger.filters import FAILED, SUCCEEDED, RecordFilter
from gateway.ledger.models import DailyUsage, HourlyUsage, RequestRecord
from gateway.ledger.queries import Usage, UsageFilter
from gateway.ledger.retention import prune
from tests.gateway.ledger.samples import NAMES, NOON, attempt, exchange, keep, mixture, sums

pytestmark = pytest.mark.django_db

EVERY = RecordFilter()
DAY = timedelta(days=1)


@pytest.fixture
def rows() -> list[RequestRecord]:
    """A mixture, as it is stored, newest first."""
    keep(*mixture(Random(7), 300))
    return sorted(
        RequestRecord.objects.all(), key=lambda row: (row.started_at, row.pk), reverse=True
    )


def matches(row: RequestRecord, wanted: RecordFilter) -> bool:
    text = wanted.text.strip()
    return (
        (wanted.since is None or row.started_at >= wanted.since)
        and (wanted.until is None or row.started_at < wanted.until)
        and (wanted.key_id is None or row.key_id == wanted.key_id)
        and wanted.model in ("", row.model)
        and (not wanted.ends or row.end in wanted.ends)
        and (wanted.credential_id is None or row.credential_id == wanted.credential_id)
        and (wanted.upstream is None or row.upstream == wanted.upstream)
        and wanted.error_code in ("", row.error_code)
        and (
            not text
            or row.request_id.startswith(text)
            or text.casefold() in row.key_name.casefold()
        )
    )


def any_filter(random: Random) -> RecordFilter:
    def maybe(values: Any, nothing: Any = None) -> Any:
        return random.choice(values) if random.random() < 0.35 else nothing

    return RecordFilter(
        since=maybe([NOON - DAY * part / 2 for part in range(6)]),
        until=maybe([NOON - DAY * part / 2 for part in range(6)]),
        key_id=maybe(range(len(NAMES) + 1)),
        model=maybe(["grok-3", "grok-4", "none such"], ""),
        ends=maybe([SUCCEEDED, FAILED, frozenset(End), frozenset({End.STOPPED})], frozenset()),
        credential_id=maybe(range(6)),
        upstream=maybe(["web", "api", ""]),
        error_code=maybe(["upstream_error", "none such"], ""),
        text=maybe(["alice", "O", "request-1", "%", "_", "\\", " b "], ""),
    )


def ids(wanted: RecordFilter, limit: int = 50) -> Iterator[int]:
    """All that is found, page by page."""
    before: int | None = None
    while True:
        page = queries.records(wanted, before, limit)
        assert len(page.records) <= limit
        yield from (row.pk for row in page.records)
        before = page.next_before_id
        if before is None:
            return
        assert page.records


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_the_plain_way_finds_in_its_order(
    rows: list[RequestRecord], seed: int
) -> None:
    random = Random(seed)
    for _ in range(40):
        wanted = any_filter(random)
        expected = [row.pk for row in rows if matches(row, wanted)]
        assert list(ids(wanted, random.choice((1, 7, 1000)))) == expected, wanted
        cap = random.randrange(1, 40)
        assert queries.count_up_to(wanted, cap) == min(len(expected), cap), wanted


def test_a_page_says_whether_there_is_more(rows: list[RequestRecord]) -> None:
    page = queries.records(EVERY, limit=300)
    assert (page.records, page.next_before_id) == (rows, None)
    page = queries.records(EVERY, limit=299)
    assert (page.records, page.next_before_id) == (rows[:299], rows[298].pk)


def test_a_page_after_a_pruned_request_is_empty(rows: list[RequestRecord]) -> None:
    prune(NOON + DAY, 2)
    assert queries.records(EVERY, rows[-1].pk).records == []


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_found_by_its_own_letters_only(text: str) -> None:
    keep(*(exchange(key_id=number, key_name=name) for number, name in enumerate(NAMES)))
    found = queries.records(RecordFilter(text=text)).records
    assert [row.key_name for row in found] == [text]


@pytest.mark.parametrize("text", ["%", "_", "\\", "re_quest", "a%", "\0", "\ud800", "'", '"'])
def test_nothing_in_the_text_is_a_wildcard(text: str) -> None:
    keep(exchange(key_name="alice", id="request-x"))
    assert queries.records(RecordFilter(text=text)).records == []
    assert queries.count_up_to(RecordFilter(text=text), 10) == 0


@pytest.mark.parametrize("text", ["3F_a", "3F%"])
def test_a_request_is_found_by_its_beginning(text: str) -> None:
    keep(exchange(id="3F_a-bc"), exchange(id="3F%a-bc"), exchange(id="x3F_a"), exchange(id="3Fxa"))
    found = queries.records(RecordFilter(text=text)).records
    assert [row.request_id for row in found] == [f"{text[:3]}a-bc"]


def test_a_request_that_is_found_twice_is_listed_once() -> None:
    keep(exchange(id="alice-1", key_name="alice"))
    assert len(queries.records(RecordFilter(text="alice")).records) == 1
    assert queries.count_up_to(RecordFilter(text="alice"), 10) == 1


def test_many_keys_of_one_name_are_found_too() -> None:
    keep(*(exchange(key_id=number, key_name=f"team {number}") for number in range(60)))
    assert queries.count_up_to(RecordFilter(text="TEAM"), 100) == 60
    assert queries.count_up_to(RecordFilter(text="TEAM 1"), 100) == 11


def test_a_key_is_found_by_the_name_it_had() -> None:
    keep(exchange(key_name="before"), exchange(key_name="after"))
    assert queries.count_up_to(RecordFilter(text="before"), 10) == 1


def test_no_list_counts_or_skips(rows: list[RequestRecord]) -> None:
    with CaptureQueriesContext(
        connection,
    ) as caught:
        queries.records(RecordFilter(text="alice"), rows[50].pk)
    statements = " ".join(query["sql"] for query in caught.captured_queries)
    assert "OFFSET" not in statements
    assert "COUNT(" not in statements


def naive(
    rows: list[RequestRecord], wanted: UsageFilter, first: datetime, last: datetime | None
) -> list[RequestRecord]:
    return [
        row
        for row in rows
        if row.started_at >= first
        and (last is None or row.started_at < last)
        and wanted.model in ("", row.model)
        and (wanted.key_id is None or row.key_id == wanted.key_id)
        and (wanted.upstream is None or row.upstream == wanted.upstream)
    ]


FILTERS = [
    UsageFilter(),
    UsageFilter(model="grok-4"),
    UsageFilter(key_id=2),
    UsageFilter(upstream=""),
    UsageFilter("grok-3", 1, "web"),
    UsageFilter(model="none such"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize(
    ("series", "step"), [(queries.hours, timedelta(hours=1)), (queries.days, DAY)]
)
def test_a_series_has_every_period_and_its_sums(
    rows: list[RequestRecord],
    series: Callable[..., list[queries.UsagePoint]],
    step: timedelta,
    wanted: UsageFilter,
) -> None:
    since, until = NOON - timedelta(days=2, minutes=30), NOON + timedelta(days=1, minutes=30)
    points = series(since, until, wanted)
    assert points[0].start <= since < points[0].start + step
    assert points[-1].start < until <= points[-1].start + step
    assert {after.start - before.start for before, after in pairwise(points)} == {step}
    for point in points:
        found = naive(rows, wanted, point.start, point.start + step)
        assert point.usage == Usage(*sums(found))


def test_a_series_ends_before_its_end_and_may_be_empty() -> None:
    assert [point.start for point in queries.hours(NOON, NOON + timedelta(hours=2))] == [
        NOON,
        NOON + timedelta(hours=1),
    ]
    assert queries.hours(NOON, NOON) == queries.days(NOON, NOON - 3 * DAY) == []


def test_a_series_takes_any_time_zone() -> None:
    keep(exchange(NOON))
    there = timezone.get_fixed_timezone(330)
    points = queries.hours(NOON.astimezone(there), (NOON + timedelta(hours=1)).astimezone(there))
    assert [(point.start, point.usage.requests) for point in points] == [(NOON, 1)]


def test_a_series_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="points"):
        queries.hours(NOON - 365 * DAY, NOON)


SPANS = [
    (timedelta(hours=5, minutes=20), None),
    (timedelta(days=2, hours=3), None),
    (timedelta(days=2, hours=3), timedelta(hours=7, minutes=10)),
    (timedelta(days=2, hours=12), timedelta(days=1, hours=12)),
    (timedelta(hours=30), timedelta(hours=28)),
    (timedelta(hours=13), timedelta(hours=11)),
    (timedelta(days=9), timedelta(days=-9)),
    (timedelta(hours=1), timedelta(hours=2)),
]


@pytest.mark.parametrize(("ago", "until_ago"), SPANS, ids=str)
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_sums_and_rankings_are_those_of_the_requests(
    rows: list[RequestRecord], wanted: UsageFilter, ago: timedelta, until_ago: timedelta | None
) -> None:
    since, until = NOON - ago, None if until_ago is None else NOON - until_ago
    first = since.replace(minute=0)
    last = until and (until + timedelta(minutes=59)).replace(minute=0)
    found = naive(rows, wanted, first, last)
    assert queries.summary(since, until, wanted) == Usage(*sums(found))
    ranked = by(found, lambda row: row.model)[:2]
    top_models = queries.top_models(since, until, wanted, 2)
    assert [(top.model, top.usage) for top in top_models] == ranked
    top_keys = queries.top_keys(since, until, wanted, 3)
    assert [(top.key_id, top.usage) for top in top_keys] == by(found, lambda row: row.key_id)[:3]
    assert all(top.name == NAMES[top.key_id] for top in top_keys)


def by(rows: list[RequestRecord], value: Callable[[RequestRecord], Any]) -> list[tuple[Any, Usage]]:
    groups: dict[Any, list[RequestRecord]] = defaultdict(list)
    for row in rows:
        groups[value(row)].append(row)
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [(name, Usage(*sums(members))) for name, members in ranked]


def test_errors_are_ranked_by_how_often_they_were_answered(rows: list[RequestRecord]) -> None:
    for since, until in ((NOON - DAY, None), (NOON - 2 * DAY, NOON - DAY), (NOON + DAY, None)):
        groups: dict[str, list[datetime]] = defaultdict(list)
        for row in naive(rows, UsageFilter(), since, until):
            if row.error_code:
                groups[row.error_code].append(row.started_at)
        ranked = sorted(groups, key=lambda code: (-len(groups[code]), code))
        assert queries.top_errors(since, until) == [
            queries.ErrorCount(code, len(groups[code]), max(groups[code])) for code in ranked
        ]
    assert len(queries.top_errors(NOON - DAY, limit=1)) == 1


def test_a_renamed_key_is_ranked_under_its_newest_name() -> None:
    keep(exchange(key_name="before"))
    keep(exchange(key_name="after"))
    assert [top.name for top in queries.top_keys(NOON)] == ["after"]


def test_where_hours_are_no_longer_kept_the_whole_day_counts() -> None:
    now = NOON + 100 * DAY
    keep(exchange(NOON - timedelta(hours=6)), exchange(now, attempts=[attempt()]))
    prune(now, 1)
    assert HourlyUsage.objects.count() == 1
    assert queries.summary(NOON, now=now).requests == 2
    assert queries.summary(NOON, NOON + timedelta(hours=1), now=now).requests == 1
    assert queries.top_models(NOON, NOON + timedelta(hours=1), now=now)[0].usage.requests == 1
    assert queries.summary(now - DAY, now + DAY, now=now).requests == 1


def test_old_times_are_judged_by_todays_date_when_none_is_given() -> None:
    old = (timezone.now() - 100 * DAY).astimezone(UTC).replace(hour=1)
    keep(exchange(old))
    HourlyUsage.objects.all().delete()
    assert queries.summary(old.replace(hour=5)).requests == 1
    assert DailyUsage.objects.count() == 1


def test_means_and_rates_know_when_there_is_nothing_to_divide() -> None:
    nothing = Usage()
    assert (nothing.success_rate, nothing.mean_first_event_ms, nothing.mean_duration_ms) == (
        None,
        None,
        None,
    )
    usage = Usage(requests=10, completed=6, failed=2, first_event_ms=900, first_events=3)
    assert (usage.success_rate, usage.mean_first_event_ms) == (0.75, 300)
    assert replace(usage, duration_ms=50).mean_duration_ms == 5
