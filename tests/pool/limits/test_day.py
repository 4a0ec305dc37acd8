"""The day of daily limits."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.limits.day import Days, date_of, offset_of


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        (None, 480), ("", 480), ("  ", 480), ("words", 480), ("8h", 480), ("1.5", 480),
        ("480", 480), (" 60 ", 60), ("0", 0), ("-300", -300), ("+90", 90),
        ("840", 840), ("841", 840), ("99999", 840), ("-720", -720), ("-721", -720),
    ],
)  # fmt: skip
def test_the_offset_is_a_number_of_minutes_within_limits(text: str | None, minutes: int) -> None:
    assert offset_of(text) == minutes


@pytest.mark.parametrize(
    ("offset", "moment", "day", "left"),
    [
        (480, "2026-03-01T15:59:59.5", "2026-03-01", 0.5),
        (480, "2026-03-01T16:00:00", "2026-03-02", 86_400),
        (0, "2026-03-01T23:59:59", "2026-03-01", 1),
        (0, "2026-03-02T00:00:00", "2026-03-02", 86_400),
        (-720, "2026-03-01T11:59:59", "2026-02-28", 1),
        (-720, "2026-03-01T12:00:00", "2026-03-01", 86_400),
        (840, "2026-03-01T09:59:59", "2026-03-01", 1),
        (840, "2026-03-01T10:00:00", "2026-03-02", 86_400),
        (840, "2024-02-28T10:00:00", "2024-02-29", 86_400),
        (-720, "2026-01-01T00:00:00", "2025-12-31", 43_200),
    ],
)
def test_a_day_begins_at_midnight_of_the_offset(
    offset: int, moment: str, day: str, left: float
) -> None:
    days = Days(offset, datetime.fromisoformat(moment + "+00:00").timestamp)
    assert date_of(days.today()) == date.fromisoformat(day)
    assert days.seconds_left() == left


@given(offset=st.integers(-720, 840), seconds=st.integers(0, 4_000_000_000))
def test_it_is_the_date_of_the_shifted_clock(offset: int, seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    days = Days(offset, moment.timestamp)
    assert date_of(days.today()) == (moment + timedelta(minutes=offset)).date()
    later = moment + timedelta(seconds=days.seconds_left())
    assert Days(offset, later.timestamp).today() == days.today() + 1
