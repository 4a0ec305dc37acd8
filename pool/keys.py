"""Client keys: made once, stored as a keyed hash, found in memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

from pool.crypto import keyed_hash
from pool.models import UNLIMITED, ClientKey

_SCHEME = "sk-"
_SHOWN_CHARACTERS = 8
_RANDOM_BYTES = 32
# Far above any real key; keeps a hostile header from buying hashing time.
_MAX_LENGTH = 4096


class KeyRefused(Exception):
    """A presented key opens nothing. Never carries the key."""


class UnknownKey(KeyRefused):
    """No such key was ever made, or it was deleted."""


class DisabledKey(KeyRefused):
    """The key exists and the operator switched it off."""


class ExpiredKey(KeyRefused):
    """The key's time is over."""


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key: ``clear`` is shown once, ``prefix`` and ``digest`` are stored."""

    clear: str = field(repr=False)
    prefix: str
    digest: str


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use: four buckets per day, requests per minute, requests at once.

    UNLIMITED (-1) is no limit, 0 lets nothing pass.
    """

    chat: int = UNLIMITED
    heavy: int = UNLIMITED
    image: int = UNLIMITED
    video: int = UNLIMITED
    rpm: int = UNLIMITED
    concurrency: int = UNLIMITED

    @property
    def daily(self) -> tuple[int, int, int, int]:
        return self.chat, self.heavy, self.image, self.video

    @property
    def is_unlimited(self) -> bool:
        return max(*self.daily, self.rpm, self.concurrency) < 0


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What a request needs to know of its key.

    ``allowed_models`` None means all; ``expires_at`` is in seconds since the epoch, None
    means never. ``id`` 0 is the global key of the configuration, which has no limits and
    whose use is not counted.
    """

    id: int
    name: str
    prefix: str
    allowed_models: frozenset[str] | None = None
    expires_at: float | None = None
    is_active: bool = True
    limits: KeyLimits = NO_LIMITS


GLOBAL_KEY = KeyRecord(id=0, name="app.api_key", prefix="")


def digest(clear: str) -> str:
    """The stored form of a key: 64 hex digits, keyed by the pepper."""
    return keyed_hash("client-key", clear)


def mint() -> MintedKey:
    """``sk-`` and 43 url-safe characters: 256 random bits."""
    clear = _SCHEME + secrets.token_urlsafe(_RANDOM_BYTES)
    return MintedKey(clear, clear[: len(_SCHEME) + _SHOWN_CHARACTERS], digest(clear))


def create_client_key(
    name: str,
    *,
    expires_at: datetime | None = None,
    allowed_models: Iterable[str] = (),
    limits: KeyLimits = NO_LIMITS,
) -> tuple[ClientKey, str]:
    """Store a new key; returns its row and the clear text, which exists nowhere else."""
    minted = mint()
    row = ClientKey.objects.create(
        name=name,
        prefix=minted.prefix,
        digest=minted.digest,
        expires_at=expires_at,
        allowed_models=list(allowed_models),
        chat_limit=limits.chat,
        heavy_limit=limits.heavy,
        image_limit=limits.image,
        video_limit=limits.video,
        rpm_limit=limits.rpm,
        concurrency_limit=limits.concurrency,
    )
    return row, minted.clear


class KeyDirectory:
    """Every client key, in memory; ``load`` once, ``refresh`` now and then, ``lookup`` always.

    ``global_key`` gives the configured ``app.api_key`` at the time of asking; while it is
    empty it matches nothing. ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self, global_key: Callable[[], str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._global_key = global_key
        self._clock = clock
        self._by_digest: dict[str, KeyRecord] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def lookup(self, clear: str) -> KeyRecord:
        """The record of a presented key; raises UnknownKey, DisabledKey or ExpiredKey.

        The table is asked for a keyed hash, not for the key: how long the comparison takes
        depends on hash bits nobody without the pepper can steer, so timing tells nothing.
        """
        if not clear or len(clear) > _MAX_LENGTH:
            raise UnknownKey
        presented = digest(clear)
        record = self._by_digest.get(presented)
        if record is not None and self._is_usable(record):
            return record
        if self._is_global(presented):
            return GLOBAL_KEY
        if record is None:
            raise UnknownKey
        raise ExpiredKey if record.is_active else DisabledKey

    def load(self) -> None:
        """Read all keys from the database (blocking)."""
        self.install({row.digest: _record(row) for row in ClientKey.objects.all()})

    def install(self, records: dict[str, KeyRecord]) -> None:
        """Take ``records``, by digest, as all the keys there are."""
        self._by_digest = records

    def refresh(self, changed_since: datetime) -> int:
        """Read the keys changed at or after an instant, forget deleted ones (blocking).

        Returns how many records were put in or removed. Rows become visible when their
        transaction commits, so let ``changed_since`` overlap the previous call by seconds.
        """
        changed = list(ClientKey.objects.filter(updated_at__gte=changed_since))
        present = set(ClientKey.objects.values_list("pk", flat=True))
        replaced = {row.pk for row in changed}
        kept = {
            key: record
            for key, record in self._by_digest.items()
            if record.id in present and record.id not in replaced
        }
        gone = sum(record.id not in present for record in self._by_digest.values())
        # One assignment, so that a lookup on another thread sees the old table or the new.
        self._by_digest = kept | {row.digest: _record(row) for row in changed}
        return len(changed) + gone

    def _is_usable(self, record: KeyRecord) -> bool:
        return record.is_active and (record.expires_at is None or self._clock() < record.expires_at)

    def _is_global(self, presented: str) -> bool:
        clear = self._global_key()
        # Comparing hashes hides the length of the global key as well as its text.
        return bool(clear) and compare_digest(presented, digest(clear))


def _record(row: ClientKey) -> KeyRecord:
    return KeyRecord(
        id=row.pk,
        name=row.name,
        prefix=row.prefix,
        allowed_models=frozenset(row.allowed_models) or None,
        expires_at=row.expires_at.timestamp() if row.expires_at else None,
        is_active=row.is_active,
        limits=limits_of(row),
    )


def limits_of(row: ClientKey) -> KeyLimits:
    return KeyLimits(
        row.chat_limit,
        row.heavy_limit,
        row.image_limit,
        row.video_limit,
        row.rpm_limit,
        row.concurrency_limit,
    )
