"""Sealing everything anew: what becomes of each row, whatever happens in between."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.test import Client, override_settings
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from pool import roster
from pool.checks import verify_secret_key
from pool.crypto import WrongKey, key_id, key_ids, seal, unseal
from pool.fingerprints import fingerprint
from pool.forms import CredentialAddForm
from pool.importing import import_credentials
from pool.leases import Lane, Want
from pool.management.commands.rotate_encryption import progress_line
from pool.models import BucketQuota, Credential, Kind
from pool.outcomes import SUCCESS, Outcome, Verdict
from pool.rotation import RotationReport, batches, open_stale, reseal, rotate
from tests.pool.samples import make_pool
from tests.pool.test_import_tokens import Terminal

OLD, NEW = "old-Qm9vb3JzZWN1cmUtcmFuZG9tLWtleQ", "new-x8Jb0mK2sVqYt5rHd7wLzPcUeGnFaT"
OLDER, LOST = "older-aP0Sg4Fd6Jh2Lc8Yw5Rm7Nb1Tx9Qv", "lost-Zk3vQ9xT1bN7mR5wY8cL2hJ6dF4gS"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WANT = Want((Lane("sso", "fast"),), "grok-4")


def keys(*configured: str) -> Any:
    return override_settings(GROK2API_SECRET_KEYS=list(configured))


def load(*tokens: str) -> None:
    import_credentials("\n".join(tokens), Kind.SSO, now=NOW)


def secrets() -> list[str]:
    return [unseal(row.sealed) for row in Credential.objects.order_by("pk")]


def labels() -> set[str]:
    return set(Credential.objects.values_list("sealed_with", flat=True))


def run(*options: str, **streams: Any) -> str:
    out = io.StringIO()
    call_command("rotate_encryption", *options, stdout=out, **streams)
    return out.getvalue()


@contextmanager
def before_the_first_write(action: Callable[[], object]) -> Iterator[None]:
    """Do something between a rotation's look at a row and its write, once."""
    waiting = [action]

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and waiting:
            waiting.pop()()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield


@pytest.mark.django_db
def test_it_works() -> None:
    with keys(OLD):
        load("aaa", "bbb", "sso=ccc; sso-rw=twin")
    with keys(NEW, OLD):
        report = rotate()
        assert (report.resealed, report.current, report.left) == (3, 0, 0)
        assert report.is_complete
        assert rotate().current == 3
    with keys(NEW):
        verify_secret_key()
        assert secrets() == ["aaa", "bbb", "sso=ccc;sso-rw=twin"]
        assert labels() == {key_id(NEW)}


@pytest.mark.django_db
def test_an_empty_pool_is_complete() -> None:
    assert rotate().is_complete


@pytest.mark.django_db
def test_nothing_but_the_secret_its_label_and_the_time_of_change_is_touched() -> None:
    with keys(OLD):
        import_credentials(
            json.dumps(
                [{"token": "aaa", "quota": 5, "note": "mine", "tags": ["t"], "use_count": 7}]
            ),
            Kind.SSO,
            now=NOW,
        )
    Credential.objects.update(revision=41, resting_until=NOW, fail_count=2, updated_at=NOW)
    before: dict[str, Any] = {**Credential.objects.values().get()}
    quotas = list(BucketQuota.objects.values())
    with keys(NEW, OLD):
        rotate()
    after: dict[str, Any] = {**Credential.objects.values().get()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"sealed", "sealed_with", "updated_at"}
    assert after["updated_at"] > before["updated_at"]
    assert list(BucketQuota.objects.values()) == quotas


@pytest.mark.django_db
def test_rows_from_before_the_labels_get_one() -> None:
    with keys(NEW, OLD):
        load("aaa")
        Credential.objects.update(sealed_with="")
        assert rotate().resealed == 1
        assert labels() == {key_id(NEW)}


@pytest.mark.django_db
def test_a_label_that_claims_the_current_key_is_not_believed() -> None:
    with keys(OLD):
        load("aaa")
    with keys(NEW, OLD):
        Credential.objects.update(sealed_with=key_id(NEW))
        assert rotate().resealed == 1
    with keys(NEW):
        assert secrets() == ["aaa"]


@pytest.mark.django_db
def test_what_no_key_opens_is_counted_named_and_left() -> None:
    with keys(LOST):
        load("lost-token")
    with keys(NEW):
        load("claims-new")
        Credential.objects.filter(sealed_with=key_id(NEW)).update(sealed=b"")
    with keys(OLD):
        load("good-token")
    before = list(Credential.objects.order_by("pk").values()[:2])
    with keys(NEW, OLD):
        report = rotate()
        assert report.unopenable_count == 2
        assert report.unopenable == [(row["id"], row["hint"]) for row in before]
        assert (report.resealed, report.left, report.is_complete) == (1, 1, False)
        assert list(Credential.objects.order_by("pk").values()[:2]) == before
    with keys(NEW, OLD, LOST):
        assert rotate().unopenable_count == 1  # one comes back with its key


