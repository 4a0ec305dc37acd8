"""Addresses of files, and the signature that makes one end with time."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.media.names import Kind

PATH = "/v1/files"
MIN_KEY = 32
_STEP = 3600
_SIGNATURE_DIGITS = 32
_MAX_EXPIRY_DIGITS = 12


class LinkRefused(Exception):
    """``expired``: the link was right once."""

    def __init__(self, *, expired: bool = False) -> None:
        self.expired = expired
        super().__init__("expired" if expired else "not signed by us")


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """``base_url`` goes before the path ("": relative addresses), ``lifetime`` is in seconds."""

    base_url: str
    signed: bool
    lifetime: int


class MediaLinks:
    """Makes and checks addresses of files. ``now`` is Unix time in seconds.

    ``key`` must be secret, random and stay the same, or links made before are refused. The
    signature covers kind, name and time; the name has its slashes as ``-`` already.
    """

    def __init__(
        self, key: bytes, policy: Callable[[], LinkPolicy], *, now: Callable[[], float] = time.time
    ) -> None:
        if len(key) < MIN_KEY:
            raise ValueError(f"a key for links has at least {MIN_KEY} bytes")
        self._key = key
        self.policy = policy
        self._now = now

    def url(self, kind: Kind, name: str) -> str:
        """The address to give to a client, for as long as the policy says."""
        policy = self.policy()
        path = f"{policy.base_url.rstrip('/')}{PATH}/{kind}/{name}"
        if not policy.signed:
            return path
        expires = self._expiry(policy.lifetime)
        return f"{path}?exp={expires}&sig={self.sign(kind, name, expires)}"

    def _expiry(self, lifetime: int) -> int:
        """Rounded up, so that a file keeps its address, and browsers their copy, for a while."""
        step = max(1, min(_STEP, lifetime // 10))
        return -int(-(self._now() + lifetime) // step) * step

    def sign(self, kind: str, name: str, expires: int | str) -> str:
        message = f"{kind}\n{name}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256").hex()[:_SIGNATURE_DIGITS]

    def verify(self, kind: str, name: str, expires: str, signature: str) -> int:
        """Seconds that the link is still good for; raises LinkRefused. Takes any text."""
        good = self.sign(kind, name, expires).encode()
        if not hmac.compare_digest(good, signature.encode("utf-8", "surrogatepass")):
            raise LinkRefused
        if not expires.isascii() or not expires.isdigit() or len(expires) > _MAX_EXPIRY_DIGITS:
            raise LinkRefused
        left = int(expires) - int(self._now())
        if left <= 0:
            raise LinkRefused(expired=True)
        return left
