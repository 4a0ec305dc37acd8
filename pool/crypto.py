"""Secrets at rest: sealing what must be replayed, hashing what must only be recognised.

Two independent roots, because they live differently:

* ``settings.GROK2API_SECRET_KEYS`` (first is current, the rest older) seals upstream
  credentials. Rotation puts a new key in front; what older keys sealed still opens. Each key
  has a public id, kept beside what it sealed, so that one can count what still needs it.
* ``settings.GROK2API_PEPPER`` (made once, never rotated) keys the hashes. A hash cannot be
  recomputed without its clear text, so were it keyed by a rotating key, every client key
  would stop working and every re-import would add duplicates.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypedDict

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_SEAL_LABEL = b"grok2api pool: credential sealing, v1"
_HASH_LABEL = b"grok2api pool: keyed hash, v1: "
_ID_LABEL = b"grok2api pool: public id of a secret key, v1"
_ID_BYTES = 6


class WrongKey(Exception):
    """No configured secret key opens a sealed secret."""


class WrongPepper(WrongKey):
    """The pepper is not the one the stored hashes were made with."""


class SealedColumns(TypedDict):
    """What a credential's row keeps of its secret; one is never written without the other."""

    sealed: bytes
    sealed_with: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A clear text, and the id of the configured key that opened it."""

    secret: str = field(repr=False)
    key_id: str


def key_id(key: str) -> str:
    """The public name of a secret key: 12 hex digits that say nothing about the key."""
    return _derive(key, _ID_LABEL)[:_ID_BYTES].hex()


def key_ids() -> tuple[str, ...]:
    """The ids of the configured secret keys, the current one first."""
    return tuple(number for number, _ in _ring(tuple(settings.GROK2API_SECRET_KEYS)))


def sealed_columns(secret: str) -> SealedColumns:
    """``seal`` with the id of the key that sealed, as columns of ``Credential``."""
    number, fernet = _ring(tuple(settings.GROK2API_SECRET_KEYS))[0]
    return {"sealed": fernet.encrypt(secret.encode()), "sealed_with": number}


def seal(secret: str) -> bytes:
    """Encrypt with the current key; the result is ASCII and about 4/3 of the input plus 100."""
    return sealed_columns(secret)["sealed"]


def open_sealed(sealed: bytes | memoryview) -> Opened:
    """The clear text of ``seal``, and whose it was; raises WrongKey.

    Keys are tried in their order, so an older one is named only when no newer one opens.
    """
    token = bytes(sealed)  # PostgreSQL may give a memoryview
    for number, fernet in _ring(tuple(settings.GROK2API_SECRET_KEYS)):
        try:
            return Opened(fernet.decrypt(token).decode(), number)
        except InvalidToken:
            continue
    raise WrongKey("no configured secret key opens this credential")


def unseal(sealed: bytes | memoryview) -> str:
    """The clear text of ``seal``; raises WrongKey."""
    return open_sealed(sealed).secret


def keyed_hash(purpose: str, text: str) -> str:
    """HMAC-SHA256 of any text, 64 hex digits; different purposes never give equal hashes."""
    # Header values may carry lone surrogates; they are as unknown as any other wrong text.
    data = text.encode("utf-8", "surrogatepass")
    return hmac.digest(_hash_key(settings.GROK2API_PEPPER, purpose), data, "sha256").hex()


@lru_cache(maxsize=4)
def _ring(keys: tuple[str, ...]) -> tuple[tuple[str, Fernet], ...]:
    """Each key's id and what it seals with, in the keys' order."""
    if not keys:
        raise ImproperlyConfigured("GROK2API_SECRET_KEYS is empty: nothing can be sealed.")
    return tuple(
        (key_id(key), Fernet(urlsafe_b64encode(_derive(key, _SEAL_LABEL)))) for key in keys
    )


@lru_cache(maxsize=16)
def _hash_key(pepper: str, purpose: str) -> bytes:
    if not pepper:
        raise ImproperlyConfigured("GROK2API_PEPPER is empty: nothing can be recognised.")
    return _derive(pepper, _HASH_LABEL + purpose.encode())


def _derive(root: str, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(root.encode())
