"""What is kept of a request."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import models
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange import End, Exchange
from gateway.ledger.models import ENDS, RecordedKey, RequestRecord
from gateway.ledger.records import Record, fitting, record_of
from tests.gateway.ledger.samples import attempt, exchange, keep

FULL = Exchange(
    id="3f2a",
    operation="chat",
    started_at=1_900_000_000.123456,
    key_id=7,
    key_name="alice",
    model="grok-4",
    streaming=True,
    attempts=[
        attempt(1, "web", left="QuotaExhausted", row=5, status=429, seconds=0.25),
        attempt(2, "api", seconds=1.5),
    ],
    end=End.BROKEN,
    status=200,
    error_code="upstream_incomplete",
    first_event=1.75,
    duration=3.5,
    prompt_tokens=11,
    completion_tokens=12,
    reasoning_tokens=13,
    tokens="measured",
    bytes_in=14,
    bytes_out=15,
)


def stored() -> RequestRecord:
    return RequestRecord.objects.get()


@pytest.mark.django_db
def test_every_field_comes_back() -> None:
    keep(FULL)
    row = {name: getattr(stored(), name) for name in Record._fields}
    assert row == {
        "started_at": datetime(2030, 3, 17, 17, 46, 40, 123456, UTC),
        "request_id": "3f2a",
        "key_id": 7,
        "key_name": "alice",
        "operation": "chat",
        "model": "grok-4",
        "streaming": True,
        "upstream": "api",
        "credential_id": 2,
        "hint": "hint2",
        "attempts": [
            {
                "credential": 1, "hint": "hint1", "kind": "sso", "upstream": "web",
                "bucket": "fast", "left": "QuotaExhausted", "row": 5, "status": 429, "ms": 250,
            },
            {
                "credential": 2, "hint": "hint2", "kind": "sso", "upstream": "api",
                "bucket": "fast", "left": "", "row": None, "status": None, "ms": 1500,
            },
        ],
        "end": "broken",
        "status": 200,
        "error_code": "upstream_incomplete",
        "first_event_ms": 1750,
        "duration_ms": 3500,
        "prompt_tokens": 11,
        "completion_tokens": 12,
        "reasoning_tokens": 13,
        "tokens": "measured",
        "bytes_in": 14,
        "bytes_out": 15,
    }  # fmt: skip


@pytest.mark.django_db
def test_what_is_not_known_stays_unknown() -> None:
    keep(Exchange(id="1", operation="chat", started_at=1e9, key_id=0, key_name=""))
    row = stored()
    nothing = (row.first_event_ms, row.prompt_tokens, row.completion_tokens, row.reasoning_tokens)
    assert nothing == (None,) * 4
    assert (row.credential_id, row.hint, row.upstream, row.attempts) == (None, "", "", [])
    assert (row.end, row.tokens) == ("refused", "")


def test_later_changes_do_not_reach_the_record() -> None:
    living = replace(FULL, attempts=[attempt(1)])
    before = record_of(living)
    living.attempts[0].left = "later"
    living.attempts.append(attempt(2))
    living.end = End.STOPPED
    assert before == record_of(replace(FULL, attempts=[attempt(1)]))


def test_the_record_has_the_columns_of_its_table_in_some_order() -> None:
    assert {"id", *Record._fields} == {field.name for field in RequestRecord._meta.fields}


def test_every_end_has_a_name_and_a_column_to_fit() -> None:
    assert set(ENDS) == {end.value for end in End}
    assert max(map(len, ENDS)) <= 16


def test_text_is_cut_to_the_width_of_its_column() -> None:
    endless = "ü" * 100_000
    record = record_of(
        exchange(
            id=endless,
            key_name=endless,
            operation=endless,
            model=endless,
            error_code=endless,
            attempts=[replace(attempt(1, endless, left=endless), hint=endless, bucket=endless)],
        )
    )
    for field in RequestRecord._meta.fields:
        if isinstance(field, models.CharField) and field.name not in ("end", "tokens"):
            assert len(getattr(record, field.name)) == field.max_length, field.name
    assert RecordedKey._meta.get_field("name").max_length == len(record.key_name)
    assert len(record.attempts) < 5000


@pytest.mark.django_db
def test_every_database_takes_nul_surrogates_and_enormous_numbers() -> None:
    odd = "a\0b\ud800c😀\udfff"
    worst = attempt(1, odd, left=odd)
    worst.hint = worst.bucket = odd
    huge = 10**30
    numbers: dict[str, Any] = {"status": huge, "prompt_tokens": huge, "bytes_in": huge}
    keep(
        exchange(
            id=odd,
            key_name=odd,
            model=odd,
            error_code=odd,
            attempts=[worst],
            completion_tokens=-1,
            **numbers,
        ),
        exchange(duration=-1.0, first_event=1e300, bytes_out=huge // 10**13),
    )
    first, second = RequestRecord.objects.order_by("pk")
    tame = "a\ufffdb\ufffdc😀\ufffd"
    assert (first.request_id, first.key_name, first.model, first.error_code) == (tame,) * 4
    assert (first.upstream, first.hint, first.attempts[0]["left"]) == (tame,) * 3
    assert (first.status, first.completion_tokens) == (32767, 0)
    assert (first.prompt_tokens, first.bytes_in) == (2**31 - 1, 2**63 - 1)
    assert (second.duration_ms, second.first_event_ms) == (0, 2**31 - 1)


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 12))
def test_fitting_text_is_short_enough_and_can_be_encoded(text: str, width: int) -> None:
    fits = fitting(text, width)
    assert len(fits) == min(len(text), width)
    assert "\0" not in fits
    assert fits.encode().decode() == fits
    assert "\\ud" not in json.dumps(fits) or not fits.isascii()
    if text.isprintable():
        assert text.startswith(fits)
