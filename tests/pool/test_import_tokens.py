"""``manage.py import_tokens``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from pool.models import Credential, Kind

pytestmark = pytest.mark.django_db


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(path: Path | str, *options: str, pool: str = "ssoBasic") -> str:
    out = io.StringIO()
    call_command("import_tokens", str(path), "--pool", pool, *options, stdout=out)
    return out.getvalue()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_text("first-token\nbad token\nfirst-token\nsecond-token\n")
    return path


def test_it_works(tokens: Path) -> None:
    assert run(tokens).splitlines() == [
        "2 added, 0 updated, 0 unchanged, 1 duplicate, 1 rejected",
        "line 2: holds a character that no cookie value may hold",
        "duplicates at line 3",
    ]
    assert Credential.objects.filter(kind=Kind.SSO).count() == 2


@pytest.mark.parametrize("pool", ["sso", "ssoBasic", "ssoSuper"])
def test_it_takes_every_web_pool_name(tokens: Path, pool: str) -> None:
    run(tokens, pool=pool)
    kind = Kind.SSO_SUPER if pool == "ssoSuper" else Kind.SSO
    assert set(Credential.objects.values_list("kind", flat=True)) == {kind}


def test_it_takes_api_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("xai-" + "k" * 40)
    run(path, pool="api")
    assert Credential.objects.get().kind == Kind.API


def test_it_refuses_an_unknown_pool(tokens: Path) -> None:
    with pytest.raises(CommandError):
        run(tokens, pool="other")


def test_it_reports_as_json(tokens: Path) -> None:
    assert json.loads(run(tokens, "--json")) == {
        "unit": "line",
        "added": 2,
        "updated": 0,
        "unchanged": 0,
        "duplicate_count": 1,
        "rejected_count": 1,
        "duplicates": [3],
        "rejected": [
            {"line": 2, "reason": "holds a character that no cookie value may hold"},
        ],
    }


def test_it_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"from-stdin\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("-").startswith("1 added")


def test_a_dry_run_writes_nothing(tokens: Path) -> None:
    assert "Dry run" in run(tokens, "--dry-run")
    assert not Credential.objects.exists()


def test_importing_the_same_again_is_a_success(tokens: Path) -> None:
    run(tokens)
    assert run(tokens).startswith("0 added, 0 updated, 2 unchanged")


@pytest.mark.parametrize("content", ["", "\n# none\n", "bad token\n", "[]"])
def test_it_fails_when_nothing_could_be_imported(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(content)
    with pytest.raises(CommandError) as caught:
        run(path)
    assert caught.value.returncode == 1


def test_it_fails_on_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run(tmp_path / "missing")
    with pytest.raises(CommandError, match="Is a directory"):
        run(tmp_path)


def test_it_fails_on_broken_json_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    path.write_text('["planted-secret"')
    with pytest.raises(CommandError) as caught:
        run(path)
    assert "line 1" in str(caught.value)
    assert "planted" not in str(caught.value)


def test_it_shows_progress_on_a_terminal_only(tokens: Path) -> None:
    for stream, shown in ((Terminal(), "\r4"), (io.StringIO(), "")):
        call_command(
            "import_tokens", str(tokens), "--pool", "sso", stdout=io.StringIO(), stderr=stream
        )
        assert stream.getvalue().strip("\n") == shown


def test_it_says_what_to_do_when_there_are_no_tables(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.introspection, "table_names", list)
    with pytest.raises(CommandError, match="migrate"):
        run(tokens)
