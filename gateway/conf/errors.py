"""What is wrong with a configuration: where, which key, and why; never the value itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_KEY = 80
"""Characters of a key that a message repeats; a key in a file can be of any length."""


def printable(text: str) -> str:
    """``text`` on one line, bounded, with control characters escaped."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:MAX_KEY])
    return line + "…" if len(text) > MAX_KEY else line


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect. ``source`` is a file path or the name of a layer, ``line`` counts from 1."""

    source: str
    line: int | None
    key: str
    reason: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        key = f", {printable(self.key)}" if self.key else ""
        return f"{place}{key}: {self.reason}"


class ConfigError(Exception):
    """The configuration cannot be used. One line of text; every problem is in it.

    ``file``, ``line``, ``key`` and ``reason`` are those of the first problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)

    @property
    def file(self) -> str:
        return self.problems[0].source

    @property
    def line(self) -> int | None:
        return self.problems[0].line

    @property
    def key(self) -> str:
        return self.problems[0].key

    @property
    def reason(self) -> str:
        return self.problems[0].reason


class SettingsRejected(ValueError):
    """Nothing was saved. ``errors`` maps the dotted key to its reason."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{printable(key)}: {why}" for key, why in errors.items()))
        self.errors = dict(errors)
