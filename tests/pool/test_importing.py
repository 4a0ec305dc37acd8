"""Imports against the database: adds or updates, never deletes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from pool import importing
from pool.crypto import key_id, key_ids, seal, unseal
from pool.import_report import MAX_LISTED, ImportReport
from pool.import_rows import Plan, write
from pool.importing import import_credentials
from pool.models import BucketQuota, Credential, Kind, Status
from pool.token_formats import FormatError

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MS = 1_700_000_000_000


def load(data: str | bytes | list[Any], kind: Kind = Kind.SSO, **options: Any) -> ImportReport:
    source = json.dumps(data) if isinstance(data, list) else data
    return import_credentials(source, kind, now=NOW, **options)


def counts(report: ImportReport) -> tuple[int, int, int]:
    return report.added, report.updated, report.unchanged


def stored() -> Credential:
    return Credential.objects.get()


def secrets() -> list[str]:
    return sorted(unseal(row.sealed) for row in Credential.objects.all())


def test_it_works() -> None:
    report = load("first-token\nsso=second-token\n")
    assert counts(report) == (2, 0, 0)
    assert secrets() == ["first-token", "second-token"]
    row = Credential.objects.order_by("pk")[0]
    assert (row.kind, row.status, row.hint, row.created_at) == ("sso", "active", "oken", NOW)
    assert b"first-token" not in bytes(row.sealed)


def test_it_reports_duplicates_and_bad_lines_by_number() -> None:
    report = load("aaa\nb b\nsso=aaa\n\nccc\naaa; x=y\n")
    assert counts(report) == (2, 0, 0)
    assert report.duplicates == [3, 6]
    assert [rejected.number for rejected in report.rejected] == [2]
    assert report.total == 5


def test_a_report_never_holds_a_secret() -> None:
    report = load("planted-secret\nplanted-secret\nplanted secret\nxai-planted-secret-000000\n")
    assert "planted" not in json.dumps(report.as_dict())
    assert "planted" not in repr(report)
    assert report.as_dict()["rejected"][0] == {
        "line": 3,
        "reason": "holds a character that no cookie value may hold",
    }


def test_importing_again_changes_nothing() -> None:
    load("aaa\nbbb\n")
    before = list(Credential.objects.order_by("pk").values())
    assert counts(load("bbb\naaa\n")) == (0, 0, 2)
    assert list(Credential.objects.order_by("pk").values()) == before


def test_a_shorter_file_deletes_nothing() -> None:
    load("aaa\nbbb\n")
    load("ccc\n")
    assert secrets() == ["aaa", "bbb", "ccc"]


def test_it_finds_duplicates_across_batches() -> None:
    report = load("a\nb\nc\na\nd\nb\n", batch_size=2)
    assert counts(report) == (4, 0, 0)
    assert report.duplicates == [4, 6]


def test_progress_is_told_once_per_batch() -> None:
    seen: list[int] = []
    load("a\nb\nc\n", batch_size=2, progress=seen.append)
    assert seen == [2, 3]


def test_a_dry_run_counts_and_writes_nothing() -> None:
    load("aaa\n")
    assert counts(load("aaa\nbbb\nbbb\n", Kind.SSO_SUPER, dry_run=True)) == (1, 1, 0)
    assert secrets() == ["aaa"]
    assert stored().kind == Kind.SSO


def test_broken_json_writes_nothing() -> None:
    with pytest.raises(FormatError):
        load('["aaa", ')
    assert not Credential.objects.exists()


def test_a_session_moves_between_tiers() -> None:
    load("aaa\n")
    before = stored()
    assert counts(load("aaa\n", Kind.SSO_SUPER)) == (0, 1, 0)
    assert stored().kind == Kind.SSO_SUPER
    assert stored().pk == before.pk
    assert stored().updated_at > before.updated_at


def test_an_invalid_credential_supplied_again_becomes_active() -> None:
    load("aaa\n")
    Credential.objects.update(
        status=Status.INVALID, status_reason="401", fail_count=3, resting_until=NOW, use_count=9
    )
    assert counts(load("aaa\n")) == (0, 1, 0)
    row = stored()
    assert (row.status, row.status_reason, row.fail_count) == ("active", "", 0)
    assert (row.resting_until, row.use_count) == (None, 9)


@pytest.mark.parametrize("word", ["invalid", "expired", "disabled"])
def test_it_stays_invalid_when_the_file_says_so_too(word: str) -> None:
    load("aaa\n")
    Credential.objects.update(status=Status.INVALID)
    assert counts(load([{"token": "aaa", "status": word}])) == (0, 0, 1)


@pytest.mark.parametrize("status", [Status.DISABLED, Status.COOLING, Status.ACTIVE])
@pytest.mark.parametrize("word", ["active", "disabled", "expired"])
def test_any_other_status_is_left_alone(status: Status, word: str) -> None:
    load("aaa\n")
    Credential.objects.update(status=status)
    load([{"token": "aaa", "status": word}])
    assert stored().status == status


def test_note_and_tags_change_only_when_given() -> None:
    load([{"token": "aaa", "note": "mine", "tags": ["x"]}])
    assert counts(load("aaa\n")) == (0, 0, 1)
    assert (stored().note, stored().tags) == ("mine", ["x"])
    assert counts(load([{"token": "aaa", "note": "", "tags": ["y"]}])) == (0, 1, 0)
    assert (stored().note, stored().tags) == ("", ["y"])


def test_counters_are_taken_from_the_file_only_when_new() -> None:
    load([{"token": "aaa", "use_count": 7, "fail_count": 2, "last_used_at": MS}])
    row = stored()
    assert (row.use_count, row.fail_count) == (7, 2)
    assert row.last_used_at == datetime.fromtimestamp(MS / 1000, UTC)
    Credential.objects.update(use_count=50)
    load([{"token": "aaa", "use_count": 8}])
    assert stored().use_count == 50


def test_an_old_token_json_keeps_what_it_knew() -> None:
    item = {
        "token": "aaa",
        "status": "expired",
        "quota": 17,
        "heavy_quota": -1,
        "created_at": MS,
        "last_fail_at": MS,
        "last_fail_reason": "boom",
        "last_sync_at": MS,
        "tags": ["t"],
        "note": "заметка 😀",
        "shoe_size": 44,
    }
    load(json.dumps({"ssoSuper": [item]}))
    row = stored()
    then = datetime.fromtimestamp(MS / 1000, UTC)
    assert (row.kind, row.status, row.note) == ("ssoSuper", "invalid", "заметка 😀")
    assert (row.created_at, row.last_failed_at, row.last_fail_reason) == (then, then, "boom")
    assert row.legacy == {"last_sync_at": MS, "shoe_size": 44}
    [quota] = BucketQuota.objects.all()
    assert (quota.credential_id, quota.bucket, quota.remaining) == (row.pk, "*", 17)
    assert (quota.source, quota.measured_at) == ("import", then)


def test_unknown_quota_makes_no_row_and_both_known_make_two() -> None:
    load([{"token": "aaa", "quota": None}, {"token": "bbb", "quota": 0, "heavy_quota": 5}])
    rows = BucketQuota.objects.order_by("bucket").values_list("bucket", "remaining")
    assert list(rows) == [("*", 0), ("heavy", 5)]


def test_imported_quota_is_replaced_by_a_newer_import() -> None:
    load([{"token": "aaa", "quota": 5}])
    assert counts(load([{"token": "aaa", "quota": 6, "heavy_quota": 1}])) == (0, 1, 0)
    rows = BucketQuota.objects.order_by("bucket").values_list("bucket", "remaining")
    assert list(rows) == [("*", 6), ("heavy", 1)]
    assert counts(load([{"token": "aaa", "quota": 6}])) == (0, 0, 1)


def test_measured_quota_is_never_replaced_by_an_import() -> None:
    load([{"token": "aaa", "quota": 5}])
    BucketQuota.objects.update(source=BucketQuota.Source.ESTIMATE, remaining=3)
    assert counts(load([{"token": "aaa", "quota": 80}])) == (0, 0, 1)
    assert BucketQuota.objects.get().remaining == 3


def test_a_twin_cookie_is_stored_and_not_lost_to_a_bare_token() -> None:
    load("aaa\n")
    assert counts(load("sso=aaa; sso-rw=twin\n")) == (0, 1, 0)
    assert secrets() == ["sso=aaa;sso-rw=twin"]
    assert counts(load("sso=aaa; sso-rw=twin\n")) == (0, 0, 1)
    assert counts(load("aaa\n")) == (0, 0, 1)
    assert secrets() == ["sso=aaa;sso-rw=twin"]


def test_unknown_fields_are_merged() -> None:
    load([{"token": "aaa", "one": 1, "two": 2}])
    load([{"token": "aaa", "two": 3}])
    assert stored().legacy == {"one": 1, "two": 3}


def test_different_changes_in_one_batch_stay_apart() -> None:
    load("aaa\nbbb\nccc\n")
    load([{"token": "aaa", "note": "n"}, {"token": "bbb", "tags": ["t"]}, {"token": "ccc"}])
    rows = Credential.objects.order_by("pk").values_list("note", "tags")
    assert list(rows) == [("n", []), ("", ["t"]), ("", [])]


def test_an_update_leaves_columns_it_does_not_change_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load("aaa\n")
    meanwhile(monkeypatch, lambda: Credential.objects.update(use_count=77, note="edited"))
    load("aaa\n", Kind.SSO_SUPER)
    assert (stored().kind, stored().use_count, stored().note) == ("ssoSuper", 77, "edited")


def test_it_looks_again_when_another_import_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, lambda: load("aaa\n"))
    assert counts(load("aaa\nbbb\n")) == (1, 0, 1)
    assert secrets() == ["aaa", "bbb"]


def test_queries_do_not_grow_with_rows(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    items = [{"token": f"token-{n}", "quota": n, "note": f"{n}"} for n in range(20)]
    with django_assert_max_num_queries(10):
        load(items)
    again = [item | {"note": "other", "quota": 99} for item in items]
    with django_assert_max_num_queries(10) as captured:
        load(again)
    assert isinstance(captured, CaptureQueriesContext)


def test_the_lists_of_a_report_are_bounded() -> None:
    report = load("b b\n" * (MAX_LISTED + 5))
    assert len(report.rejected) == MAX_LISTED
    assert report.rejected_count == MAX_LISTED + 5


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something between an import's look at the database and its write, once."""

    def act_first(plan: Plan) -> None:
        monkeypatch.setattr(importing, "write", write)
        action()
        write(plan)

    monkeypatch.setattr(importing, "write", act_first)


