"""Pictures on their way between clients and upstreams: sizes in, answers and events out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady
from gateway.wire.errors import ApiError, envelope

ImageFormat = Literal["url", "b64_json", "base64"]
VARIATION_PROMPT = (
    "Make a variation of this picture: the same subject and style, composed a little differently."
)
RATIOS = frozenset({"1:1", "16:9", "9:16", "2:3", "3:2"})
OTHER_RATIO = "2:3"
"""For a size that means nothing (http-contract 5.4)."""
PARTIAL = "image_generation.partial_image"
COMPLETED = "image_generation.completed"
INCOMPLETE = "image_generation.incomplete"
"""Ours: the last event of a stream that has fewer pictures than were asked for."""
_RATIO_OF_SIZE = {
    **dict.fromkeys(("1024x1024", "512x512"), "1:1"),
    **dict.fromkeys(("1024x576", "1280x720", "1536x864"), "16:9"),
    **dict.fromkeys(("576x1024", "720x1280", "864x1536"), "9:16"),
    **dict.fromkeys(("1024x1536", "1024x1792", "512x768", "768x1024"), "2:3"),
    **dict.fromkeys(("1536x1024", "1792x1024", "768x512", "1024x768"), "3:2"),
}
_FORMAT_OF_TYPE = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpeg"}


def ratio_of(size: str) -> str:
    """The aspect ratio for a size; never refuses one."""
    asked = size.strip().lower()
    return asked if asked in RATIOS else _RATIO_OF_SIZE.get(asked, OTHER_RATIO)


@dataclass(frozen=True, slots=True)
class ImageHead:
    """What an answer says beside its pictures. ``created`` is Unix time in seconds.

    ``partials`` says whether pictures in the making are told of, ``ignored`` names the parts
    of the request that were accepted and not used.
    """

    created: int
    format: ImageFormat
    size: str
    quality: str
    count: int
    partials: bool = True
    ignored: tuple[str, ...] = ()


def value_of(ready: ImageReady, format_: ImageFormat) -> str:
    return ready.url if format_ == "url" else ready.data


def answer_body(
    head: ImageHead, pictures: Sequence[ImageReady], blocked: int, failed: int
) -> bytes:
    """The whole answer. Upstreams count no tokens for pictures, so ``usage`` is null."""
    answer: dict[str, Any] = {
        "created": head.created,
        "data": [_item(picture, head.format) for picture in pictures],
        "usage": None,
        "blocked": blocked,
        "failed": failed,
    }
    if head.ignored:
        answer["ignored"] = list(head.ignored)
    return _json(answer)


def _item(ready: ImageReady, format_: ImageFormat) -> dict[str, str]:
    item: dict[str, str] = {format_: value_of(ready, format_)}
    if ready.revised_prompt:
        item["revised_prompt"] = ready.revised_prompt
    return item


@dataclass(slots=True)
class Places:
    """Gives pictures their places from 0 to ``count - 1``, in the order in which they appear.

    Upstream may draw more than were asked for: one without a place takes over that of one
    that is still unfinished once it is finished itself, and is left out before.
    """

    count: int
    _place_of: dict[int, int] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)

    def in_progress(self, index: int) -> int | None:
        place = self._place_of.get(index)
        if place is None and len(self._place_of) < self.count:
            place = self._place_of[index] = len(self._place_of)
        return None if place in self._done else place

    def finished(self, index: int) -> int | None:
        place = self.in_progress(index)
        if place is None and index not in self._place_of:
            place = self._take_over(index)
        if place is not None:
            self._done.add(place)
        return place

    def _take_over(self, index: int) -> int | None:
        for other, place in self._place_of.items():
            if place not in self._done:
                del self._place_of[other]
                self._place_of[index] = place
                return place
        return None


class ImageEvents:
    """Encodes the events of one drawing as server-sent events with names."""

    def __init__(self, head: ImageHead) -> None:
        self._head = head
        self._places = Places(head.count)
        self._partials = 0
        self.delivered = 0

    def encode(self, batch: Sequence[Event]) -> bytes:
        """All events of one batch as one message; may be empty."""
        return b"".join(self._one(event) for event in batch)

    def _one(self, event: Event) -> bytes:
        match event:
            case ImageProgress():
                return self._partial(event)
            case ImageReady():
                return self._completed(event)
            case Finished():
                return self._end(event)
        return b""

    def _partial(self, event: ImageProgress) -> bytes:
        place = self._places.in_progress(event.index)
        if place is None or not self._head.partials:
            return b""
        number, self._partials = self._partials, self._partials + 1
        head = self._head
        values = {"b64_json": event.preview}
        values[head.format] = event.preview_url if head.format == "url" else event.preview
        more = {"index": place, "progress": event.percent, "partial_image_index": number}
        return named(PARTIAL, values | more | self._shared(""))

    def _completed(self, event: ImageReady) -> bytes:
        place = self._places.finished(event.index)
        if place is None:
            return b""
        self.delivered += 1
        head = self._head
        values: dict[str, Any] = {head.format: value_of(event, head.format), "index": place}
        if event.revised_prompt:
            values["revised_prompt"] = event.revised_prompt
        return named(COMPLETED, values | {"usage": None} | self._shared(event.mime_type))

    def _shared(self, mime_type: str) -> dict[str, Any]:
        head = self._head
        shared: dict[str, Any] = {
            "created_at": head.created,
            "size": head.size,
            "quality": head.quality,
            "background": "auto",
            "output_format": _FORMAT_OF_TYPE.get(mime_type, "jpeg"),
        }
        return shared | ({"ignored": list(head.ignored)} if head.ignored else {})

    def _end(self, event: Finished) -> bytes:
        if self.delivered >= self._head.count:
            return b""
        return named(INCOMPLETE, {"blocked": event.blocked, "failed": event.failed})

    def fail(self, error: ApiError) -> bytes:
        """The end of a stream that broke."""
        return named("error", envelope(error.message, error.type, error.code, error.param))


def named(name: str, fields: Mapping[str, Any]) -> bytes:
    """A server-sent event whose type is in its name and in its data."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json({"type": name, **fields}))


def _json(value: Any) -> bytes:
    """Fast for what is large; what holds half a surrogate pair is written with escapes."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value).encode()
