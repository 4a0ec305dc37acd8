"""Reading process settings from the environment; no Django in here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})


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
    """The lines of a secret file, made with one random line (mode 0600) if absent.

    ``O_EXCL`` settles which of several starting processes writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if kept := [line for line in lines if line]:
        return kept
    raise BadEnvironment(
        f"{path} is empty; restore it from a backup, or delete it on a new install"
    )


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
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if kind == "mysql":
        options.setdefault("charset", "utf8mb4")
        options.setdefault("isolation_level", "read committed")
    return {
        "ENGINE": ENGINES[scheme],
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def redis_url(kind: str, storage_url: str, url: str) -> str:
    """``REDIS_URL``, else the storage address when the storage is Redis, else ""."""
    if url or kind != "redis":
        return url
    if not storage_url:
        raise BadEnvironment("SERVER_STORAGE_URL: redis needs redis://host:port/number")
    return storage_url
