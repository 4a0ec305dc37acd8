"""One credential out of an import, whatever shape the file gave it.

Shapes: a string; an object of an old ``token.json`` (http-contract 11); an object of an
``accounts`` list (upstream-web 1.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pool.models import Kind, Status
from pool.normalising import BadSecret, Secret, normalise

_TOKEN_FIELDS = ("token", "sso_token", "sso", "api_key", "key")
# Never copied to ``legacy``, which is stored in clear.
_SECRET_FIELDS = frozenset(
    {
        *_TOKEN_FIELDS, "sso_rw", "sso-rw", "cookie", "cookies", "cloudflare_cookies",
        "cf_clearance", "password", "access_token", "refresh_token", "id_token",
    }
)  # fmt: skip
_OWN_FIELDS = frozenset(
    {
        "note", "name", "tags", "status", "user_id", "quota", "heavy_quota", "use_count",
        "fail_count", "last_used_at", "last_fail_at", "last_fail_reason", "created_at",
    }
)  # fmt: skip
_STATUS_WORDS = {
    "active": Status.ACTIVE,
    "cooling": Status.COOLING,
    "invalid": Status.INVALID,
    "expired": Status.INVALID,
    "disabled": Status.DISABLED,
}
_TIERS = {"basic": Kind.SSO, "free": Kind.SSO, "super": Kind.SSO_SUPER, "heavy": Kind.SSO_SUPER}
_MAX_INT = 2**31 - 1
_MAX_BIG_INT = 2**63 - 1
_MAX_DEPTH = 8
COLUMN_LENGTHS = {"note": 500, "user_id": 64, "last_fail_reason": 200}
_MAX_MS = 253_402_300_799_000  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Details:
    """What came with a secret; None or empty means the file did not say."""

    note: str | None = None
    tags: list[str] | None = None
    status: Status | None = None
    user_id: str = ""
    quota: int | None = None
    heavy_quota: int | None = None
    measured_at: datetime | None = None
    use_count: int = 0
    fail_count: int = 0
    last_used_at: datetime | None = None
    last_failed_at: datetime | None = None
    last_fail_reason: str = ""
    created_at: datetime | None = None
    legacy: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A usable credential; ``number`` is its line, or its place in a JSON document, from 1."""

    number: int
    kind: Kind
    secret: Secret
    details: Details


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line or item that holds no usable credential. Never holds any of its text."""

    number: int
    reason: Promise | str


_NOTHING = Details()


def parse_item(number: int, kind: Kind, item: object) -> Parsed | Rejected:
    """An entry from a string or an object; ``kind`` is what the file said of its pool."""
    try:
        if isinstance(item, str):
            return Parsed(number, kind, normalise(item, kind), _NOTHING)
        if isinstance(item, Mapping):
            return _from_object(number, kind, item)
    except BadSecret as error:
        return Rejected(number, error.reason)
    return Rejected(number, _("neither a string nor an object"))


def holds_token(item: Mapping[str, Any]) -> bool:
    """Whether an object is a credential rather than a container of credentials."""
    return any(isinstance(item.get(name), str) for name in _TOKEN_FIELDS)


def _from_object(number: int, kind: Kind, item: Mapping[str, Any]) -> Parsed | Rejected:
    token = next((item[name] for name in _TOKEN_FIELDS if isinstance(item.get(name), str)), None)
    if token is None:
        return Rejected(number, _("no token in it"))
    tier = item.get("tier")
    if kind is not Kind.API and isinstance(tier, str):
        kind = _TIERS.get(tier.strip().lower(), kind)
    secret = normalise(token, kind)
    return Parsed(number, kind, secret, _details(item, kind, secret))


def _details(item: Mapping[str, Any], kind: Kind, secret: Secret) -> Details:
    web = kind is not Kind.API
    return Details(
        note=_note(item),
        tags=_tags(item.get("tags")),
        status=_status(item.get("status")),
        user_id=_text(item.get("user_id"), "user_id"),
        quota=_count(item.get("quota"), _MAX_INT) if web else None,
        heavy_quota=_count(item.get("heavy_quota"), _MAX_INT) if web else None,
        measured_at=_time(item.get("last_sync_at")),
        use_count=_count(item.get("use_count"), _MAX_BIG_INT) or 0,
        fail_count=_count(item.get("fail_count"), _MAX_INT) or 0,
        last_used_at=_time(item.get("last_used_at")),
        last_failed_at=_time(item.get("last_fail_at")),
        last_fail_reason=_text(item.get("last_fail_reason"), "last_fail_reason"),
        created_at=_time(item.get("created_at")),
        legacy=_legacy(item, secret),
    )


def _note(item: Mapping[str, Any]) -> str | None:
    """``note``, or the ``name`` an accounts list has instead."""
    for name in ("note", "name"):
        if isinstance(item.get(name), str):
            return _text(item[name], "note")
    return None


def _text(value: object, column: str) -> str:
    """Text that fits its column; anything but a string is empty."""
    if not isinstance(value, str):
        return ""
    return _storable(value).strip()[: COLUMN_LENGTHS[column]]


def _storable(text: str) -> str:
    """Without NUL and lone surrogates, which JSON can spell and databases refuse."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _tags(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    tags = (_storable(tag).strip() for tag in value if isinstance(tag, str))
    return list(dict.fromkeys(tag for tag in tags if tag))


def _status(value: object) -> Status | None:
    return _STATUS_WORDS.get(value.strip().lower()) if isinstance(value, str) else None


def _count(value: object, ceiling: int) -> int | None:
    """A known count; null, text, negative and broken numbers are unknown (http-contract 8)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value < 0 or not math.isfinite(value):
        return None
    return min(int(value), ceiling)


def _time(value: object) -> datetime | None:
    """Milliseconds since the epoch (http-contract 11); zero and nonsense are unknown."""
    milliseconds = _count(value, _MAX_MS)
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _legacy(item: Mapping[str, Any], secret: Secret) -> dict[str, Any]:
    rest = {name: value for name, value in item.items() if name not in _OWN_FIELDS}
    return _open_fields(rest, secret.identity, _MAX_DEPTH)


def _open_fields(fields: Mapping[str, Any], identity: str, depth: int) -> dict[str, Any]:
    return {
        _storable(name): _without_secrets(value, identity, depth - 1)
        for name, value in fields.items()
        if name.lower() not in _SECRET_FIELDS and identity not in name
    }


def _without_secrets(value: object, identity: str, depth: int) -> object:
    """A storable copy in which the secret occurs nowhere; what lies too deep becomes null."""
    if depth == 0:
        return None
    if isinstance(value, str):
        return None if identity in value else _storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_without_secrets(element, identity, depth - 1) for element in value]
    if isinstance(value, dict):
        return _open_fields(value, identity, depth)
    return value
