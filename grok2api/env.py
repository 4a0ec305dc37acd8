"""Reading process settings from the environment; no Django in here."""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


LIMIT_TABLE = "GROK2API_LIMIT_TABLE"
"""Names the file in which the workers of one server count client keys; ``serve`` sets it."""


class BadEnvironment(Exception):
    """A process setting cannot be used; the message names the variable and the reason."""


def env_bool(name: str, default: bool, env: Mapping[str, str] = os.environ) -> bool:
    text = env.get(name)
    if text is None:
        return default
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise BadEnvironment(f"{name}: {text!r} is neither true nor false")


def env_int(name: str, default: int, env: Mapping[str, str] = os.environ) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise BadEnvironment(f"{name}: {text!r} is not a whole number") from None


def env_list(name: str, default: list[str], env: Mapping[str, str] = os.environ) -> list[str]:
    text = env.get(name)
    if text is None:
        return default
    return [item.strip() for item in text.split(",") if item.strip()]


def env_secret(name: str, env: Mapping[str, str] = os.environ) -> str:
    """``$NAME``, or the trimmed content of the file that ``$NAME_FILE`` names, or ""."""
    if path := env.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = error.strerror or "unreadable"
            raise BadEnvironment(f"{name}_FILE: cannot read {path}: {reason}") from error
    return env.get(name, "")


def kept_secret(path: Path) -> list[str]:
    """The lines of a secret file, made with one random line (mode 0600) if absent."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_if_absent(path)
        kept = _lines_when_written(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadEnvironment(f"{path} cannot be used: {reason}") from error
    if kept:
        return kept
    raise BadEnvironment(
        f"{path} is empty; restore it from a backup, or delete it on a new install"
    )


def _make_if_absent(path: Path) -> None:
    """``O_EXCL`` settles which of several starting processes writes the file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(48) + "\n")


def _lines_when_written(path: Path) -> list[str]:
    """Another process may have made the file just now, and be about to write it."""
    for patience in (0.0, 0.1, 0.4):
        time.sleep(patience)
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        if kept := [line for line in lines if line]:
            return kept
    return []


SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "postgres": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "mariadb": "django.db.backends.mysql",
}
SCHEMES = {"pgsql": {"postgresql", "postgres"}, "mysql": {"mysql", "mariadb"}}


def database(kind: str, url: str, data_dir: Path) -> dict[str, Any]:
    """Django's DATABASES entry for ``SERVER_STORAGE_TYPE`` and ``SERVER_STORAGE_URL``.

    SQLAlchemy-style driver suffixes (``postgresql+asyncpg://``) are accepted and dropped.
    "redis" keeps its record in SQLite: Redis holds what workers share, not the record.
    """
    if kind in {"local", "redis"}:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(data_dir / "grok2api.sqlite3"),
            "OPTIONS": dict(SQLITE_OPTIONS),
        }
    if kind not in SCHEMES:
        known = "local, pgsql, mysql, redis"
        raise BadEnvironment(f"SERVER_STORAGE_TYPE: {kind!r} is not one of {known}")
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0].lower()
    if scheme not in SCHEMES[kind] or not parts.path.strip("/"):
        example = "postgresql" if kind == "pgsql" else "mysql"
        raise BadEnvironment(
            f"SERVER_STORAGE_URL: {kind} needs {example}://user:password@host:port/database"
        )
    try:
        port = str(parts.port or "")
    except ValueError:
        raise BadEnvironment("SERVER_STORAGE_URL: the port is not a number up to 65535") from None
    return {
        "ENGINE": ENGINES[scheme],
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": port,
        "OPTIONS": _options(kind, parts.query),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def _options(kind: str, query: str) -> dict[str, Any]:
    """The URL's query for the driver; ``ssl`` is how asyncpg and aiomysql spell TLS."""
    options: dict[str, Any] = dict(parse_qsl(query))
    tls = options.pop("ssl", None)
    if kind == "pgsql":
        if tls is not None:
            options.setdefault("sslmode", "require" if tls.lower() in TRUE else tls)
        return options
    if tls is not None and tls.lower() in TRUE:
        options.setdefault("ssl_mode", "REQUIRED")
    numbers = {name: int(value) for name, value in options.items() if value.isdecimal()}
    return {"charset": "utf8mb4", "isolation_level": "read committed"} | options | numbers


DRIVERS = {"pgsql": ("psycopg", "postgres"), "mysql": ("MySQLdb", "mysql")}
"""Per storage: the module that Django needs, and the extra of this project that brings it."""


def need_drivers(
    kind: str, redis: str, is_there: Callable[[str], object] = importlib.util.find_spec
) -> None:
    """Raises BadEnvironment when something that is configured is not installed."""
    needed = [("SERVER_STORAGE_TYPE", *DRIVERS[kind])] if kind in DRIVERS else []
    needed += [("REDIS_URL", module, "redis") for module in REDIS_MODULES if redis]
    for variable, module, extra in needed:
        if not is_there(module):
            raise BadEnvironment(f"{variable} needs a driver: pip install 'grok2api[{extra}]'")


REDIS_MODULES = ("django_redis", "channels_redis")


def redis_url(kind: str, storage_url: str, url: str) -> str:
    """``REDIS_URL``, else the storage address when the storage is Redis, else ""."""
    if url or kind != "redis":
        return url
    if not storage_url:
        raise BadEnvironment("SERVER_STORAGE_URL: redis needs redis://host:port/number")
    return storage_url


def time_zone(name: str) -> str:
    """``name`` if it is a time zone, else UTC: TZ has forms that only the C library knows."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return "UTC"
    return name
