"""A settings store in memory, which can be told to fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import OperationalError


class MemoryStore:
    def __init__(self, **rows: Any) -> None:
        self.rows: dict[str, Any] = {key.replace("__", "."): rows[key] for key in rows}
        self.changes = 0
        self.down = False
        self.reads = 0
        self.writers: list[str] = []

    def stamp(self) -> object:
        if self.down:
            raise OperationalError("connection to 10.0.0.5 refused, password hunter2")
        return self.changes

    def read(self) -> dict[str, Any]:
        self.reads += 1
        return dict(self.rows)

    def write(self, values: Mapping[str, Any], by: str) -> None:
        self.rows |= values
        self.changes += 1
        self.writers.append(by)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.rows.pop(key, None)
        self.changes += 1
