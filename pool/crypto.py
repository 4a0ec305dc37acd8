"""Secrets at rest: sealing what must be replayed, hashing what must only be recognised.

Two independent roots, because they live differently:

* ``settings.GROK2API_SECRET_KEYS`` (first is current, the rest older) seals upstream
  credentials. Rotation puts a new key in front; what older keys sealed still opens.
* ``settings.GROK2API_PEPPER`` (made once, never rotated) keys the hashes. A hash cannot be
  recomputed without its clear text, so were it keyed by a rotating key, every client key
  would stop working and every re-import would add duplicates.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_SEAL_LABEL = b"grok2api pool: credential sealing, v1"
_HASH_LABEL = b"grok2api pool: keyed hash, v1: "


class WrongKey(Exception):
    """No configured secret key opens a sealed secret."""


class WrongPepper(WrongKey):
    """The pepper is not the one the stored hashes were made with."""


def seal(secret: str) -> bytes:
    """Encrypt with the current key; the result is ASCII and about 4/3 of the input plus 100."""
    return _fernet(tuple(settings.GROK2API_SECRET_KEYS)).encrypt(secret.encode())


def unseal(sealed: bytes | memoryview) -> str:
    """The clear text of ``seal``; a memoryview is what PostgreSQL gives. Raises WrongKey."""
    try:
        return _fernet(tuple(settings.GROK2API_SECRET_KEYS)).decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise WrongKey("no configured secret key opens this credential") from None


def keyed_hash(purpose: str, text: str) -> str:
    """HMAC-SHA256 of any text, 64 hex digits; different purposes never give equal hashes."""
    # Header values may carry lone surrogates; they are as unknown as any other wrong text.
    data = text.encode("utf-8", "surrogatepass")
    return hmac.digest(_hash_key(settings.GROK2API_PEPPER, purpose), data, "sha256").hex()


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("GROK2API_SECRET_KEYS is empty: nothing can be sealed.")
    return MultiFernet([Fernet(urlsafe_b64encode(_derive(key, _SEAL_LABEL))) for key in keys])


@lru_cache(maxsize=16)
def _hash_key(pepper: str, purpose: str) -> bytes:
    if not pepper:
        raise ImproperlyConfigured("GROK2API_PEPPER is empty: nothing can be recognised.")
    return _derive(pepper, _HASH_LABEL + purpose.encode())


def _derive(root: str, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(root.encode())