@pytest.mark.parametrize("again", ["first-token", "sso=first-token; sso-rw=other-token"])
def test_a_credential_whose_key_was_lost_is_sealed_anew(settings: Any, again: str) -> None:
    load("first-token")
    settings.GROK2API_SECRET_KEYS = ["quite-another-key-" + "k" * 40]

    report = load(again)

    assert counts(report) == (0, 1, 0)
    assert secrets()[0].removeprefix("sso=").startswith("first-token")
    assert stored().sealed_with == key_ids()[0]


def test_every_new_row_names_the_key_that_sealed_it() -> None:
    load([{"token": "aaa"}, {"token": "bbb", "quota": 3}])
    assert set(Credential.objects.values_list("sealed_with", flat=True)) == {key_ids()[0]}


def test_an_import_that_leaves_the_secret_leaves_its_label_too(settings: Any) -> None:
    settings.GROK2API_SECRET_KEYS = [OLDER]
    load("aaa\n")
    settings.GROK2API_SECRET_KEYS = [NEWER, OLDER]
    assert counts(load("aaa\n", Kind.SSO_SUPER)) == (0, 1, 0)
    assert stored().sealed_with == key_id(OLDER)


def test_a_new_secret_is_labelled_even_if_the_label_read_was_the_same(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that still has the keys in their former order writes in between."""
    settings.GROK2API_SECRET_KEYS = [NEWER, OLDER]
    load("aaa\n")

    def with_the_older_key() -> None:
        settings.GROK2API_SECRET_KEYS = [OLDER]
        Credential.objects.update(sealed=seal("aaa"), sealed_with=key_id(OLDER))
        settings.GROK2API_SECRET_KEYS = [NEWER, OLDER]

    meanwhile(monkeypatch, with_the_older_key)
    load("sso=aaa; sso-rw=twin\n")

    settings.GROK2API_SECRET_KEYS = [NEWER]
    assert secrets() == ["sso=aaa;sso-rw=twin"]
    assert stored().sealed_with == key_id(NEWER)


OLDER, NEWER = "older-key-" + "k" * 40, "newer-key-" + "k" * 40
