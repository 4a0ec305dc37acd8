"""The labelled children of a metric, found fast."""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

M = TypeVar("M", Counter, Gauge, Histogram)


class Children(dict[tuple[str, ...], M]):
    """``children["chat", "2xx"]`` is ``parent.labels("chat", "2xx")``, looked up once."""

    def __init__(self, parent: M) -> None:
        super().__init__()
        self._parent: M = parent

    def __missing__(self, values: tuple[str, ...]) -> M:
        child: M = self._parent.labels(*values)
        self[values] = child
        return child