@pytest.mark.django_db
def test_it_is_not_complete_while_a_row_only_claims_the_current_key() -> None:
    with keys(NEW):
        load("aaa")
        Credential.objects.update(sealed=b"rubbish")
        report = rotate()
    assert (report.left, report.unopenable_count, report.is_complete) == (0, 1, False)


@pytest.mark.django_db
def test_a_dry_run_counts_and_writes_nothing() -> None:
    with keys(OLD):
        load("aaa", "bbb")
    before = list(Credential.objects.values())
    with keys(NEW, OLD):
        report = rotate(dry_run=True)
    assert (report.resealed, report.left, report.is_complete) == (2, 2, False)
    assert list(Credential.objects.values()) == before


@pytest.mark.django_db
def test_a_secret_that_is_supplied_meanwhile_wins() -> None:
    with keys(OLD):
        load("aaa", "bbb")
    with keys(NEW, OLD), before_the_first_write(lambda: load("sso=aaa; sso-rw=twin")):
        report = rotate()
    assert (report.resealed, report.current, report.is_complete) == (1, 1, True)
    with keys(NEW):
        assert secrets() == ["sso=aaa;sso-rw=twin", "bbb"]


@pytest.mark.django_db
def test_a_secret_that_is_supplied_with_the_former_order_of_keys_is_sealed_anew_at_once() -> None:
    """Its writer has not been started again yet."""
    with keys(OLD):
        load("aaa")

    def from_elsewhere() -> None:
        with keys(OLD):
            load("sso=aaa; sso-rw=twin")

    with keys(NEW, OLD), before_the_first_write(from_elsewhere):
        assert rotate().resealed == 1
    with keys(NEW):
        assert secrets() == ["sso=aaa;sso-rw=twin"]


@pytest.mark.django_db
def test_what_is_added_behind_its_back_is_noticed_in_the_end() -> None:
    with keys(OLD):
        load("aaa")

    def add(seen: int, total: int) -> None:
        """A row whose id comes before those that were looked at."""
        with keys(OLD):
            first = Credential.objects.order_by("pk")[0].pk
            Credential.objects.create(
                pk=first - 1, kind=Kind.SSO, sealed=seal("late"), sealed_with=key_ids()[0],
                fingerprint=fingerprint(Kind.SSO, "late"),
            )  # fmt: skip

    Credential.objects.filter(sealed_with=key_id(OLD)).update(id=900)
    with keys(NEW, OLD):
        report = rotate(progress=add)
        assert (report.left, report.is_complete) == (1, False)
        assert rotate().is_complete


@pytest.mark.django_db
def test_a_credential_that_is_deleted_meanwhile_stays_deleted() -> None:
    with keys(OLD):
        load("aaa", "bbb")
    with keys(NEW, OLD):
        report = RotationReport()
        [rows] = batches(10)
        stale = open_stale(rows, report)
        Credential.objects.filter(pk=rows[0].id).delete()
        assert reseal(stale, report) == [rows[0].id]
        assert rotate().is_complete
        assert secrets() == ["bbb"]


@pytest.mark.django_db
def test_rows_and_reports_do_not_show_secrets() -> None:
    load("planted-secret")
    [rows] = batches(10)
    assert "gAAAA" not in repr(rows)
    assert "planted" not in repr(rotate())


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_no_row_while_it_holds_others() -> None:
    """An import holds the second row and wants the first: waiting would be a deadlock."""
    if not connection.features.has_select_for_update_skip_locked:
        pytest.skip(f"{connection.display_name} locks no single rows")
    with keys(OLD):
        load("aaa", "bbb", "ccc")
    held, looked = threading.Event(), threading.Event()
    order: list[str] = []

    def import_slowly() -> None:
        first, second, _ = Credential.objects.order_by("pk").values_list("pk", flat=True)
        with transaction.atomic():
            Credential.objects.filter(pk=second).update(note="held")
            held.set()
            assert looked.wait(10)
            Credential.objects.filter(pk=first).update(note="wanted")
            order.append("import")
        connection.close()

    def show(seen: int, total: int) -> None:
        order.append("batch")
        looked.set()

    thread = threading.Thread(target=import_slowly)
    thread.start()
    assert held.wait(10)
    with keys(NEW, OLD):
        report = rotate(progress=show)
    thread.join(10)
    assert order == ["batch", "import"]
    assert (report.resealed, report.is_complete) == (3, True)
    assert list(Credential.objects.order_by("pk").values_list("note", flat=True)) == [
        "wanted", "held", "",
    ]  # fmt: skip


