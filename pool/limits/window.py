"""Requests per minute of one record: a sliding window of whole seconds.

A request counts until 61 seconds later, so no 60 seconds ever see more than the limit,
wherever they begin. The window never goes back: a clock that does so counts in its newest
second.
"""

from __future__ import annotations

from pool.limits.table import IN_WINDOW, RING, SECOND, SECONDS, KeyTable

NEVER = 60.0
"""Seconds to wait that a limit of 0 names, though nothing will pass then either."""


def requests_in_window(table: KeyTable, place: int, now: float) -> int:
    """How many still count at ``now``; forgets the others."""
    words = table.words
    second, newest = int(now), words[place + SECOND]
    if second <= newest:
        return words[place + IN_WINDOW]
    if second - newest >= SECONDS:
        _clear(table, place)
    else:
        for old in range(newest + 1, second + 1):
            at = place + RING + old % SECONDS
            if words[at]:
                words[place + IN_WINDOW] -= words[at]
                words[at] = 0
    words[place + SECOND] = second
    return words[place + IN_WINDOW]


def _clear(table: KeyTable, place: int) -> None:
    for at in range(place + RING, place + RING + SECONDS):
        table.words[at] = 0
    table.words[place + IN_WINDOW] = 0


def count_request(table: KeyTable, place: int) -> None:
    """In the newest second; ask ``requests_in_window`` first."""
    words = table.words
    words[place + IN_WINDOW] += 1
    words[place + RING + words[place + SECOND] % SECONDS] += 1


def recount_window(table: KeyTable, place: int) -> int:
    """Add up anew, in case a worker was killed between two writes."""
    total = sum(table.words[place + RING : place + RING + SECONDS])
    table.words[place + IN_WINDOW] = total
    return total


def wait_for_room(table: KeyTable, place: int, limit: int, now: float) -> float:
    """Seconds until fewer than ``limit`` requests count."""
    if limit <= 0:
        return NEVER
    words = table.words
    newest, left = words[place + SECOND], words[place + IN_WINDOW]
    for second in range(newest - SECONDS + 1, newest + 1):
        left -= words[place + RING + second % SECONDS]
        if left < limit:
            return max(second + SECONDS - now, 0.001)
    return NEVER
