"""Pictures and videos in chat frames (upstream-web 7.1, 7.2, 9.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, ValuesView
from typing import Any
from urllib.parse import urlsplit

from gateway.upstream.events import Event, ImageProgress, ImageReady, VideoProgress, VideoReady
from gateway.upstream.web.cards import Chunk, percentage
from gateway.upstream.web.links import asset_url, identifier

MAX_PICTURES = 64
MAX_SLOTS = 1024
MAX_STRAYS = 16
MAX_SEARCHED = 64 * 1024
"""Characters of one text that are searched for pictures nobody announced."""
_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_GENERATED = re.compile(
    r"(?:https?://|/?users/)[^\s\"'<>()\\]{0,512}?/generated/[^\s\"'<>()\\]{1,512}"
)
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]{0,512}\]\(([^\s()]{1,8192})\)")
_VIDEO_URLS = (
    *("videoUrl", "contentUrl", "assetUrl", "fileUri", "fileUrl"),
    *("videoURL", "contentURL", "assetURL", "fileURI", "fileURL"),
)


def _identity(url: str) -> str:
    """What two addresses of one picture share: the segment before the file name."""
    path = urlsplit(url).path
    if "/generated/" not in path:
        return url
    return path.rsplit("/", 2)[-2]


class Pictures:
    """The pictures of one answer, each given out once, moderated ones never."""

    def __init__(self, assets_url: str) -> None:
        self._assets_url = assets_url
        self._ready: dict[str, int] = {}
        self._refused: set[str] = set()
        self._percent: dict[int, int] = {}
        self._open: set[int] = set()
        self._slots: dict[str, int] = {}
        self._strays: list[str] = []
        self.expected = False
        self.moderated = False

    @property
    def any_ready(self) -> bool:
        return bool(self._ready)

    @property
    def in_making(self) -> bool:
        return bool(self._open)

    def live(self, frame: Mapping[str, Any]) -> list[Event]:
        """A ``streamingImageGenerationResponse``."""
        slot = frame.get("imageIndex")
        percent = percentage(frame.get("progress"))
        url = frame.get("imageUrl") or frame.get("url")
        if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < MAX_SLOTS:
            slot = self._slot(identifier(frame.get("imageId") or frame.get("assetId")))
        final = percent >= 100 or frame.get("isFinal") is True
        return self._step(slot, percent, url, final, frame.get("moderated") is True)

    def chunk(self, chunk: Chunk) -> list[Event]:
        """The picture of a card."""
        final = chunk.percent >= 100 and not chunk.failure
        return self._step(self._slot(chunk.key), chunk.percent, chunk.url, final, chunk.moderated)

    def urls(self, values: object) -> list[Event]:
        """A ``generatedImageUrls`` list; placeholders and previews are passed over."""
        if not isinstance(values, list):
            return []
        return [event for value in values[:MAX_PICTURES] for event in self._found(None, value)]

    def note_strays(self, value: object) -> None:
        """Remember paths of generated pictures anywhere in ``value``, for want of better."""
        for text in _strings(value):
            if "/generated/" in text and len(self._strays) < MAX_STRAYS:
                self._strays += _GENERATED.findall(text[:MAX_SEARCHED])[:MAX_STRAYS]

    def last_resort(self, answer: str) -> list[Event]:
        """At the end of a turn that promised pictures and gave none: look in the text."""
        if not self.expected or self._ready:
            return []
        shown = _MARKDOWN_IMAGE.findall(answer[:MAX_SEARCHED])
        return self.urls(shown) or self.urls(self._strays)

    def _slot(self, key: str) -> int:
        return self._slots.setdefault(key, len(self._slots)) if len(self._slots) < MAX_SLOTS else 0

    def _step(
        self, slot: int, percent: int, url: object, final: bool, moderated: bool
    ) -> list[Event]:
        self.expected = True
        if moderated:
            self.moderated = True
            self._open.discard(slot)
            if found := asset_url(url, self._assets_url):
                self._refused.add(_identity(found))
            return []
        if final:
            self._open.discard(slot)
            return self._found(slot, url)
        if self._percent.get(slot) == percent:
            return []
        self._open.add(slot)
        self._percent[slot] = percent
        return [ImageProgress(slot, percent)]

    def _found(self, slot: int | None, value: object) -> list[Event]:
        url = asset_url(value, self._assets_url)
        path = urlsplit(url).path
        if not url or "-part-" in path:
            return []
        key = _identity(url)
        if key in self._ready or key in self._refused or len(self._ready) >= MAX_PICTURES:
            return []
        taken = self._ready.values()
        index = slot if slot is not None and slot not in taken else max(taken, default=-1) + 1
        self._ready[key] = index
        ending = path.rpartition(".")[2].lower()
        return [ImageReady(index, url, mime_type=_TYPES.get(ending, ""))]


class Video:
    """The video of one answer; ``moderated`` until a frame with an address says otherwise."""

    def __init__(self, assets_url: str) -> None:
        self._assets_url = assets_url
        self._percent = -1
        self._poster = ""
        self.expected = False
        self.moderated = False
        self.ready = False

    def live(self, frame: Mapping[str, Any]) -> list[Event]:
        """A ``streamingVideoGenerationResponse``."""
        self.expected = True
        if self.ready:
            return []
        self._poster = asset_url(frame.get("thumbnailImageUrl"), self._assets_url) or self._poster
        if frame.get("moderated") is True:
            self.moderated = True
            return []
        for name in _VIDEO_URLS:
            if url := self._address(frame.get(name)):
                return self._done(url)
        percent = percentage(frame.get("progress"))
        if percent <= self._percent:
            return []
        self._percent = percent
        return [VideoProgress(percent)]

    def attachments(self, values: object) -> list[Event]:
        """``modelResponse.fileAttachments``: only a video turn's name its video."""
        if self.ready or self.moderated or not isinstance(values, list):
            return []
        for value in values[:MAX_PICTURES]:
            url = self._address(value)
            if url and (self.expected or urlsplit(url).path.endswith(".mp4")):
                return self._done(url)
        return []

    def _address(self, value: object) -> str:
        url = asset_url(value, self._assets_url)
        path = urlsplit(url).path
        return url if path.endswith(".mp4") or "/content" in path else ""

    def _done(self, url: str) -> list[Event]:
        self.ready = True
        return [VideoReady(url, self._poster)]


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    inner = value.values() if isinstance(value, Mapping) else value
    if depth < 8 and isinstance(inner, (list, ValuesView)):
        for item in inner:
            yield from _strings(item, depth + 1)