class Stopped(Exception):
    pass


RING = [OLDER, OLD, NEW]
LABELS = ["right", "", *map(key_id, RING)]


@pytest.mark.django_db
@limits(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(RING), st.sampled_from(LABELS)), max_size=12),
    stops=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from(RING))),
    last=st.sampled_from(RING),
)
def test_whatever_was_interrupted_a_last_run_leaves_one_key_that_opens_all(
    rows: list[tuple[str, str]], stops: list[tuple[int, int, str]], last: str
) -> None:
    Credential.objects.all().delete()
    for number, (key, label) in enumerate(rows):
        with keys(key):
            Credential.objects.create(
                kind=Kind.SSO,
                fingerprint=fingerprint(Kind.SSO, f"token-{number}"),
                sealed=seal(f"token-{number}"),
                sealed_with=key_id(key) if label == "right" else label,
            )
    for size, allowed, first in stops:
        with keys(first, *RING), suppress(Stopped):
            rotate(batch_size=size, progress=_stop_after(size * allowed))
        with keys(*RING):
            assert secrets() == [f"token-{number}" for number in range(len(rows))]
    with keys(last, *RING):
        assert rotate(batch_size=3).is_complete
    with keys(last):
        verify_secret_key()
        assert secrets() == [f"token-{number}" for number in range(len(rows))]
        assert labels() <= {key_id(last)}


def _stop_after(rows: int) -> Callable[[int, int], None]:
    def stop(seen: int, total: int) -> None:
        if seen >= rows:
            raise Stopped

    return stop


@pytest.mark.django_db
def test_a_worker_goes_on_with_a_lease_that_was_open_during_it() -> None:
    """The sealed form that it re-reads is another, the secret is the same."""
    with keys(OLD):
        load("aaa")
    with keys(NEW, OLD), asyncio.Runner() as loop:
        [entry] = roster.load().entries
        pool = make_pool(entry, unseal=unseal)
        lease = loop.run(pool.lease(WANT))

        rotate()
        [fresh] = roster.load().entries
        assert fresh.stamp != entry.stamp
        pool.update(entry, fresh)

        loop.run(pool.settle(lease, SUCCESS))
        loop.run(pool.release(lease))
        assert (pool.open_leases, entry.in_flight, entry.pending_uses) == (0, 0, 1)
        assert loop.run(pool.lease(WANT)).secret == lease.secret == "aaa"


@pytest.mark.django_db
def test_a_penalty_holds_though_the_credential_was_sealed_anew_meanwhile() -> None:
    with keys(OLD):
        load("aaa")
    with keys(NEW, OLD), asyncio.Runner() as loop:
        [entry] = roster.load().entries
        pool = make_pool(entry, unseal=unseal)
        lease = loop.run(pool.lease(WANT))

        rotate()
        [fresh] = roster.load().entries
        pool.update(entry, fresh)
        loop.run(pool.settle(lease, Outcome(Verdict.RETIRE, "401")))

        assert not entry.active


@pytest.mark.django_db
def test_the_admin_form_labels_what_it_seals() -> None:
    form = CredentialAddForm({"kind": "sso", "secret": "from-the-form", "tags": "", "note": ""})
    with keys(NEW, OLD):
        assert form.is_valid(), form.errors
        form.save()
        assert labels() == {key_id(NEW)}
    with keys(NEW):
        assert secrets() == ["from-the-form"]


def django_keys(*configured: str) -> Any:
    """What the settings derive from the secret keys, without deriving it."""
    first, *others = configured
    return override_settings(
        SECRET_KEY=f"of {first}", SECRET_KEY_FALLBACKS=[f"of {o}" for o in others]
    )


@pytest.mark.django_db
def test_a_session_that_is_used_while_both_keys_are_there_outlives_the_older(
    django_user_model: Any,
) -> None:
    user = django_user_model.objects.create_superuser("boss", "", "correct horse")
    used, idle = Client(), Client()
    with django_keys(OLD):
        used.force_login(user)
        idle.force_login(user)
    with django_keys(NEW, OLD):
        assert used.get("/admin/").status_code == 200
    with django_keys(NEW):
        assert used.get("/admin/").status_code == 200
        assert idle.get("/admin/").status_code == 302  # signs in again, and that is all


