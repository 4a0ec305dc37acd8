"""Saved settings in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.db import IntegrityError, transaction

from gateway.conf import LiveConfig, SettingsRejected
from gateway.conf.saved import DatabaseStore
from gateway.models import SavedSetting

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


def test_it_works() -> None:
    store = DatabaseStore(now=lambda: NOON)
    values = {"grok.timeout": 5, "models.aliases": {"ä\\": 'b"'}, "grok.stream": False}
    store.write(values, by="alice")
    assert store.read() == values
    row = SavedSetting.objects.get(key="grok.timeout")
    assert (row.updated_at, row.updated_by, str(row)) == (NOON, "alice", "grok.timeout")


def test_a_key_has_one_row() -> None:
    store = DatabaseStore()
    store.write({"grok.timeout": 5}, by="alice")
    store.write({"grok.timeout": 6}, by="b" * 500)
    assert store.read() == {"grok.timeout": 6}
    with pytest.raises(IntegrityError), transaction.atomic():
        SavedSetting.objects.create(key="grok.timeout", value=1, updated_at=NOON)


def test_every_change_changes_the_stamp_even_when_clocks_disagree() -> None:
    fast = DatabaseStore(now=lambda: NOON)
    slow = DatabaseStore(now=lambda: NOON - timedelta(minutes=5))
    stamps = [slow.stamp()]
    fast.write({"grok.timeout": 5}, by="a")
    stamps.append(slow.stamp())
    for number in (6, 7):
        slow.write({"grok.timeout": number}, by="b")
        stamps.append(slow.stamp())
    slow.write({"grok.stream": False}, by="b")
    stamps.append(slow.stamp())
    slow.delete(["grok.stream", "never.there"])
    stamps.append(slow.stamp())
    assert [pair for pair in pairwise(stamps) if pair[0] == pair[1]] == []


def test_looking_for_changes_is_one_query(django_assert_num_queries: object) -> None:
    store = DatabaseStore()
    with django_assert_num_queries(1):  # type: ignore[operator]
        store.stamp()


def test_what_one_worker_saves_the_other_finds(tmp_path: Path) -> None:
    workers = [LiveConfig(), LiveConfig()]
    for worker in workers:
        worker.load(tmp_path, {})
    workers[0].save({"grok.filter_tags": ["a"]}, by="alice")
    assert async_to_sync(workers[1].refresh)()
    assert workers[1].current().grok.filter_tags == ("a",)
    workers[1].unset(["grok.filter_tags"])
    async_to_sync(workers[0].refresh)()
    assert workers[0].resolved.source_of("grok.filter_tags") == "default"


def test_a_refused_value_writes_no_row(tmp_path: Path) -> None:
    worker = LiveConfig()
    worker.load(tmp_path, {})
    with pytest.raises(SettingsRejected):
        worker.save({"grok.timeout": 5, "grok.stream": "yes"}, by="alice")
    assert not SavedSetting.objects.exists()


def test_saved_values_are_there_after_a_restart(tmp_path: Path) -> None:
    first = LiveConfig()
    first.load(tmp_path, {})
    first.save({"app.api_key": 'a\\b"c'}, by="alice")
    second = LiveConfig()
    second.load(tmp_path, {})
    assert second.current().app.api_key == 'a\\b"c'
