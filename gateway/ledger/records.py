"""What is kept of an exchange: plain values that fit their columns. No Django in here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.exchange import Attempt, Exchange

MAX_INT = 2**31 - 1
MAX_BIGINT = 2**63 - 1
MAX_STATUS = 2**15 - 1
_UNSTORABLE = dict.fromkeys((0, *range(0xD800, 0xE000)), "\ufffd")
"""NUL and lone surrogates, which PostgreSQL and UTF-8 do not take."""


class Record(NamedTuple):
    """One row of ``RequestRecord``, its columns in this order; ``attempts`` is JSON text."""

    started_at: datetime
    request_id: str
    key_id: int
    key_name: str
    operation: str
    model: str
    streaming: bool
    upstream: str
    credential_id: int | None
    hint: str
    attempts: str
    end: str
    status: int
    error_code: str
    first_event_ms: int | None
    duration_ms: int
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    tokens: str
    bytes_in: int
    bytes_out: int


def record_of(exchange: Exchange) -> Record:
    """``exchange`` as it is now: later changes to it do not reach the record."""
    served_by = exchange.served_by
    return Record(
        started_at=datetime.fromtimestamp(exchange.started_at, UTC),
        request_id=fitting(exchange.id, 64),
        key_id=exchange.key_id,
        key_name=fitting(exchange.key_name, 100),
        operation=fitting(exchange.operation, 32),
        model=fitting(exchange.model, 128),
        streaming=exchange.streaming,
        upstream=fitting(served_by.upstream, 16) if served_by else "",
        credential_id=served_by.credential_id if served_by else None,
        hint=fitting(served_by.hint, 16) if served_by else "",
        attempts=json.dumps([_compact(attempt) for attempt in exchange.attempts]),
        end=exchange.end.value,
        status=_bounded(exchange.status, MAX_STATUS) or 0,
        error_code=fitting(exchange.error_code, 64),
        first_event_ms=None if exchange.first_event is None else _ms(exchange.first_event),
        duration_ms=_ms(exchange.duration),
        prompt_tokens=_bounded(exchange.prompt_tokens),
        completion_tokens=_bounded(exchange.completion_tokens),
        reasoning_tokens=_bounded(exchange.reasoning_tokens),
        tokens=exchange.tokens,
        bytes_in=_bounded(exchange.bytes_in, MAX_BIGINT) or 0,
        bytes_out=_bounded(exchange.bytes_out, MAX_BIGINT) or 0,
    )


def _compact(attempt: Attempt) -> dict[str, str | int | None]:
    return {
        "credential": attempt.credential_id,
        "hint": fitting(attempt.hint, 16),
        "kind": fitting(attempt.kind, 16),
        "upstream": fitting(attempt.upstream, 16),
        "bucket": fitting(attempt.bucket, 64),
        "left": fitting(attempt.left, 64),
        "row": attempt.row,
        "status": attempt.status,
        "ms": _ms(attempt.seconds),
    }


def fitting(text: str, width: int) -> str:
    """``text`` as any of the databases takes it into a column of ``width`` characters."""
    cut = text[:width]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.translate(_UNSTORABLE)


def _ms(seconds: float) -> int:
    return int(min(max(seconds, 0.0) * 1000, MAX_INT))


def _bounded(number: int | None, most: int = MAX_INT) -> int | None:
    return None if number is None else min(max(number, 0), most)