@pytest.mark.django_db
def test_the_command_says_when_the_older_keys_may_go_and_not_before() -> None:
    with keys(OLD):
        load("aaa", "bbb")
    with keys(NEW, OLD):
        dry = run("--dry-run")
        assert dry.startswith("2 encrypted anew, 0 already with the current key, 0 that no key")
        assert "Dry run: nothing was written." in dry
        assert "may now be removed" not in dry
        assert "the older keys may now be removed" in run()
        assert "the older keys may now be removed" in run("--dry-run")
    with keys(NEW):
        assert run().splitlines() == [
            "0 encrypted anew, 2 already with the current key, 0 that no key opens"
        ]


@pytest.mark.django_db
def test_the_command_fails_on_what_no_key_opens() -> None:
    with keys(LOST):
        load("first-token")
    number = Credential.objects.get().pk
    out = io.StringIO()
    with keys(NEW, OLD), pytest.raises(CommandError, match="Remove no key yet") as failed:
        call_command("rotate_encryption", stdout=out)
    assert failed.value.returncode == 1
    assert f"credential {number} (…oken)" in out.getvalue()
    assert "may now be removed" not in out.getvalue()


@pytest.mark.django_db
def test_the_command_names_only_some_of_many() -> None:
    with keys(LOST):
        load(*(f"token-number-{n}" for n in range(25)))
    out = io.StringIO()
    with keys(NEW), pytest.raises(CommandError):
        call_command("rotate_encryption", stdout=out)
    assert out.getvalue().count("credential ") == 20
    assert out.getvalue().endswith("…\n")


@pytest.mark.django_db
def test_the_command_fails_when_the_older_key_is_still_used_elsewhere() -> None:
    with keys(OLD):
        load("aaa")
    Credential.objects.update(id=900)

    def from_elsewhere() -> None:
        with keys(OLD):
            Credential.objects.create(
                pk=800, kind=Kind.SSO, sealed=seal("late"), sealed_with=key_ids()[0],
                fingerprint=fingerprint(Kind.SSO, "late"),
            )  # fmt: skip

    with keys(NEW, OLD), before_the_first_write(from_elsewhere):
        with pytest.raises(CommandError, match="1 credentials were encrypted with an older key"):
            run()
        assert "may now be removed" in run()


@pytest.mark.django_db
def test_the_command_reports_as_json() -> None:
    with keys(OLD):
        load("aaa")
    with keys(NEW, OLD):
        assert json.loads(run("--json")) == {
            "complete": True,
            "current": 0,
            "resealed": 1,
            "unopenable_count": 0,
            "unopenable": [],
            "left": 0,
        }


@pytest.mark.django_db
def test_the_command_shows_progress_on_a_terminal_only() -> None:
    load("aaa", "bbb", "ccc")
    for stream, shown in ((Terminal(), ["2/3", "3/3"]), (io.StringIO(), [])):
        run("--batch", "2", stderr=stream)
        assert [part.split()[0] for part in stream.getvalue().split("\r")[1:]] == shown


def test_progress_has_a_share_and_a_rate() -> None:
    assert progress_line(500, 2000, 0.25) == "500/2000  25%     2000/s"
    assert progress_line(1, 1, 0.0) == "1/1 100%        0/s"


@pytest.mark.parametrize("size", ["0", "-1", "5001", "many"])
def test_the_command_refuses_a_batch_of_no_size(size: str) -> None:
    with pytest.raises(CommandError, match="a number from 1 to 5000"):
        run(f"--batch={size}")


@pytest.mark.django_db
def test_the_command_says_what_to_do_when_there_are_no_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", list)
    with pytest.raises(CommandError, match="migrate"):
        run()


@pytest.mark.django_db
def test_the_command_fails_in_one_line_when_the_database_does() -> None:
    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "pool_credential" in sql:
            raise OperationalError("gone away")
        return execute(sql, params, many, context)

    with (
        connection.execute_wrapper(away),
        pytest.raises(CommandError, match=r"gone away\. Run this again"),
    ):
        run()


@pytest.mark.django_db
def test_a_key_that_is_removed_too_early_costs_nothing() -> None:
    with keys(OLD):
        load("aaa", "bbb", "ccc")
    with keys(NEW, OLD), suppress(Stopped):
        rotate(batch_size=1, progress=_stop_after(1))
    before = list(Credential.objects.values())
    with keys(NEW):
        with pytest.raises(WrongKey, match=r"^2 stored credentials"):
            verify_secret_key()
        with pytest.raises(CommandError):
            run()
    assert list(Credential.objects.values()) == before
    with keys(NEW, OLD):
        verify_secret_key()
        assert secrets() == ["aaa", "bbb", "ccc"]
        assert rotate().is_complete
