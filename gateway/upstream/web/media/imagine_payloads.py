"""What the picture socket is asked for, in both dialects (upstream-web 8.1)."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from gateway.upstream.errors import RequestRejected
from gateway.upstream.requests import ImageRequest
from gateway.upstream.web.settings import WebSettings

MAX_ASKED = 10
_LEGACY_RATIOS = frozenset({"16:9", "9:16", "1:1", "2:3", "3:2"})
RATIOS = _LEGACY_RATIOS | {
    *("auto", "4:3", "3:4", "2:1", "1:2", "19.5:9", "9:19.5", "20:9", "9:20"),
}
_LEGACY_ROUND = {False: 6, True: 4}
"""Pictures that a round makes when it is not told how many, by ``pro``."""


def is_legacy(settings: WebSettings) -> bool:
    return settings.media_protocol == "legacy"


def round_size(request: ImageRequest, settings: WebSettings) -> int:
    """How many of the pictures asked for one round can give."""
    most = _LEGACY_ROUND[request.pro] if is_legacy(settings) else MAX_ASKED
    return max(1, min(request.count, most))


def prompt_frames(
    request: ImageRequest, settings: WebSettings, request_id: str, now_ms: int
) -> tuple[bytes, ...]:
    """The frames that begin one round.

    ``request_id`` is a UUIDv4 in the older dialect, ``img_`` and 32 hex digits in the
    newer. Raises RequestRejected for a ratio the dialect does not know.
    """
    if is_legacy(settings):
        content = _legacy_content(request, request_id)
        return (_frame(content, now_ms),)
    content = _content(request, request_id, round_size(request, settings))
    return _frame({"type": "reset"}, now_ms), _frame(content, now_ms)


def _legacy_content(request: ImageRequest, request_id: str) -> dict[str, Any]:
    properties = _properties(request, request.ratio or "2:3", _LEGACY_RATIOS)
    return {
        "requestId": request_id,
        "text": request.prompt,
        "type": "input_scroll",
        "properties": properties,
    }


def _content(request: ImageRequest, request_id: str, count: int) -> dict[str, Any]:
    properties = _properties(request, request.ratio or "auto", RATIOS)
    properties |= {
        "enable_side_by_side": True,
        "enable_pro": request.pro,
        "num_generations": count,
    }
    return {
        "requestId": request_id,
        "text": request.prompt,
        "type": "input_text",
        "properties": properties,
    }


def _properties(request: ImageRequest, ratio: str, known: frozenset[str]) -> dict[str, Any]:
    if ratio not in known:
        raise RequestRejected("The upstream does not draw in this aspect ratio.", row=8)
    return {
        "section_count": 0,
        "is_kids_mode": False,
        "enable_nsfw": request.nsfw,
        "skip_upsampler": False,
        "is_initial": False,
        "aspect_ratio": ratio,
    }


def _frame(content: dict[str, Any], now_ms: int) -> bytes:
    item = {"type": "message", "content": [content]}
    try:
        return to_json({"type": "conversation.item.create", "timestamp": now_ms, "item": item})
    except PydanticSerializationError as error:
        raise RequestRejected("The text is not valid Unicode.", row=8) from error
