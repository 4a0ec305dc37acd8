"""``manage.py create_api_key``."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from pool.keys import KeyDirectory, KeyLimits, limits_of
from pool.models import ClientKey

pytestmark = pytest.mark.django_db


def run(*options: str) -> str:
    out = io.StringIO()
    call_command("create_api_key", *options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_it_prints_a_key_that_works_and_nothing_else() -> None:
    clear = run("--name", "alice").removesuffix("\n")
    keys = KeyDirectory(lambda: "")
    keys.load()
    assert keys.lookup(clear).name == "alice"


def test_it_reports_as_json() -> None:
    report = json.loads(run("--name", "alice", "--models", "grok-4, grok-3,", "--json"))
    row = ClientKey.objects.get()
    assert report == {
        "id": row.pk,
        "name": "alice",
        "key": report["key"],
        "prefix": row.prefix,
        "expires_at": None,
        "allowed_models": ["grok-4", "grok-3"],
        "limits": dict.fromkeys(("chat", "heavy", "image", "video", "rpm", "concurrency"), -1),
    }
    assert report["key"].startswith(row.prefix)
    assert row.allowed_models == ["grok-4", "grok-3"]


def test_it_sets_the_expiry() -> None:
    run("--name", "alice", "--expires-days", "30")
    expires_at = ClientKey.objects.get().expires_at
    assert expires_at is not None
    left = expires_at - timezone.now()
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


def test_it_sets_the_limits() -> None:
    options = ["--chat", "50", "--heavy", "0", "--image", "20", "--video", "5"]
    report = json.loads(run("--name", "a", *options, "--rpm", "10", "--concurrency", "2", "--json"))
    assert list(report["limits"].values()) == [50, 0, 20, 5, 10, 2]
    limits = KeyLimits(chat=50, heavy=0, image=20, video=5, rpm=10, concurrency=2)
    assert limits_of(ClientKey.objects.get()) == limits


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2990-01-31", datetime(2990, 1, 31, tzinfo=UTC)),
        ("2990-01-31T12:30", datetime(2990, 1, 31, 12, 30, tzinfo=UTC)),
        ("2990-01-31 12:30+08:00", datetime(2990, 1, 31, 4, 30, tzinfo=UTC)),
    ],
)
def test_it_takes_the_moment_of_expiry(text: str, moment: datetime) -> None:
    run("--name", "alice", "--expires", text)
    assert ClientKey.objects.get().expires_at == moment


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--name", " "],
        ["--name", "n" * 101],
        ["--name", "n", "--expires-days", "0"],
        ["--name", "n", "--expires-days", "-1"],
        ["--name", "n", "--expires-days", "999999999"],
        ["--name", "n", "--expires", "2020-01-01"],
        ["--name", "n", "--expires", "2990-13-01"],
        ["--name", "n", "--expires", "soon"],
        ["--name", "n", "--expires", "2990-01-01", "--expires-days", "3"],
        ["--name", "n", "--chat", "-2"],
        ["--name", "n", "--rpm", "2147483648"],
        ["--name", "n", "--concurrency", "many"],
    ],
)
def test_it_refuses_what_makes_no_sense(options: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*options)
    assert not ClientKey.objects.exists()


def test_it_says_what_to_do_when_there_are_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", list)
    with pytest.raises(CommandError, match="migrate"):
        run("--name", "alice")
