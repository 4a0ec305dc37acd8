"""``manage.py refresh_quota``."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models import F
from django.utils import timezone

from gateway import conf
from gateway.sandbox.serve import SandboxThread
from pool.crypto import seal
from pool.fingerprints import fingerprint
from pool.models import BucketQuota, Credential, Kind, Status
from pool.outcomes import Outcome, Verdict
from tests.pool.workers import WANT, Worker
from tests.serving import ADDRESSES, ROOT, environment, manage, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
RATE_LIMITS = "/rest/rate-limits"


@pytest.fixture(autouse=True)
def upstream(
    transactional_db: None, sandbox: SandboxThread, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SandboxThread]:
    for name in ADDRESSES:
        monkeypatch.setenv(f"GROK2API_{name}", sandbox.url)
    sandbox.state.reset()
    yield sandbox
    sandbox.state.reset()
    conf.live.load(settings.DATA_DIR, {})  # what a process has only one of


def add(token: str, kind: Kind = Kind.SSO, **columns: Any) -> Credential:
    print_of = fingerprint(kind, token)
    return Credential.objects.create(
        kind=kind, sealed=seal(token), fingerprint=print_of, hint=token[-4:], **columns
    )


def spent(credential: Credential, bucket: str = "fast") -> Credential:
    later = timezone.now() + timedelta(hours=5)
    BucketQuota.objects.create(
        credential=credential, bucket=bucket, remaining=0, cooling_until=later
    )
    return credential


def run(*options: str) -> dict[str, Any]:
    """The JSON report of a run that refreshed something."""
    out = io.StringIO()
    call_command("refresh_quota", "--json", *options, stdout=out, stderr=io.StringIO())
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


def row(credential: Credential) -> Credential:
    return Credential.objects.get(pk=credential.pk)


def quotas(credential: Credential) -> dict[str, int | None]:
    return dict(credential.quotas.values_list("bucket", "remaining"))


def asked(sandbox: SandboxThread) -> list[tuple[str, str]]:
    requests = sandbox.state.requests_to(RATE_LIMITS)
    return sorted((request.token, request.json()["modelName"]) for request in requests)


def test_it_measures_the_usual_buckets_of_a_session_that_was_never_measured(
    upstream: SandboxThread,
) -> None:
    credential = add("ok-new")
    report = run()

    assert asked(upstream) == [("ok-new", "auto"), ("ok-new", "fast")]
    assert quotas(credential) == {"auto": 20, "fast": 30}
    found = credential.quotas.get(bucket="fast")
    assert (found.source, found.total) == (BucketQuota.Source.UPSTREAM, 30)
    assert found.resets_at is not None
    assert (report["done"], report["measured"], report["failed"]) == (1, 1, 0)
    assert upstream.state.violations == []


def test_it_asks_for_the_buckets_that_there_are_numbers_of(upstream: SandboxThread) -> None:
    credential = add("ok-super-1", Kind.SSO_SUPER)
    for bucket in ("expert", "image_pro", "*"):
        BucketQuota.objects.create(credential=credential, bucket=bucket, remaining=80)
    run()

    assert asked(upstream) == [("ok-super-1", "expert")]
    assert quotas(credential) == {"expert": 50, "image_pro": 50, "*": 80}


def test_it_frees_what_cools_with_quota_left_in_running_workers_too() -> None:
    credential = spent(add("ok-1"))
    with Worker() as worker:
        assert worker.pool.cooling() == [credential.pk]
        run("--cooling")
        worker.refresh()
        assert worker.pool.cooling() == []
        assert worker.entry(credential).quotas["fast"].remaining == 30
    assert row(credential).quotas.get().cooling_until is None


def test_it_outranks_what_a_worker_has_learnt_and_not_yet_written() -> None:
    credential = add("ok-1")
    BucketQuota.objects.create(credential=credential, bucket="fast", remaining=9)
    with Worker(save_delay=3600) as worker:
        lease = worker.run(worker.pool.lease(WANT))
        limited = Outcome(Verdict.COOL_BUCKET, "made up", retry_after=5000)
        worker.run(worker.pool.settle(lease, limited))
        worker.run(worker.pool.release(lease))
        assert worker.pool.cooling() == [credential.pk]
        run()
        worker.refresh()
        worker.refresh()
        assert worker.entry(credential).quotas["fast"].remaining == 30
        assert worker.pool.cooling() == []
    assert quotas(credential) == {"fast": 30}


def test_it_retires_what_upstream_refuses_and_nothing_else() -> None:
    names = ("expired-1", "blocked-2", "deadcred-3", "ok-4", "challenge-5")
    credentials = {name: add(name) for name in names}
    report = run("--concurrency", "1")

    status = {name: row(credential).status for name, credential in credentials.items()}
    assert status == {
        "expired-1": "invalid", "blocked-2": "invalid", "deadcred-3": "invalid",
        "ok-4": "active", "challenge-5": "active",
    }  # fmt: skip
    assert (report["retired"], report["measured"], report["failed"]) == (3, 1, 1)
    assert report["errors"] == {"SessionRejected": 1}
    assert "CredentialRejected" in row(credentials["expired-1"]).status_reason


def test_running_workers_stop_using_what_it_retired() -> None:
    add("ok-0")
    credential = add("expired-1")
    with Worker() as worker:
        run()
        worker.refresh()
        assert not worker.entry(credential).active


def test_when_everything_is_refused_nothing_is_retired() -> None:
    credentials = [add(f"expired-{number}") for number in range(6)]
    out = io.StringIO()
    with pytest.raises(CommandError, match="Nothing could be refreshed"):
        call_command("refresh_quota", stdout=out, stderr=io.StringIO())

    assert "none was retired" in out.getvalue()
    assert {row(credential).status for credential in credentials} == {"active"}


def test_many_refusals_beside_one_success_retire_all_of_the_refused() -> None:
    credentials = [add(f"expired-{number}") for number in range(8)]
    add("ok-9")
    assert run("--concurrency", "2")["retired"] == 8
    assert {row(credential).status for credential in credentials} == {"invalid"}


def test_only_with_all_are_invalid_ones_asked_and_then_revived(upstream: SandboxThread) -> None:
    alive = add("ok-1", status=Status.INVALID, status_reason="old", fail_count=5)
    dead = add("expired-2", status=Status.INVALID, status_reason="old")
    key = add("xai-ok-3-team-red", Kind.API, team_id="t-red", status=Status.INVALID)
    off = add("ok-4", status=Status.DISABLED)
    assert run()["total"] == 0
    report = run("--all")

    assert (report["total"], report["revived"], report["retired"]) == (3, 2, 1)
    assert [row(one).status for one in (alive, dead, key, off)] == [
        "active", "invalid", "active", "disabled",
    ]  # fmt: skip
    assert (row(alive).status_reason, row(alive).fail_count) == ("", 0)
    assert "ok-4" not in {token for token, _ in asked(upstream)}


def test_cooling_means_at_rest_in_any_way(upstream: SandboxThread) -> None:
    later = timezone.now() + timedelta(hours=1)
    add("ok-resting", resting_until=later)
    spent(add("ok-bucket"))
    imported = add("ok-imported", status=Status.COOLING)
    BucketQuota.objects.create(credential=add("ok-zero"), bucket="fast", remaining=0)
    add("ok-fit", resting_until=timezone.now() - timedelta(hours=1))
    assert run("--cooling")["total"] == 4

    assert {token for token, _ in asked(upstream)} == {
        "ok-resting", "ok-bucket", "ok-imported", "ok-zero",
    }  # fmt: skip
    assert row(imported).status == Status.ACTIVE


def test_kinds_can_be_chosen_and_keys_learn_their_team(upstream: SandboxThread) -> None:
    add("ok-1")
    key = add("xai-ok-2-team-blue", Kind.API)
    report = run("--kind", "api")

    assert (report["total"], report["checked"], report["measured"]) == (1, 1, 0)
    assert row(key).team_id == "t-blue"
    assert asked(upstream) == []


def test_what_the_operator_changed_meanwhile_stays(upstream: SandboxThread) -> None:
    credential = spent(add("ok-1"))

    def disable() -> None:
        Credential.objects.filter(pk=credential.pk).update(
            status=Status.DISABLED, revision=F("revision") + 1
        )
        connections.close_all()

    def disable_and_tell_the_time() -> float:
        admin = threading.Thread(target=disable)
        admin.start()
        admin.join()
        return time.time()

    upstream.state.options.now = disable_and_tell_the_time
    try:
        run()
    finally:
        upstream.state.options.now = time.time
    assert row(credential).status == Status.DISABLED
    assert quotas(credential) == {"fast": 0}


def test_nothing_to_do_is_no_error() -> None:
    assert run("--cooling")["total"] == 0


def test_it_fails_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROK2API_GROK__BASE_URL", "http://127.0.0.1:9")
    credential = spent(add("ok-1"))
    before = row(credential)
    with pytest.raises(CommandError, match="Nothing could be refreshed") as caught:
        call_command("refresh_quota", stdout=io.StringIO(), stderr=io.StringIO())

    assert caught.value.returncode == 1
    assert (row(credential).updated_at, quotas(credential)) == (before.updated_at, {"fast": 0})


def test_it_gives_up_when_upstream_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROK2API_GROK__BASE_URL", "http://127.0.0.1:9")
    for number in range(60):
        add(f"ok-{number}")
    out = io.StringIO()
    with pytest.raises(CommandError, match="the rest was not tried"):
        call_command(
            "refresh_quota", "--json", "--concurrency", "3", stdout=out, stderr=io.StringIO()
        )
    report = json.loads(out.getvalue())
    assert 20 <= report["failed"] <= 26
    assert report["total"] == 60


def test_it_says_what_it_did() -> None:
    add("ok-1")
    add("expired-2")
    add("xai-ok-3", Kind.API)
    out = io.StringIO()
    call_command("refresh_quota", stdout=out, stderr=io.StringIO())
    line = out.getvalue().splitlines()[0]
    assert line.startswith("3 of 3 credentials in ")
    assert line.endswith(
        " s: 1 measured, 1 API keys in order, 1 retired, 0 without a usable answer, 0 failed"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_shows_progress_on_a_terminal_only() -> None:
    add("ok-1")
    for stream, shown in (
        (Terminal(), "\r1/1: 1 measured, 0 retired, 0 failed"),
        (io.StringIO(), ""),
    ):
        call_command("refresh_quota", stdout=io.StringIO(), stderr=stream)
        assert stream.getvalue().startswith(shown)
        assert bool(stream.getvalue()) == bool(shown)


def test_the_bound_on_credentials_at_once_is_checked() -> None:
    for number in ("0", "-1", "10001"):
        with pytest.raises(CommandError, match="must be from 1"):
            call_command("refresh_quota", "--concurrency", number)


def test_it_says_what_to_do_when_there_are_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", list)
    with pytest.raises(CommandError, match="migrate"):
        call_command("refresh_quota")


def test_another_secret_key_is_one_message() -> None:
    credential = add("ok-1")
    Credential.objects.filter(pk=credential.pk).update(sealed=b"sealed by nobody")
    with pytest.raises(CommandError, match="encrypted with another secret key"):
        call_command("refresh_quota")


# A process of its own


def test_ctrl_c_finishes_what_is_under_way_and_writes_it(
    tmp_path: Path, upstream: SandboxThread
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    extra = {f"GROK2API_{name}": upstream.url for name in ADDRESSES}
    manage(data_dir, "migrate", "--verbosity", "0")
    tokens = "\n".join(f"ok-{number}" for number in range(600))
    done = manage(data_dir, "import_tokens", "-", "--pool", "sso", stdin=tokens)
    assert done.returncode == 0, done.stderr

    process = subprocess.Popen(
        [sys.executable, "manage.py", "refresh_quota", "--json", "--concurrency", "2"],
        cwd=ROOT,
        env=environment(data_dir, extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    counters = upstream.state.counters
    assert wait_for(lambda: counters[RATE_LIMITS] >= 50, 30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)

    report = json.loads(out)
    assert process.returncode == 130
    assert f"Interrupted after {report['done']} of 600." in err
    assert "Traceback" not in err
    assert report["interrupted"] is True
    assert 20 <= report["measured"] < 600
    assert counters[RATE_LIMITS] == 2 * report["measured"]  # every question was heard out
    assert upstream.state.disconnects == []
    again = manage(data_dir, "refresh_quota", "--json", "--concurrency", "25", extra=extra)
    assert json.loads(again.stdout)["measured"] == 600
