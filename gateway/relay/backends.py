"""Choosing where the workers meet: in this process's memory, or in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from gateway import conf
from gateway.relay.deployment import Deployment
from gateway.relay.settings import pool_policy
from pool.affinity import Affinity
from pool.crypto import keyed_hash, unseal
from pool.entries import Entry
from pool.limits.book import UsageBook
from pool.limits.day import Days
from pool.limits.limiter import KeyLimiter
from pool.limits.local import LocalLimiter
from pool.limits.table import KeyTable
from pool.selection import MemoryPool

if TYPE_CHECKING:
    from pool.shared.membership import Membership


class Backends:
    """What workers share, or, without Redis, what each keeps for itself.

    ``changed`` and ``suspect`` are as for MemoryPool. Redis' driver is imported only where
    Redis is used, since it may not be installed elsewhere.
    """

    pool: MemoryPool
    affinity: Affinity
    limiter: KeyLimiter

    def __init__(
        self,
        deployment: Deployment,
        changed: Callable[[Entry], None],
        suspect: Callable[[int], None],
    ) -> None:
        self.days = Days(deployment.day_offset, time.time)
        self.book = UsageBook()
        self.membership: Membership | None = None
        options = _pool_options(changed, suspect)
        if deployment.redis_url:
            self._meet_in_redis(deployment, options)
        else:
            self.pool = MemoryPool(**options)
            self.affinity = Affinity(time.time)
            # Never closed before the process ends: the last request may still give back.
            path = deployment.limit_table
            table = KeyTable.open(Path(path)) if path else KeyTable.anonymous()
            self.limiter = LocalLimiter(table, self.days, self.book)

    def _meet_in_redis(self, deployment: Deployment, options: dict[str, Any]) -> None:
        from pool.limits.shared import RedisLimiter
        from pool.shared.affinity import SharedAffinity
        from pool.shared.membership import Membership
        from pool.shared.pool import SharedPool
        from pool.shared.store import SharedStore

        # Workers of one installation have one pepper; others may use the same Redis.
        prefix = f"{{grok2api-{keyed_hash('installation', 'redis')[:12]}}}:"
        store = SharedStore(deployment.redis_url, worker=deployment.worker, prefix=prefix)
        pool = SharedPool(store, **options)
        self.pool = pool
        self.affinity = SharedAffinity(time.time, store)
        self.limiter = RedisLimiter(store, self.days, self.book)
        self.membership = Membership(store, pool)


def _pool_options(
    changed: Callable[[Entry], None], suspect: Callable[[int], None]
) -> dict[str, Any]:
    return {
        "policy": pool_policy(conf.current),
        "now": time.time,
        "random": Random(),  # noqa: S311 - spreads load, guards nothing
        # Opening a secret costs tens of microseconds; a few thousand stay open.
        "unseal": lru_cache(maxsize=4096)(unseal),
        "changed": changed,
        "suspect": suspect,
    }
