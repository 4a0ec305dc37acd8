"""``data/config.toml``: written once, with comments, at first start; afterwards only read."""

from __future__ import annotations

import os
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import tomlkit
from tomlkit.items import Table

from gateway.conf.errors import Problem
from gateway.conf.keys import KEYS, SECTIONS, Key
from gateway.conf.layers import Origin
from gateway.conf.toml_lines import key_at, key_lines

FILE_NAME = "config.toml"
COMMENT_WIDTH = 94

_INTRODUCTION = """\
Settings of this service. Every line below shows a default and is commented out: remove the
"# " before a line to change it. Changes apply within two seconds, without a restart.
Stronger than this file are values saved in the panel, and above them environment variables
such as GROK2API_GROK__TIMEOUT. docs/configuration.md explains every key."""


class Stamp(NamedTuple):
    """Differs after every change of the file; a change of its rights counts too."""

    modified_ns: int
    changed_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What one reading of the file gave. ``values`` maps sections to tables.

    ``stamp`` is None when there was no file.
    """

    stamp: Stamp | None = None
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origin: Origin = field(default_factory=Origin)


def render(values: Mapping[str, Any] | None = None) -> str:
    """The whole file: every section and key, those in ``values`` (dotted keys) set."""
    given = values or {}
    document = tomlkit.document()
    for line in _INTRODUCTION.split("\n"):
        document.add(tomlkit.comment(line))
    for name, model in SECTIONS.items():
        document.add(tomlkit.nl())
        table = tomlkit.table()
        table.add(tomlkit.comment(model.__doc__ or ""))
        for key in (key for key in KEYS.values() if key.section == name):
            _add_key(table, key, given)
        document.add(name, table)
    return tomlkit.dumps(document)


def _add_key(table: Table, key: Key, given: Mapping[str, Any]) -> None:
    table.add(tomlkit.nl())
    for line in textwrap.wrap(f"{key.description} ({key.type_text})", COMMENT_WIDTH):
        table.add(tomlkit.comment(line))
    if key.name in given:
        table.add(key.leaf, _item(given[key.name]))
    else:
        table.add(tomlkit.comment(f"{key.leaf} = {default_text(key)}"))


def default_text(key: Key) -> str:
    """The default as TOML spells it."""
    text: str = _item(key.default).as_string()
    return text


def _item(value: Any) -> Any:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    if isinstance(value, list | tuple):
        return tomlkit.item(list(value))
    return tomlkit.item(value)


def create(path: Path, values: Mapping[str, Any] | None = None) -> bool:
    """Write the file (mode 0600, whole or not at all) unless there is one; True if written.

    Raises OSError when the folder cannot be written.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=".config-", delete=False
    ) as file:
        draft = Path(file.name)
        try:
            file.write(render(values))
            file.flush()
            os.fsync(file.fileno())
            return _claim(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _claim(draft: Path, path: Path) -> bool:
    """Give ``draft`` its name; False when another process was first."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    except OSError:  # some mounted file systems have no hard links
        if path.exists():
            return False
        draft.replace(path)
    return True


def stamp_of(path: Path) -> Stamp | None:
    """None for a missing file. Raises OSError when it cannot be looked at."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def read(path: Path) -> tuple[TomlFile, list[Problem]]:
    """The file's values, or none and what is wrong with it. A missing file is empty."""
    name = str(path)
    stamp = None
    try:
        stamp = stamp_of(path)
        data = path.read_bytes() if stamp else b""
    except OSError as error:
        reason = f"cannot be read: {error.strerror or 'unreadable'}"
        return TomlFile(stamp), [Problem(name, None, "", reason)]
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return TomlFile(stamp), [Problem(name, line, "", "is not UTF-8 text")]
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return TomlFile(stamp), [_syntax_problem(name, text, error)]
    return TomlFile(stamp, values, Origin(name, key_lines(text))), []


_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_CLEARER = {
    "Cannot overwrite a value": "the key is set twice",
    "Cannot declare": "the section is written twice",
    "Unescaped '\\'": "a backslash in double quotes must be doubled; or use single quotes",
    "Illegal character '\\n'": "the line ends inside a text, list or table",
}


def _syntax_problem(name: str, text: str, error: Exception) -> Problem:
    message = str(error)
    place = _PLACE.search(message)
    if place is None:
        return Problem(name, None, "", "not valid TOML: it is nested too deep or too long")
    message = message[: place.start()]
    line = int(place[1]) if place[1] else len(text.rstrip("\n").split("\n"))
    found = next((ours for start, ours in _CLEARER.items() if message.startswith(start)), "")
    column = f" (column {place[2]})" if place[2] else " (at the end of the file)"
    reason = f"not valid TOML: {found or message[:1].lower() + message[1:]}{column}"
    return Problem(name, line, key_at(text, line), reason)
