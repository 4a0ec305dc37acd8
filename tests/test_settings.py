"""Django's settings as a process of its own makes them from its environment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import POSTGRES, REDIS
from tests.serving import ROOT, environment, manage

PRINT = """
import json, sys
sys.argv = json.loads(sys.argv[1])
from grok2api import settings
names = json.loads(sys.stdin.read())
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""


def settings_of(
    tmp_path: Path, *names: str, argv: tuple[str, ...] = ("manage.py", "serve"), **env: str
) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PRINT, json.dumps(argv)],
        cwd=ROOT,
        env={k: v for k, v in environment(tmp_path / "data", env).items() if v},
        input=json.dumps(names),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_any_variable_everything_is_local(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path, "DATABASES", "CACHES", "CHANNEL_LAYERS", "DEBUG", "TIME_ZONE", "LOG_LEVEL",
        "DATA_DIR", "ALLOWED_HOSTS", "SESSION_COOKIE_SECURE", "GROK2API_SECRET_KEYS",
    )  # fmt: skip
    assert found["DATABASES"]["default"]["NAME"] == str(tmp_path / "data/grok2api.sqlite3")
    assert "locmem" in found["CACHES"]["default"]["BACKEND"]
    assert "InMemory" in found["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert (found["DEBUG"], found["SESSION_COOKIE_SECURE"]) == (False, False)
    assert (found["TIME_ZONE"], found["LOG_LEVEL"]) == ("UTC", "INFO")
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    kept = (tmp_path / "data/secret.key").read_text(encoding="utf-8").split()
    assert found["GROK2API_SECRET_KEYS"] == kept


def test_a_database_server_and_redis_are_taken_from_their_addresses(tmp_path: Path) -> None:
    POSTGRES.need_driver()
    REDIS.need_driver()
    found = settings_of(
        tmp_path, "DATABASES", "CACHES", "CHANNEL_LAYERS",
        SERVER_STORAGE_TYPE=" PgSQL ",
        SERVER_STORAGE_URL="postgresql+asyncpg://me:p%40ss@db:5433/grok",
        REDIS_URL="redis://cache:6379/3",
    )  # fmt: skip
    chosen = found["DATABASES"]["default"]
    assert chosen["ENGINE"] == "django.db.backends.postgresql"
    assert (chosen["HOST"], chosen["PORT"], chosen["PASSWORD"]) == ("db", "5433", "p@ss")
    assert found["CACHES"]["default"]["LOCATION"] == "redis://cache:6379/3"
    layer = found["CHANNEL_LAYERS"]["default"]
    assert layer["CONFIG"]["hosts"] == ["redis://cache:6379/3"]


def test_redis_as_the_storage_serves_what_workers_share(tmp_path: Path) -> None:
    REDIS.need_driver()
    found = settings_of(
        tmp_path, "DATABASES", "REDIS_URL",
        SERVER_STORAGE_TYPE="redis", SERVER_STORAGE_URL="redis://cache:6379/0",
    )  # fmt: skip
    assert found["REDIS_URL"] == "redis://cache:6379/0"
    assert "sqlite3" in found["DATABASES"]["default"]["ENGINE"]


def test_given_secrets_are_used_instead_of_files(tmp_path: Path) -> None:
    key, older, pepper = "n" * 20 + "ew" * 10, "o" * 20 + "ld" * 10, "p" * 20 + "ep" * 10
    found = settings_of(
        tmp_path, "GROK2API_SECRET_KEYS", "GROK2API_PEPPER", "SECRET_KEY", "SECRET_KEY_FALLBACKS",
        GROK2API_SECRET_KEY=f"{key}, {older}", GROK2API_PEPPER=pepper,
    )  # fmt: skip
    assert found["GROK2API_SECRET_KEYS"] == [key, older]
    assert found["GROK2API_PEPPER"] == pepper
    assert not (tmp_path / "data").exists()
    # Django signs with something derived, so that no signature is made with the sealing key.
    assert found["SECRET_KEY"] not in {key, older}
    assert len(found["SECRET_KEY_FALLBACKS"]) == 1


def test_https_hardens_cookies_and_redirects(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT")
    found = settings_of(tmp_path, *names, "SECURE_HSTS_SECONDS", GROK2API_HTTPS="true")
    assert all(found[name] for name in names)
    assert found["SECURE_HSTS_SECONDS"] > 0


@pytest.mark.parametrize(("level", "used"), [("debug", "DEBUG"), ("loud", "INFO"), ("", "INFO")])
def test_an_unknown_log_level_is_info(tmp_path: Path, level: str, used: str) -> None:
    assert settings_of(tmp_path, "LOG_LEVEL", LOG_LEVEL=level)["LOG_LEVEL"] == used


def test_the_demo_has_a_data_directory_of_its_own(tmp_path: Path) -> None:
    where = {"GROK2API_DATA_DIR": "", "GROK2API_SECRET_KEY": "x" * 40, "GROK2API_PEPPER": "y" * 40}
    demo = settings_of(tmp_path, "DATA_DIR", argv=("manage.py", "demo"), **where)
    other = settings_of(tmp_path, "DATA_DIR", argv=("manage.py", "serve"), **where)
    assert demo["DATA_DIR"] == str(ROOT.resolve() / "data" / "demo")
    assert other["DATA_DIR"] == str(ROOT.resolve() / "data")


def test_an_interrupt_while_it_starts_is_no_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "migrate", "--verbosity", "3"],
        cwd=ROOT,
        env=environment(tmp_path / "data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == ""


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SERVER_STORAGE_TYPE": "oracle"}, "SERVER_STORAGE_TYPE: 'oracle' is not one of"),
        ({"SERVER_STORAGE_TYPE": "redis"}, "SERVER_STORAGE_URL: redis needs redis://"),
        ({"GROK2API_DEBUG": "perhaps"}, "GROK2API_DEBUG: 'perhaps' is neither true nor false"),
        ({"GROK2API_PEPPER_FILE": "/nowhere/pepper"}, "GROK2API_PEPPER_FILE: cannot read"),
        ({"SERVER_PORT": "eighty"}, "SERVER_PORT: 'eighty' is not a whole number"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(
    tmp_path: Path, env: dict[str, str], message: str
) -> None:
    done = manage(tmp_path / "data", "serve", extra=env)
    assert done.returncode != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
