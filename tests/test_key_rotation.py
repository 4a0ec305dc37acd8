"""Changing the secret key of a real installation: the command and the gateway as processes."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import override_settings

from gateway.sandbox.serve import SandboxThread
from pool.crypto import key_id, unseal
from tests.services import DATABASES, Service, new_database, own_name, query
from tests.serving import ROOT, Served, environment, manage, wait_for

OLD, NEW = "old-Qm9vb3JzZWN1cmUtcmFuZG9tLWtleQ", "new-x8Jb0mK2sVqYt5rHd7wLzPcUeGnFaT"
TOKENS = [f"token-{number}" for number in range(800)]
ROWS = "SELECT sealed, sealed_with FROM pool_credential ORDER BY id"


class Place:
    """An installation with ``TOKENS`` sealed by the old key, on one kind of database."""

    def __init__(self, data_dir: Path, service: Service | None, extra: dict[str, str]) -> None:
        self.data_dir, self._service, self._extra = data_dir, service, extra
        for command in (("migrate",), ("import_tokens", "-", "--pool", "ssoBasic")):
            done = self.manage(OLD, *command, stdin="\n".join(TOKENS))
            assert done.returncode == 0, done.stderr

    def _environment(self, keys: str) -> dict[str, str]:
        return {**self._extra, "GROK2API_SECRET_KEY": keys}

    def manage(self, keys: str, *arguments: str, stdin: str | None = None) -> Any:
        return manage(self.data_dir, *arguments, extra=self._environment(keys), stdin=stdin)

    def begin(self, keys: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment(self.data_dir, self._environment(keys)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self) -> list[tuple[bytes, str]]:
        if self._service is not None:
            found = query(self._service, own_name("rotation"), ROWS)
        else:
            database = sqlite3.connect(self.data_dir / "grok2api.sqlite3", timeout=20)
            found = database.execute(ROWS).fetchall()
            database.close()
        return [(bytes(sealed), label) for sealed, label in found]

    def sealed_with(self, key: str) -> int:
        return sum(label == key_id(key) for _, label in self.rows())

    def secrets(self, *keys: str) -> list[str]:
        with override_settings(GROK2API_SECRET_KEYS=list(keys)):
            return [unseal(sealed) for sealed, _ in self.rows()]


@pytest.fixture(
    params=[None, *DATABASES], ids=lambda service: service.name if service else "SQLite"
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    service: Service | None = request.param
    if service is None:
        yield Place(tmp_path / "data", None, {})
        return
    with new_database(service, "rotation") as extra:
        yield Place(tmp_path / "data", service, extra)


def test_a_killed_rotation_is_gone_on_with_and_loses_nothing(place: Place) -> None:
    both = f"{NEW},{OLD}"
    killed = place.begin(both, "rotate_encryption", "--batch", "2")
    with killed:
        assert wait_for(lambda: place.sealed_with(NEW) > 0, 20)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    done = place.sealed_with(NEW)
    before = place.rows()
    assert 0 < done < len(TOKENS)
    assert done % 2 == 0
    assert place.secrets(NEW, OLD) == TOKENS

    refused = place.manage(NEW, "serve", "--port", "0")
    assert refused.returncode == 1
    assert f"{len(TOKENS) - done} stored credentials were encrypted with" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert place.rows() == before

    finished = place.manage(both, "rotate_encryption", "--json")
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert (report["current"], report["resealed"]) == (done, len(TOKENS) - done)
    assert report["complete"]
    assert place.secrets(NEW) == TOKENS
    assert place.sealed_with(NEW) == len(TOKENS)


def test_two_at_once_share_the_work(place: Place) -> None:
    running = [
        place.begin(f"{NEW},{OLD}", "rotate_encryption", "--json", "--batch", batch)
        for batch in ("50", "70")
    ]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in running]
    reports = []
    for out, problems, code in ended:
        assert (code, problems) == (0, "")
        reports.append(json.loads(out))
    assert sum(report["resealed"] for report in reports) == len(TOKENS)
    assert all(report["complete"] for report in reports)
    assert place.secrets(NEW) == TOKENS


def test_a_gateway_answers_during_it_and_after_it_with_the_new_key_alone(
    tmp_path: Path, sandbox: SandboxThread
) -> None:
    """As an operator does it with ``secret.key``; the admin stays signed in."""
    data_dir = tmp_path / "data"
    file = data_dir / "secret.key"
    extra = {"GROK2API_ADMIN_PASSWORD": "correct horse battery"}
    with Served(data_dir, sandbox, extra=extra) as served:
        key = served.seed(*(f"ok-{number}" for number in range(200)))
        admin = httpx.Client(follow_redirects=True)
        sign_in(admin, served.url)
    old = file.read_text(encoding="utf-8")

    file.write_text(f"{NEW}\n{old}", encoding="utf-8")
    with Served(data_dir, sandbox, extra=extra) as served:
        assert is_signed_in(admin, served.url)
        rotation = subprocess.Popen(
            [sys.executable, "manage.py", "rotate_encryption", "--batch", "1"],
            cwd=ROOT,
            env=environment(data_dir, served.extra),
            stdout=subprocess.PIPE,
            text=True,
        )
        statuses = []
        with rotation:
            while rotation.poll() is None:
                statuses.append(served.ask(key).status_code)
            assert rotation.stdout is not None
            assert "may now be removed" in rotation.stdout.read()
        statuses += [served.ask(key).status_code for _ in range(20)]
        assert set(statuses) == {200}
        assert len(statuses) > 25
        assert "cannot be opened" not in served.output

    file.write_text(f"{NEW}\n", encoding="utf-8")
    with Served(data_dir, sandbox, extra=extra) as served:
        assert {served.ask(key).status_code for _ in range(20)} == {200}
        assert is_signed_in(admin, served.url)
        assert "cannot be opened" not in served.output
    admin.close()


def sign_in(client: httpx.Client, url: str) -> None:
    page = f"{url}/admin/login/?next=/admin/"
    client.get(page)
    form = {"username": "admin", "password": "correct horse battery"}
    answer = client.post(page, data=form | {"csrfmiddlewaretoken": client.cookies["csrftoken"]})
    assert answer.url.path == "/admin/", answer.text


def is_signed_in(client: httpx.Client, url: str) -> bool:
    answer = client.get(f"{url}/admin/")
    return answer.status_code == 200 and answer.url.path == "/admin/"
