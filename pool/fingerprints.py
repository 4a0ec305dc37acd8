"""How a credential is recognised without being readable."""

from __future__ import annotations

from pool.crypto import keyed_hash
from pool.models import Kind

_SHORTEST_WITH_HINT = 8


def fingerprint(kind: str, identity: str) -> str:
    """Keyed hash of the bare secret, 64 hex digits.

    Both web kinds share one space: a session moved from ``sso`` to ``ssoSuper`` is still
    the same account. API keys have their own.
    """
    purpose = "credential:api" if kind == Kind.API else "credential:web"
    return keyed_hash(purpose, identity)


def hint(identity: str) -> str:
    """The last four characters, or nothing when they would be half of the secret or more."""
    return identity[-4:] if len(identity) > _SHORTEST_WITH_HINT else ""
