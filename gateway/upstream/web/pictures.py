"""Pictures and videos in chat frames (upstream-web 7.1, 7.2, 9.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, ValuesView
from typing import Any
from urllib.parse import urlsplit

from gateway.upstream.events import Event, ImageProgress, ImageReady, VideoProgress, VideoReady
from gateway.upstream.values import percentage
from gateway.upstream.web.cards import Chunk
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
_RESOLUTION = re.compile(r"\d{3,4}p", re.ASCII)
_VIDEO_URLS = (
    *("videoUrl", "contentUrl", "assetUrl", "fileUri", "fileUrl"),
    *("videoURL", "contentURL", "assetURL", "fileURI", "fileURL"),
)


_PART = re.compile(r"-part-\d+$")


def identity(url: str) -> str:
    """What the addresses of one picture or video share: the segment before the file name."""
    path = urlsplit(url).path
    if "/generated/" not in path:
        return url
    return _PART.sub("", path.rsplit("/", 2)[-2])


class Pictures:
    """The pictures of one answer, each given out once, moderated ones never."""

    def __init__(self, assets_url: str) -> None:
        self._assets_url = assets_url
        self._ready: dict[str, int] = {}
        self._refused: set[str] = set()
        self._blocked: set[str] = set()
        self._percent: dict[int, int] = {}
        self._open: set[int] = set()
        self._slots: dict[str, int] = {}
        self._strays: list[str] = []
        self.expected = False

    @property
    def blocked(self) -> int:
        """How many pictures moderation withheld."""
        return len(self._blocked)

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
        key = identifier(frame.get("imageId") or frame.get("assetId"))
        if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < MAX_SLOTS:
            slot = self._slot(key)
        if frame.get("moderated") is True:
            return self._withhold(slot, key, url)
        final = percent >= 100 or frame.get("isFinal") is True
        return self._step(slot, percent, url, final)

    def chunk(self, chunk: Chunk) -> list[Event]:
        """The picture of a card."""
        slot = self._slot(chunk.key)
        if chunk.moderated:
            return self._withhold(slot, chunk.key, chunk.url)
        final = chunk.percent >= 100 and not chunk.failure
        return self._step(slot, chunk.percent, chunk.url, final)

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

    def _withhold(self, slot: int, key: str, url: object) -> list[Event]:
        """A moderated picture: neither its id nor its address is ever given out."""
        self.expected = True
        self._open.discard(slot)
        found = asset_url(url, self._assets_url)
        named = [name for name in (key, identity(found) if found else "") if name]
        self._blocked.add(named[-1] if named else str(slot))
        self._refused.update(named)
        return []

    def _step(self, slot: int, percent: int, url: object, final: bool) -> list[Event]:
        self.expected = True
        if final:
            self._open.discard(slot)
            return self._found(slot, url)
        if self._percent.get(slot) == percent:
            return []
        self._open.add(slot)
        self._percent[slot] = percent
        return [ImageProgress(slot, percent, preview_url=self._preview(url))]

    def _preview(self, url: object) -> str:
        found = asset_url(url, self._assets_url)
        return "" if found and identity(found) in self._refused else found

    def _found(self, slot: int | None, value: object) -> list[Event]:
        url = asset_url(value, self._assets_url)
        path = urlsplit(url).path
        if not url or "-part-" in path:
            return []
        key = identity(url)
        if key in self._ready or key in self._refused or len(self._ready) >= MAX_PICTURES:
            return []
        taken = self._ready.values()
        index = slot if slot is not None and slot not in taken else max(taken, default=-1) + 1
        self._ready[key] = index
        ending = path.rpartition(".")[2].lower()
        return [ImageReady(index, url, mime_type=_TYPES.get(ending, ""))]


class Video:
    """The video of one answer; one that was moderated is never given out."""

    def __init__(self, assets_url: str) -> None:
        self._assets_url = assets_url
        self._percent = -1
        self._poster = ""
        self._resolution = ""
        self._video_id = ""
        self._refused: set[str] = set()
        self.expected = False
        self.moderated = False
        self.ready = False

    def live(self, frame: Mapping[str, Any]) -> list[Event]:
        """A ``streamingVideoGenerationResponse``."""
        self.expected = True
        if self.ready:
            return []
        self._note(frame)
        found = (self._address(frame.get(name)) for name in _VIDEO_URLS)
        url = next(filter(None, found), "")
        if frame.get("moderated") is True:
            self.moderated = True
            self._refused.update(filter(None, (self._video_id, identity(url))))
            return []
        if url:
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

    def _note(self, frame: Mapping[str, Any]) -> None:
        self._poster = asset_url(frame.get("thumbnailImageUrl"), self._assets_url) or self._poster
        self._video_id = identifier(frame.get("videoId")) or self._video_id
        resolution = frame.get("resolutionName")
        if isinstance(resolution, str) and _RESOLUTION.fullmatch(resolution):
            self._resolution = resolution

    def _address(self, value: object) -> str:
        url = asset_url(value, self._assets_url)
        path = urlsplit(url).path
        return url if path.endswith(".mp4") or "/content" in path else ""

    def _done(self, url: str) -> list[Event]:
        video_id = identity(url) if "/generated/" in urlsplit(url).path else self._video_id
        if not self._refused.isdisjoint((video_id, self._video_id)):
            return []
        self.ready = True
        return [VideoReady(url, self._poster, self._resolution, video_id)]


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    inner = value.values() if isinstance(value, Mapping) else value
    if depth < 8 and isinstance(inner, (list, ValuesView)):
        for item in inner:
            yield from _strings(item, depth + 1)
