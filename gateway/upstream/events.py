"""What an upstream says, in the one vocabulary every client dialect is encoded from.

Upstreams yield *batches*, one ``list[Event]`` per network read, so that a dialect
can encode everything that arrived together into one body message. The classes are
slotted but not frozen: one is made per frame, and freezing costs four times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(slots=True)
class Text:
    """A piece of the answer, clean of upstream markup."""

    text: str


@dataclass(slots=True)
class Reasoning:
    """A piece of the model's thinking; never part of the answer."""

    text: str


@dataclass(slots=True)
class ToolCall:
    """One whole call of a client's function tool; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class Source:
    """A page or post the answer rests on.

    ``start`` and ``end`` are character offsets into the whole answer text when the
    source is cited inline, else None.
    """

    url: str
    title: str = ""
    start: int | None = None
    end: int | None = None


@dataclass(slots=True)
class ImageProgress:
    """A picture in the making: ``percent`` 0-100.

    ``preview`` is a partial picture in base64, ``preview_url`` where there is one to
    fetch; both are empty where upstream sends none.
    """

    index: int
    percent: int
    preview: str = ""
    preview_url: str = ""


@dataclass(slots=True)
class ImageReady:
    """A finished picture: an absolute ``url``, or base64 ``data``, or both.

    ``index`` is its place as upstream numbers it: unique in one stream, not always
    below the number of pictures asked for. ``mime_type`` is empty where it is unknown.
    """

    index: int
    url: str = ""
    data: str = ""
    mime_type: str = ""
    revised_prompt: str = ""


@dataclass(slots=True)
class VideoProgress:
    """A video in the making: ``percent`` 0-100."""

    percent: int


@dataclass(slots=True)
class VideoReady:
    """A finished video and, where upstream made one, its poster picture.

    ``resolution`` ("480p", "720p") and ``video_id`` (what an upscale asks for) are empty
    where upstream did not say.
    """

    url: str
    poster_url: str = ""
    resolution: str = ""
    video_id: str = ""


@dataclass(slots=True)
class Usage:
    """Token counts. ``estimated`` marks numbers that upstream did not report.

    ``completion`` excludes ``reasoning``; ``cached`` is part of ``prompt``.
    """

    prompt: int
    completion: int
    reasoning: int = 0
    cached: int = 0
    estimated: bool = False


@dataclass(slots=True)
class Finished:
    """The answer is complete; always the last event of a successful stream.

    ``blocked`` counts the pictures that moderation withheld, ``failed`` those that were
    asked for and came to nothing.
    """

    reason: FinishReason = "stop"
    response_id: str = ""
    fingerprint: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    blocked: int = 0
    failed: int = 0


Event = (
    Text
    | Reasoning
    | ToolCall
    | Source
    | ImageProgress
    | ImageReady
    | VideoProgress
    | VideoReady
    | Usage
    | Finished
)
SEMANTIC = (Text, Reasoning, ToolCall, ImageProgress, ImageReady, VideoProgress, VideoReady)
"""The event types that commit a stream: once one was sent, no other attempt follows."""
