"""Pictures of api.x.ai: what is asked for, and what the answer means (upstream-xai 7)."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from gateway.upstream.bodies import FilePiece, StreamedBody
from gateway.upstream.errors import (
    ContentRefused,
    ImagesIncomplete,
    RequestRejected,
    UpstreamIncomplete,
)
from gateway.upstream.events import Event, Finished, ImageReady
from gateway.upstream.filetypes import IMAGE_TYPES, canonical_type, sniff
from gateway.upstream.requests import EditRequest, ImageRequest, StoredFile

GENERATIONS_PATH = "/v1/images/generations"
EDITS_PATH = "/v1/images/edits"
MAX_IMAGES = 10
MAX_EDITED = 3
MAX_INPUT_BYTES = 10 * 1024 * 1024
RATIOS = frozenset(
    {
        *("1:1", "3:4", "4:3", "9:16", "16:9", "2:3", "3:2", "9:19.5", "19.5:9"),
        *("9:20", "20:9", "1:2", "2:1", "21:9", "5:2", "auto"),
    }
)


def generation_body(request: ImageRequest, model: str) -> bytes:
    """The JSON body. Raises RequestRejected for what api.x.ai does not take."""
    return encode(_fields(request, model, with_ratio=True))


def edit_body(request: EditRequest, model: str) -> StreamedBody:
    """The JSON body, its pictures as data URIs read from disk while it is sent.

    A single picture keeps its own ratio, so none is sent with it.
    """
    images = request.images
    if not 1 <= len(images) <= MAX_EDITED:
        raise RequestRejected(f"The upstream edits from 1 to {MAX_EDITED} pictures.", row="xai-400")
    many = len(images) > 1
    head = encode(_fields(request, model, with_ratio=many))
    name = b"images" if many else b"image"
    pieces: list[bytes | FilePiece] = [head[:-1] + b',"%b":%b' % (name, b"[" if many else b"")]
    for number, image in enumerate(images):
        pieces += [b"," if number else b"", *data_uri_object(image)]
    return StreamedBody((*pieces, b"]}" if many else b"}"))


def data_uri_object(image: StoredFile) -> tuple[bytes | FilePiece, ...]:
    """``{"url": "data:..."}`` in pieces. Raises RequestRejected for too large a picture."""
    if image.size > MAX_INPUT_BYTES:
        raise RequestRejected("A picture is larger than 10 MiB.", row="xai-400")
    mime_type = image.mime_type if image.mime_type in IMAGE_TYPES else "image/png"
    head = b'{"url":"data:%b;base64,' % mime_type.encode()
    return head, FilePiece(image, base64=True), b'"}'


def encode(fields: Mapping[str, Any]) -> bytes:
    """``fields`` as JSON. Raises RequestRejected for half a surrogate pair."""
    try:
        return to_json(fields)
    except PydanticSerializationError as error:
        raise RequestRejected("The text is not valid Unicode.", row=8) from error


def _fields(request: ImageRequest | EditRequest, model: str, *, with_ratio: bool) -> dict[str, Any]:
    if request.ratio and request.ratio not in RATIOS:
        raise RequestRejected("The upstream does not draw in this aspect ratio.", row="xai-400")
    optional = {
        "aspect_ratio": request.ratio if with_ratio else "",
        "resolution": request.resolution,
        "quality": request.quality,
        "user": request.user,
    }
    return {
        "model": model,
        "prompt": request.prompt,
        "n": max(1, min(request.count, MAX_IMAGES)),
        "response_format": "b64_json" if request.inline else "url",
        **{name: value for name, value in optional.items() if value},
    }


def read_images(
    reply: Mapping[str, Any], wanted: int, allowed: Callable[[object], str]
) -> list[Event]:
    """The pictures of an answer, then Finished with what was blocked or failed.

    ``allowed`` returns an address if its host is one of upstream's, else nothing. Raises
    ContentRefused when moderation left nothing, ImagesIncomplete when nothing else did,
    UpstreamIncomplete for an answer without ``data``.
    """
    data = reply.get("data")
    if not isinstance(data, list):
        raise UpstreamIncomplete(row=14, evidence="an answer without data")
    items = [item for item in data[:MAX_IMAGES] if isinstance(item, dict)]
    open_items = [(i, item) for i, item in enumerate(items) if not _is_blocked(item)]
    blocked = len(items) - len(open_items)
    found = [_picture(index, item, allowed) for index, item in open_items]
    ready: list[Event] = [picture for picture in found if picture is not None]
    if not ready:
        if blocked and blocked == len(items):
            raise ContentRefused(row=7, evidence="every picture was moderated")
        raise ImagesIncomplete(row=14, evidence="an answer without a picture")
    missing = max(0, wanted - len(ready))
    blocked = min(blocked, missing)
    end = Finished(extra=cost_of(reply), blocked=blocked, failed=missing - blocked)
    return [*ready, end]


def cost_of(reply: Mapping[str, Any]) -> dict[str, str]:
    """What it cost, in the vendor's unit, where it says so."""
    usage = reply.get("usage")
    ticks = usage.get("cost_in_usd_ticks") if isinstance(usage, dict) else None
    known = isinstance(ticks, int) and not isinstance(ticks, bool) and 0 < ticks < 10**18
    return {"cost_in_usd_ticks": str(ticks)} if known else {}


def _is_blocked(item: Mapping[str, Any]) -> bool:
    """A block comes with HTTP 200; whatever else the item holds is not for the client."""
    return item.get("respect_moderation") is False


def _picture(
    index: int, item: Mapping[str, Any], allowed: Callable[[object], str]
) -> ImageReady | None:
    data, mime_type = _inline(item.get("b64_json"))
    url = allowed(item.get("url"))
    if not data and not url:
        return None
    declared = item.get("mime_type")
    if not mime_type and isinstance(declared, str):
        mime_type = canonical_type(declared) if canonical_type(declared) in IMAGE_TYPES else ""
    revised = item.get("revised_prompt")
    revised = revised if isinstance(revised, str) else ""
    return ImageReady(index, url, data, mime_type, revised)


def _inline(value: object) -> tuple[str, str]:
    """Base64 that can be undone, and the type of what is in it."""
    if not isinstance(value, str) or not value:
        return "", ""
    try:
        content = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        return "", ""
    found = sniff(content[:16])
    return (value, found if found in IMAGE_TYPES else "") if content else ("", "")
