"""On which line of a TOML text each key is written; the parsers do not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=")
_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]")


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Path of every table and key of a valid document to its line, counted from 1.

    The first mention counts. Keys inside one statement (a dotted key, an inline table)
    get the line on which the statement begins.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, statement, parsed in _statements(text):
        paths = list(_paths(parsed))
        if statement.lstrip().startswith("["):
            table = max(paths, key=len)
            paths = [table[: size + 1] for size in range(len(table))]
        else:
            paths = [table + path for path in paths]
        for path in paths:
            lines.setdefault(path, number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with its first line and what it means when read on its own.

    A statement that runs over several lines does not parse before its last one.
    """
    pending = ""
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending:
            start = number
        pending += line + "\n"
        try:
            parsed = tomllib.loads(pending)
        except ValueError:
            continue
        if parsed:
            yield start, pending, parsed
        pending = ""


def _paths(value: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        yield (name,)
        if isinstance(inner, dict):
            yield from ((name, *path) for path in _paths(inner))
        elif isinstance(inner, list):
            tables = (item for item in inner if isinstance(item, dict))
            yield from ((name, *path) for item in tables for path in _paths(item))


def key_at(text: str, number: int) -> str:
    """The dotted key that line ``number`` of a broken document seems to set, or ""."""
    lines = text.split("\n")[:number]
    key = _BARE_KEY.match(lines[-1]) if lines else None
    if key is None:
        return ""
    headers = (_HEADER.match(line) for line in reversed(lines))
    section = next((header.group(1) + "." for header in headers if header), "")
    return section + key.group(1)
