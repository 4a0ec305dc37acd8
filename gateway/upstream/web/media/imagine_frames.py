"""Decodes one round of the picture socket (upstream-web 8.2, 8.3).

A picture is finished when its slot has both a final image frame and a ``completed``
frame without moderation, in whatever order they come.
"""

from __future__ import annotations

import binascii
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.upstream.errors import (
    BalanceExhausted,
    ContentRefused,
    CredentialRejected,
    ImagesIncomplete,
    QuotaExhausted,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady
from gateway.upstream.filetypes import IMAGE_TYPES, sniff
from gateway.upstream.taxonomy import classify_web_event
from gateway.upstream.values import percentage
from gateway.upstream.web.framing import parse_object
from gateway.upstream.web.links import asset_url, identifier

MAX_BLOB = 32 * 1024 * 1024
"""Bytes of one picture."""
MAX_HELD = 128 * 1024 * 1024
"""Characters of base64 kept for pictures whose ``completed`` frame is still to come."""
MAX_SLOTS = 64
MAX_ID = 256

_DONE = frozenset({"completed", "done", "success"})
_SLOT_NAMES = ("image_id", "job_id", "id", "imageId")
_URL_NAMES = ("url", "imageUrl", "image_url")
_PERCENT_NAMES = ("percentage_complete", "percentageComplete", "progress")
_PLACE_NAMES = ("side_by_side_index", "order", "grid_index")


@dataclass(slots=True)
class Blob:
    """A picture in a frame: checked base64 and what its first bytes give away."""

    data: str = ""
    mime_type: str = ""
    url: str = ""

    def __bool__(self) -> bool:
        return bool(self.data or self.url)


@dataclass(slots=True)
class _Slot:
    """One picture of the round; ``final`` is what waits to be completed."""

    index: int
    final: Blob | None = None
    completed: bool = False
    blocked: bool = False
    closed: bool = False
    previewed: bool = False


class RoundDecoder:
    """Messages in, events out; one per round.

    ``done`` turns true with the last picture wanted, or when there is none left to wait
    for. ``settled`` means that every picture begun is accounted for and at most bytes are
    missing: what does not come soon will not come. ``past`` are ids of earlier rounds on
    the same socket, whose stragglers are not this round's. A picture of more than
    ``max_blob`` bytes is not taken; ``max_held`` characters may wait.
    """

    def __init__(
        self,
        request_id: str,
        wanted: int,
        assets_url: str,
        past: Container[str] = (),
        *,
        max_blob: int = MAX_BLOB,
        max_held: int = MAX_HELD,
    ) -> None:
        self.request_id = request_id
        self._wanted = wanted
        self._assets_url = assets_url
        self._past = past
        self._max_blob = max_blob
        self._max_held = max_held
        self._slots: dict[str, _Slot] = {}
        self._held = 0
        self._ready = 0

    @property
    def slot_ids(self) -> list[str]:
        return list(self._slots)

    @property
    def held(self) -> int:
        """Characters of pictures that wait for their ``completed`` frame."""
        return self._held

    @property
    def done(self) -> bool:
        slots = self._slots.values()
        if self._ready >= self._wanted:
            return True
        return len(slots) >= self._wanted and all(slot.closed for slot in slots)

    @property
    def settled(self) -> bool:
        slots = self._slots.values()
        return bool(slots) and all(slot.closed or slot.completed for slot in slots)

    def feed(self, message: str | bytes) -> list[Event]:
        """The events of one message; none for anything unknown, unparseable or not ours.

        Raises the taxonomy's error for an error frame, UpstreamFailed when more waits
        than may be kept.
        """
        frame = parse_object(message)
        if frame is None or self.done or not self._is_ours(frame):
            return []
        kind, status = _text(frame, "type"), _status(frame)
        if kind == "error" or status == "error":
            raise _failure(frame)
        slot = self._slot(frame)
        if slot is None or slot.closed:
            return []
        if kind == "image":
            return self._on_image(slot, frame)
        if status in _DONE:
            return self._on_completed(slot, frame)
        return []

    def finish(self) -> list[Event]:
        """The end of a round that is done, or will get no further.

        Raises ContentRefused (row 7) when moderation left nothing, ImagesIncomplete
        (row 14) when nothing else did.
        """
        slots = self._slots.values()
        blocked = sum(slot.blocked for slot in slots)
        if not self._ready:
            if blocked and blocked == len(slots):
                raise ContentRefused(row=7, evidence="every picture was moderated")
            raise self._incomplete("no picture was finished")
        missing = max(0, self._wanted - self._ready)
        blocked = min(blocked, missing)
        return [Finished("stop", blocked=blocked, failed=missing - blocked)]

    def closed_early(self) -> UpstreamError:
        """The error of a socket that closed before the round was done."""
        return self._incomplete("the socket closed before the pictures were done")

    def silent(self, error: UpstreamTimeout) -> UpstreamError:
        """The error of a socket that fell silent.

        Pictures that were begun and never finished are the content's own matter: no
        account is to blame and none should try again (8.3).
        """
        if any(slot.previewed for slot in self._slots.values()):
            return self._incomplete("the pictures were begun and not finished")
        return error

    def _incomplete(self, evidence: str) -> UpstreamIncomplete:
        error = ImagesIncomplete(row=14, evidence=evidence)
        error.retry = not any(slot.previewed for slot in self._slots.values())
        return error

    def _is_ours(self, frame: Mapping[str, Any]) -> bool:
        asked = frame.get("request_id") or frame.get("requestId")
        return not asked or asked == self.request_id

    def _slot(self, frame: Mapping[str, Any]) -> _Slot | None:
        key = _slot_id(frame)
        if not key or key in self._past:
            return None
        slot = self._slots.get(key)
        if slot is None and len(self._slots) < MAX_SLOTS:
            slot = self._slots[key] = _Slot(self._free_index(frame))
        return slot

    def _free_index(self, frame: Mapping[str, Any]) -> int:
        taken = {slot.index for slot in self._slots.values()}
        for name in _PLACE_NAMES:
            place = frame.get(name)
            if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < MAX_SLOTS:
                if place not in taken:
                    return place
                break
        return next(index for index in range(MAX_SLOTS) if index not in taken)

    def _on_image(self, slot: _Slot, frame: Mapping[str, Any]) -> list[Event]:
        if frame.get("moderated") is True:
            return self._block(slot)
        blob = self._blob(frame)
        percent = next((frame[name] for name in _PERCENT_NAMES if name in frame), None)
        if percent is not None and percentage(percent) < 100:
            return self._preview(slot, percentage(percent), blob)
        self._keep(slot, blob)
        return self._deliver(slot)

    def _on_completed(self, slot: _Slot, frame: Mapping[str, Any]) -> list[Event]:
        if frame.get("moderated") is True:
            return self._block(slot)
        slot.completed = True
        if slot.final is None and (blob := self._blob(frame)):
            self._keep(slot, blob)
        return self._deliver(slot)

    def _blob(self, frame: Mapping[str, Any]) -> Blob:
        """The picture a frame carries; empty where it has none that can be used."""
        raw = frame.get("blob")
        blob = _decode(raw, self._max_blob) if isinstance(raw, str) and raw else Blob()
        named = next((frame[name] for name in _URL_NAMES if frame.get(name)), "")
        blob.url = asset_url(named, self._assets_url)
        return blob

    def _preview(self, slot: _Slot, percent: int, blob: Blob) -> list[Event]:
        slot.previewed = True
        url = "" if blob.data else blob.url
        return [ImageProgress(slot.index, percent, preview=blob.data, preview_url=url)]

    def _keep(self, slot: _Slot, blob: Blob) -> None:
        self._drop(slot)
        slot.final = blob
        self._held += len(blob.data)
        if self._held > self._max_held:
            raise UpstreamFailed(row=12, evidence="pictures above the cap")

    def _drop(self, slot: _Slot) -> None:
        if slot.final is not None:
            self._held -= len(slot.final.data)
            slot.final = None

    def _block(self, slot: _Slot) -> list[Event]:
        slot.blocked = slot.closed = True
        self._drop(slot)
        return []

    def _deliver(self, slot: _Slot) -> list[Event]:
        """The picture, once both its frames are there; one without content has failed."""
        blob = slot.final
        if blob is None or not slot.completed:
            return []
        slot.closed = True
        self._drop(slot)
        if not blob:
            return []
        self._ready += 1
        return [ImageReady(slot.index, blob.url, blob.data, blob.mime_type)]


def _decode(raw: str, max_bytes: int) -> Blob:
    """Checked base64, bare or a data URI, with no page or JSON inside."""
    if raw.startswith("data:"):
        head, _, raw = raw.partition(",")
        if not head.endswith(";base64"):
            return Blob()
    if len(raw) > (max_bytes + 2) // 3 * 4:
        return Blob()
    try:
        content = binascii.a2b_base64(raw, strict_mode=True)
    except ValueError:
        return Blob()
    if not content or content[:64].lstrip()[:1] in (b"<", b"{"):
        return Blob()
    found = sniff(content[:16])
    return Blob(raw, found if found in IMAGE_TYPES else "")


def _slot_id(frame: Mapping[str, Any]) -> str:
    for name in _SLOT_NAMES:
        if found := identifier(frame.get(name)):
            return found[:MAX_ID]
    url = next((frame[name] for name in _URL_NAMES if frame.get(name)), "")
    if not isinstance(url, str):
        return ""
    try:
        name = urlsplit(url).path.rpartition("/")[2]
    except ValueError:
        return ""
    return name.partition(".")[0][:MAX_ID]


def _status(frame: Mapping[str, Any]) -> str:
    return (_text(frame, "current_status") or _text(frame, "currentStatus")).lower()


def _failure(frame: Mapping[str, Any]) -> UpstreamError:
    """The verdict on an error frame (8.3).

    "Blocked" is said of an account elsewhere; as a code of this socket it is said of the
    content.
    """
    code = identifier(frame.get("err_code") or frame.get("errCode")).lower()
    words = [_text(frame, name) for name in ("err_message", "err_msg")]
    error = frame.get("error")
    inner = error if isinstance(error, (str, Mapping)) else ""
    verdict = classify_web_event({"code": code, "message": " ".join(words), "error": inner})
    if isinstance(verdict, (CredentialRejected, QuotaExhausted, BalanceExhausted)):
        return verdict
    if "moderat" in code or "policy" in code or code.startswith("blocked"):
        return ContentRefused(row=7, evidence=verdict.evidence)
    return verdict


def _text(frame: Mapping[str, Any], name: str) -> str:
    value = frame.get(name)
    return value if isinstance(value, str) else ""
