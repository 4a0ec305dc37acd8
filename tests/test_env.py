"""Process settings: what is accepted, and that each mistake names its variable."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from grok2api.env import (
    SQLITE_OPTIONS,
    BadEnvironment,
    database,
    env_bool,
    env_int,
    env_list,
    env_secret,
    kept_secret,
    need_drivers,
    redis_url,
    time_zone,
)

DATA = Path("data")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), (" YES ", True), ("On", True),
     ("0", False), ("false", False), ("no", False), ("OFF", False), ("", False)],
)  # fmt: skip
@pytest.mark.parametrize("default", [True, False])
def test_a_truth_value_is_read_in_every_spelling(text: str, value: bool, default: bool) -> None:
    assert env_bool("X", default, {"X": text}) is value
    assert env_bool("X", default, {}) is default


def test_a_word_that_is_no_truth_value_is_named() -> None:
    with pytest.raises(BadEnvironment, match="X: 'maybe' is neither true nor false"):
        env_bool("X", False, {"X": "maybe"})


@pytest.mark.parametrize(("text", "value"), [("42", 42), (" 7 ", 7), ("-1", -1), ("", 5), (" ", 5)])
def test_a_whole_number_is_read_and_nothing_means_the_default(text: str, value: int) -> None:
    assert env_int("X", 5, {"X": text}) == value
    assert env_int("X", 5, {}) == 5


@pytest.mark.parametrize("text", ["4.5", "ten", "0x10"])
def test_what_is_no_whole_number_is_named(text: str) -> None:
    with pytest.raises(BadEnvironment, match=f"X: '{text}' is not a whole number"):
        env_int("X", 5, {"X": text})


@pytest.mark.parametrize(
    ("text", "value"), [("a", ["a"]), (" a , b,,", ["a", "b"]), ("", []), (" , ", [])]
)
def test_a_list_is_separated_by_commas(text: str, value: list[str]) -> None:
    assert env_list("X", ["default"], {"X": text}) == value
    assert env_list("X", ["default"], {}) == ["default"]


def test_a_secret_comes_from_the_variable_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("  from the file\n", encoding="utf-8")
    assert env_secret("X", {}) == ""
    assert env_secret("X", {"X": "plain"}) == "plain"
    assert env_secret("X", {"X_FILE": str(file), "X": "plain"}) == "from the file"
    assert env_secret("X", {"X_FILE": "", "X": "plain"}) == "plain"


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadEnvironment, match=r"X_FILE: cannot read .*absent: No such file"):
        env_secret("X", {"X_FILE": str(tmp_path / "absent")})


def test_a_kept_secret_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data" / "secret.key"
    (made,) = kept_secret(path)
    assert len(made) >= 48
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert kept_secret(path) == [made]
    assert kept_secret(tmp_path / "other.key") != [made]


def test_a_kept_secret_may_hold_older_ones_below(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("\n new \n\nold\n", encoding="utf-8")
    assert kept_secret(path) == ["new", "old"]


def test_processes_that_start_together_share_one_secret(tmp_path: Path) -> None:
    path, found = tmp_path / "secret.key", list[str]()
    threads = [threading.Thread(target=lambda: found.extend(kept_secret(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_an_emptied_secret_is_not_replaced_silently(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.touch()
    with pytest.raises(BadEnvironment, match=r"secret\.key is empty; restore it from a backup"):
        kept_secret(path)
    assert path.read_bytes() == b""


def test_a_secret_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadEnvironment, match=r"secret\.key cannot be used: it is not text"):
        kept_secret(path)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadEnvironment, match=r"cannot be used: (Not a directory|File exists)"):
        kept_secret(tmp_path / "file" / "secret.key")


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_records_are_in_the_data_directory_unless_a_database_is_named(kind: str) -> None:
    found = database(kind, "redis://127.0.0.1/0", DATA)
    assert found["ENGINE"] == "django.db.backends.sqlite3"
    assert found["NAME"] == os.path.join("data", "grok2api.sqlite3")  # noqa: PTH118
    assert found["OPTIONS"] == SQLITE_OPTIONS
    assert found["OPTIONS"] is not SQLITE_OPTIONS


@pytest.mark.parametrize(
    ("kind", "scheme", "engine"),
    [
        ("pgsql", "postgresql", "postgresql"),
        ("pgsql", "postgres", "postgresql"),
        ("pgsql", "postgresql+asyncpg", "postgresql"),
        ("pgsql", "postgresql+psycopg2", "postgresql"),
        ("pgsql", "PostgreSQL+asyncpg", "postgresql"),
        ("mysql", "mysql", "mysql"),
        ("mysql", "mariadb", "mysql"),
        ("mysql", "mysql+aiomysql", "mysql"),
        ("mysql", "mariadb+asyncmy", "mysql"),
    ],
)
def test_a_database_address_may_name_a_driver(kind: str, scheme: str, engine: str) -> None:
    found = database(kind, f"{scheme}://me:pass@db.example:7777/grok", DATA)
    assert found["ENGINE"] == f"django.db.backends.{engine}"
    assert [found[part] for part in ("USER", "PASSWORD", "HOST", "PORT", "NAME")] == [
        "me", "pass", "db.example", "7777", "grok",
    ]  # fmt: skip


def test_a_database_address_is_unquoted_part_by_part() -> None:
    found = database("pgsql", "postgresql://m%40e:p%2Fa%3As%23s@[::1]/my%20db", DATA)
    assert (found["USER"], found["PASSWORD"]) == ("m@e", "p/a:s#s")
    assert (found["HOST"], found["PORT"], found["NAME"]) == ("::1", "", "my db")


def test_a_database_address_needs_no_more_than_a_name() -> None:
    found = database("pgsql", "postgresql:///grok", DATA)
    assert [found[part] for part in ("USER", "PASSWORD", "HOST", "PORT")] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("kind", "query", "options"),
    [
        ("pgsql", "", {}),
        ("pgsql", "sslmode=verify-full&connect_timeout=5",
         {"sslmode": "verify-full", "connect_timeout": "5"}),
        ("pgsql", "ssl=require", {"sslmode": "require"}),
        ("pgsql", "ssl=true", {"sslmode": "require"}),
        ("pgsql", "ssl=true&sslmode=verify-ca", {"sslmode": "verify-ca"}),
        ("mysql", "", {}),
        ("mysql", "charset=utf8&connect_timeout=5", {"charset": "utf8", "connect_timeout": 5}),
        ("mysql", "ssl=true", {"ssl_mode": "REQUIRED"}),
        ("mysql", "ssl=false", {}),
    ],
)  # fmt: skip
def test_the_query_of_an_address_goes_to_the_driver(
    kind: str, query: str, options: dict[str, Any]
) -> None:
    scheme = "postgresql" if kind == "pgsql" else "mysql"
    usual = {} if kind == "pgsql" else {"charset": "utf8mb4", "isolation_level": "read committed"}
    found = database(kind, f"{scheme}://h/db?{query}", DATA)
    assert found["OPTIONS"] == usual | options


@pytest.mark.parametrize(
    ("kind", "url", "message"),
    [
        ("sqlite", "", "SERVER_STORAGE_TYPE: 'sqlite' is not one of local, pgsql, mysql, redis"),
        ("pgsql", "", "SERVER_STORAGE_URL: pgsql needs postgresql://user:password@host:port"),
        ("pgsql", "mysql://h/db", "SERVER_STORAGE_URL: pgsql needs postgresql://"),
        ("mysql", "postgresql://h/db", "SERVER_STORAGE_URL: mysql needs mysql://"),
        ("mysql", "mysql://h", "SERVER_STORAGE_URL: mysql needs mysql://"),
        ("pgsql", "postgresql://h/", "SERVER_STORAGE_URL: pgsql needs postgresql://"),
        ("pgsql", "postgresql://me:pass@h:port/db", "SERVER_STORAGE_URL: the port is not a number"),
        ("pgsql", "postgresql://me:pass@h:70000/db", "SERVER_STORAGE_URL: the port is not a"),
    ],
)
def test_a_database_that_cannot_be_meant_is_refused_without_showing_the_password(
    kind: str, url: str, message: str
) -> None:
    with pytest.raises(BadEnvironment) as refused:
        database(kind, url, DATA)
    assert str(refused.value).startswith(message)
    assert "me:pass" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "redis", "message"),
    [
        ("pgsql", "", r"SERVER_STORAGE_TYPE needs a driver: .*grok2api\[postgres\]"),
        ("mysql", "", r"SERVER_STORAGE_TYPE needs a driver: .*grok2api\[mysql\]"),
        ("local", "redis://a", r"REDIS_URL needs a driver: .*grok2api\[redis\]"),
    ],
)
def test_a_driver_that_is_not_installed_is_named(kind: str, redis: str, message: str) -> None:
    with pytest.raises(BadEnvironment, match=message):
        need_drivers(kind, redis, lambda module: None)
    need_drivers(kind, redis, lambda module: module)


def test_the_default_install_needs_no_driver() -> None:
    need_drivers("local", "", lambda module: None)


@pytest.mark.parametrize(
    ("kind", "storage", "url", "found"),
    [
        ("local", "", "", ""),
        ("local", "redis://a", "", ""),
        ("pgsql", "postgresql://h/db", "", ""),
        ("pgsql", "postgresql://h/db", "redis://b", "redis://b"),
        ("redis", "redis://a", "", "redis://a"),
        ("redis", "redis://a", "redis://b", "redis://b"),
    ],
)
def test_redis_has_an_address_of_its_own_or_the_storages(
    kind: str, storage: str, url: str, found: str
) -> None:
    assert redis_url(kind, storage, url) == found


def test_redis_as_the_storage_needs_an_address() -> None:
    with pytest.raises(BadEnvironment, match="SERVER_STORAGE_URL: redis needs redis://"):
        redis_url("redis", "", "")


@pytest.mark.parametrize(
    ("name", "zone"),
    [("Asia/Shanghai", "Asia/Shanghai"), ("UTC", "UTC"), ("", "UTC"), ("Nowhere/City", "UTC"),
     (":/etc/localtime", "UTC"), ("CST-8", "UTC"), ("../../etc/passwd", "UTC")],
)  # fmt: skip
def test_a_time_zone_that_is_none_means_utc(name: str, zone: str) -> None:
    assert time_zone(name) == zone
