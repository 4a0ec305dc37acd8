"""What grok.com says is left (upstream-web 6.1-6.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from gateway.upstream.errors import UpstreamFailed

RATE_LIMITS_PATH = "/rest/rate-limits"
MEDIA_QUOTA_PATH = "/rest/media/imagine/quota_info"
DEFAULT_WINDOW = 7200.0

_MEDIA_BUCKETS = {
    "imagePro": "image_pro",
    "imageEdit": "image_edit",
    "video": "video",
    "video720p": "video_720p",
}
_MEDIA_KEYS = ("image", *_MEDIA_BUCKETS)


@dataclass(frozen=True, slots=True)
class QuotaReading:
    """One bucket as upstream reported it.

    ``remaining`` and ``total`` are queries (or Gen 1 token units); None means unknown,
    never zero. ``resets_at`` is in epoch seconds, ``window`` its length in seconds and
    ``wait`` the seconds until another request is possible, where upstream says so.
    """

    remaining: int | None
    total: int | None = None
    window: float | None = None
    resets_at: float | None = None
    wait: float | None = None


def rate_limit_body(model_or_mode: str, *, by_mode: bool) -> bytes:
    """The query: a mode alone, or a Gen 1 model name with its request kind."""
    if by_mode:
        return to_json({"modelName": model_or_mode})
    return to_json({"requestKind": "DEFAULT", "modelName": model_or_mode})


def parse_rate_limit(reply: Mapping[str, Any], now: float) -> QuotaReading:
    """Read a rate-limit reply received at ``now`` (epoch seconds)."""
    total = _count(reply.get("totalQueries"))
    if total:
        remaining = _count(reply.get("remainingQueries"))
    else:
        total = _count(reply.get("totalTokens"))
        remaining = _count(reply.get("remainingTokens"))
    window = _seconds(reply.get("windowSizeSeconds")) or DEFAULT_WINDOW
    return QuotaReading(
        remaining=remaining,
        total=total,
        window=window,
        resets_at=now + window,
        wait=_seconds(reply.get("waitTimeSeconds")),
    )


def parse_media_quota(reply: Mapping[str, Any], now: float) -> dict[str, QuotaReading | None]:
    """Buckets by name; None is a product this account is not offered.

    Raises UpstreamFailed for a partial or malformed reply: half a snapshot would erase
    what is known.
    """
    if any(key not in reply for key in _MEDIA_KEYS):
        raise UpstreamFailed(row=12, evidence="media quota reply with a key missing")
    return {bucket: _product(reply[key], now) for key, bucket in _MEDIA_BUCKETS.items()}


def _product(value: Any, now: float) -> QuotaReading | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("available"), bool):
        raise UpstreamFailed(row=12, evidence="malformed media quota")
    window = _seconds(value.get("windowSizeSeconds"))
    resets_at = _instant(value.get("nextAvailableAt"))
    if resets_at is None and window is not None:
        resets_at = now + window
    if not value["available"]:
        return QuotaReading(remaining=0, window=window, resets_at=resets_at)
    remaining = _count(value.get("remainingQueries"))
    if remaining is None or window is None:
        raise UpstreamFailed(row=12, evidence="malformed media quota")
    return QuotaReading(remaining=remaining, window=window, resets_at=resets_at)


def _count(value: Any) -> int | None:
    number = _seconds(value)
    return None if number is None else int(number)


def _seconds(value: Any) -> float | None:
    """A non-negative finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _instant(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
