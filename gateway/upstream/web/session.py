"""Whose session it is (upstream-web 1.7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from gateway.upstream.errors import CredentialRejected, UpstreamFailed

SESSION_PATH = "/api/auth/session"

_DEAD = {"unauthenticated": 1, "blocked": 2}
_USER_KEYS = ("id", "userId", "sub")


@dataclass(frozen=True, slots=True)
class Identity:
    """The account behind a session; empty strings where upstream did not say."""

    user_id: str = ""
    email: str = field(default="", repr=False)
    team_id: str = ""

    @property
    def has_uuid(self) -> bool:
        """Whether ``user_id`` is one the chat WebSocket takes."""
        return is_uuid(self.user_id)


def is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False


def parse_identity(reply: Mapping[str, Any]) -> Identity:
    """Read a session reply.

    Raises CredentialRejected when its status says that the session is dead, whatever
    else it holds, and UpstreamFailed when it says nothing at all.
    """
    status = _text(reply, "status").lower()
    if status in _DEAD:
        raise CredentialRejected(row=_DEAD[status], evidence=f"session status {status}")
    session, user = _object(reply, "session"), _object(reply, "user")
    identity = Identity(
        user_id=_text(session, "userId") or _any_id(user) or _any_id(reply),
        email=_text(session, "email") or _text(user, "email") or _text(reply, "email"),
        team_id=_text(session, "organizationId") or _text(user, "teamId"),
    )
    if not (identity.user_id or identity.email or status):
        raise UpstreamFailed(row=12, evidence="session reply without identity or status")
    return identity


def _any_id(values: Mapping[str, Any]) -> str:
    return next((found for key in _USER_KEYS if (found := _text(values, key))), "")


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value.strip() if isinstance(value, str) else ""
