"""Which requests of the record are wanted, in a form that every database answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from django.db import connection
from django.db.models import Q, QuerySet

from gateway.exchange import End
from gateway.ledger.models import RecordedKey, RequestRecord
from gateway.ledger.records import fitting

SUCCEEDED = frozenset({End.COMPLETED})
FAILED = frozenset({End.FAILED, End.BROKEN})
FEW = 20
"""Keys that are looked up one by one. More are sifted out of all requests, newest first,
which ends soon because so many keys match."""


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """All conditions hold together; None, "" and the empty set are none.

    ``since`` <= start of the request < ``until``. ``upstream`` "" means that none was asked.
    ``credential_id`` is that of the answering or last attempt. ``text`` is the beginning of
    a request id or part of a key's name, in capitals or not; it knows no wildcards.
    """

    since: datetime | None = None
    until: datetime | None = None
    key_id: int | None = None
    model: str = ""
    ends: frozenset[End] = frozenset()
    credential_id: int | None = None
    upstream: str | None = None
    error_code: str = ""
    text: str = ""


def branches(wanted: RecordFilter) -> list[QuerySet[RequestRecord]]:
    """Disjoint parts, unordered; each can be read newest first without sorting much.

    One statement with all alternatives would make some planners read and sort everything.
    """
    rows = RequestRecord.objects.filter(_conditions(wanted))
    if not wanted.text.strip():
        return [rows]
    text = _as_recorded(wanted.text)
    by_id = _id_begins(text)
    return [rows.filter(by_id), *(rows.filter(key).exclude(by_id) for key in _keys_named(text))]


def mentioning(text: str) -> Q:
    """The requests that ``RecordFilter.text`` finds, as one condition."""
    recorded = _as_recorded(text)
    return reduce(or_, _keys_named(recorded), _id_begins(recorded))


def _as_recorded(text: str) -> str:
    return fitting(text.strip(), 100)


def _conditions(wanted: RecordFilter) -> Q:
    exact = {
        "started_at__gte": wanted.since,
        "started_at__lt": wanted.until,
        "key_id": wanted.key_id,
        "model": fitting(wanted.model, 128) or None,
        "credential_id": wanted.credential_id,
        "upstream": wanted.upstream,
        "error_code": fitting(wanted.error_code, 64) or None,
        "end__in": sorted(wanted.ends) or None,
    }
    return Q(**{name: value for name, value in exact.items() if value is not None})


def _id_begins(text: str) -> Q:
    """The range is for the indexes of SQLite and MariaDB, which LIKE does not use there.

    PostgreSQL uses its own, and may sort in ways in which the range would be wrong.
    """
    begins = Q(request_id__startswith=text)
    if connection.vendor == "postgresql":
        return begins
    return begins & Q(request_id__gte=text, request_id__lt=text + "\U0010ffff")


def _keys_named(text: str) -> Iterator[Q]:
    named = RecordedKey.objects.filter(name__icontains=text)
    found = list(named.values_list("key_id", "name"))
    if len(found) > FEW:
        yield Q(key_name__in=[name for _, name in found])
        return
    for key_id, name in found:
        yield Q(key_id=key_id, key_name=name)
