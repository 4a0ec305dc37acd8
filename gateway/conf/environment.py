"""The environment layer: variables' names and text made into settings' keys and values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.conf.errors import Problem
from gateway.conf.keys import ENV_PREFIX, KEYS, Key, Shape, by_env_name, env_name, nearest

SOURCE = "environment"
FILE_SUFFIX = "_FILE"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

_SINGLE_UNDERSCORE = {key.env_name.replace("__", "_", 1): key for key in KEYS.values()}


def decode(key: Key, text: str) -> Any:
    """The value that ``text`` stands for, in the key's shape; limits are checked elsewhere.

    Raises ValueError with a reason that does not repeat the text.
    """
    if key.choices:
        return text.strip()
    return _DECODERS[key.shape](text)


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE | FALSE:
        raise ValueError("must be one of true, false, yes, no, on, off, 1, 0")
    return word in TRUE


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def _texts(text: str) -> Any:
    if text.lstrip().startswith("["):
        return _json(text)
    return [item.strip() for item in text.split(",") if item.strip()]


def _numbers(text: str) -> Any:
    items = _texts(text)
    return [_number(item) if isinstance(item, str) else item for item in items]


def _table(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return _json(text)
    table = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError("must be a JSON object or name=value pairs separated by commas")
        table[name.strip()] = value.strip()
    return table


_DECODERS: Mapping[Shape, Callable[[str], Any]] = {
    "flag": _flag,
    "number": _number,
    "text": str,
    "texts": _texts,
    "numbers": _numbers,
    "table": _table,
}


def ours(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that set a setting. An empty one counts as not set.

    ``GROK2API_DATA_DIR`` and other process settings have no double underscore; one that
    spells a setting with a single underscore is kept, to be reported.
    """
    return {
        name: text
        for name, text in env.items()
        if name.startswith(ENV_PREFIX)
        and text.strip()
        and ("__" in name or name in _SINGLE_UNDERSCORE)
    }


def read_secret_files(
    env: Mapping[str, str], read: Callable[[str], str] | None = None
) -> tuple[dict[str, str], list[Problem]]:
    """``ours(env)`` with each secret's ``<NAME>_FILE`` replaced by the file's content."""
    found = ours(env)
    problems = []
    for name in [name for name in found if _names_a_secret_file(name)]:
        path = found.pop(name).strip()
        plain = name.removesuffix(FILE_SUFFIX)
        if plain in found:
            problems.append(Problem(SOURCE, None, name, f"set this or {plain}, not both"))
            continue
        try:
            found[plain] = (read or _read_text)(path).strip()
        except UnicodeError:
            problems.append(Problem(SOURCE, None, name, f"{path} is not UTF-8 text"))
        except OSError as error:
            reason = error.strerror or "unreadable"
            problems.append(Problem(SOURCE, None, name, f"cannot read {path}: {reason}"))
    return found, problems


def _names_a_secret_file(name: str) -> bool:
    if by_env_name(name) or not name.endswith(FILE_SUFFIX):
        return False
    key = by_env_name(name.removesuffix(FILE_SUFFIX))
    return key is not None and key.secret


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8-sig")


def read_environment(env: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """Dotted key to decoded value, and what is wrong with the rest."""
    values: dict[str, Any] = {}
    problems = []
    for name, text in ours(env).items():
        key = by_env_name(name)
        if key is None:
            problems.append(Problem(SOURCE, None, name, _unknown(name)))
            continue
        try:
            values[key.name] = decode(key, text)
        except ValueError as error:
            problems.append(Problem(SOURCE, None, name, str(error)))
    return values, problems


def _unknown(name: str) -> str:
    plain = by_env_name(name.removesuffix(FILE_SUFFIX))
    if plain is not None and name.endswith(FILE_SUFFIX):
        return f"only secrets can be read from a file; set {plain.env_name}"
    if key := _SINGLE_UNDERSCORE.get(name):
        return f"unknown setting; did you mean {key.env_name}?"
    guess = nearest(name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1))
    return f"unknown setting; did you mean {env_name(guess)}?" if guess else "unknown setting"
