"""The day on which daily limits count: it begins at midnight of the reset time zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

RESET_OFFSET = "CACHE_RESET_TZ_OFFSET_MINUTES"
"""The environment variable that holds the offset."""
_DEFAULT = 480
_LOWEST, _HIGHEST = -720, 840
_SECONDS = 86_400
_FIRST = date(1970, 1, 1).toordinal()


def offset_of(text: str | None) -> int:
    """Minutes east of UTC: what ``text`` says, within -720 and 840; 480 if it says nothing."""
    try:
        minutes = int((text or "").strip())
    except ValueError:
        return _DEFAULT
    return max(_LOWEST, min(_HIGHEST, minutes))


def date_of(day: int) -> date:
    """The date of a day's number."""
    return date.fromordinal(_FIRST + day)


class Days:
    """Days as numbers since 1970-01-01, at ``offset`` minutes east of UTC.

    ``now`` gives Unix time.
    """

    def __init__(self, offset: int, now: Callable[[], float]) -> None:
        self._shift = offset * 60
        self._now = now

    def today(self) -> int:
        return int((self._now() + self._shift) // _SECONDS)

    def seconds_left(self) -> float:
        """Until the next midnight; more than 0."""
        return _SECONDS - (self._now() + self._shift) % _SECONDS
