"""Affinity that all workers share: what one remembers, any can find."""

from __future__ import annotations

from collections.abc import Callable

from pool.affinity import KEEP, Affinity
from pool.shared.store import Script, SharedStore, StoreAway

_REMEMBER = Script("return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])")
_FIND = Script("return redis.call('GET', KEYS[1])")


class SharedAffinity(Affinity):
    """While Redis is away, each worker finds what it remembered itself."""

    def __init__(self, now: Callable[[], float], store: SharedStore) -> None:
        super().__init__(now)
        self._store = store

    async def remember(self, state: str, credential_id: int) -> None:
        await super().remember(state, credential_id)
        try:
            await self._store.run(_REMEMBER, [self._key(state)], [credential_id, int(KEEP)])
        except StoreAway:
            return

    async def find(self, state: str) -> int | None:
        known = await super().find(state)
        if known is not None:
            return known
        try:
            found = await self._store.run(_FIND, [self._key(state)], [])
        except StoreAway:
            return None
        return None if found is None else int(found)

    def _key(self, state: str) -> str:
        return self._store.key(f"state:{state}")
