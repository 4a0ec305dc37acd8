"""Credentials, clocks and pools as the tests of selection need them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from pool.entries import Entry
from pool.policy import PoolPolicy
from pool.selection import MemoryPool

START = 1_790_000_000.0


def make_entry(number: int = 1, kind: str = "sso", **changes: Any) -> Entry:
    """An active credential whose secret is ``secret-NUMBER``."""
    fields: dict[str, Any] = {"active": True, "sealed": b"secret-%d" % number, "hint": "hint"}
    return Entry(number, kind, **(fields | changes))


class Clock:
    """Unix time that moves only when told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_pool(
    *entries: Entry,
    clock: Clock | None = None,
    policy: PoolPolicy | Callable[[], PoolPolicy] | None = None,
    seed: int = 1,
    **changes: Any,
) -> MemoryPool:
    fixed = PoolPolicy() if policy is None else policy
    options: dict[str, Any] = {
        "policy": fixed if callable(fixed) else lambda: fixed,
        "now": clock or Clock(),
        "random": Random(seed),
        "unseal": bytes.decode,
    }
    pool = MemoryPool(**(options | changes))
    for entry in entries:
        pool.put(entry)
    return pool
