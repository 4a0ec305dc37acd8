"""How one attempt ended, in a word that is a label."""

from __future__ import annotations

from gateway.exchange import Attempt, End

OK = "ok"
_TAKEN_AWAY = frozenset({End.CLIENT_GONE, End.STOPPED})


def outcome_of(attempt: Attempt, end: End) -> str:
    """The fault, "ok", or the request's ``end`` where that ended the attempt too."""
    return fault_of(attempt, end) or (OK if end is End.COMPLETED else end.value)


def fault_of(attempt: Attempt, end: End) -> str:
    """The class of error the attempt was left for; "" if it served or was cut off."""
    # Cut off by the request's end, it names a cancellation, which is in no row.
    cut_off = end in _TAKEN_AWAY and attempt.row is None
    return "" if cut_off else attempt.left
