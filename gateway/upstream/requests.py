"""What goes into an upstream: frozen values, already validated, in no client's dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["developer", "system", "user", "assistant", "tool"]
ToolMode = Literal["auto", "none", "required", "function"]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture: ``url`` is an http(s) address or a ``data:`` URI."""

    url: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Sound: ``data`` is bare base64, a ``data:`` URI or an http(s) address."""

    data: str
    format: str | None = None


@dataclass(frozen=True, slots=True)
class FilePart:
    """A document: ``source`` is an http(s) address, a ``data:`` URI or bare base64."""

    source: str
    name: str | None = None


Part = TextPart | ImagePart | AudioPart | FilePart


@dataclass(frozen=True, slots=True)
class ToolInvocation:
    """A call an assistant turn of the history made; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    tool_calls: tuple[ToolInvocation, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A client's function; ``parameters`` is a JSON schema or None for no arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``mode`` "function" means: must call ``name``."""

    mode: ToolMode = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat call, whatever dialect it came in.

    ``options`` holds the sampling fields (``temperature``, ``max_completion_tokens``,
    ``response_format``, ...) under api.x.ai's names; the web upstream has no use for
    them. ``model`` is the public id the client asked for.
    """

    model: str
    turns: tuple[Turn, ...]
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool | None = None
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Account:
    """The upstream identity behind a lease.

    ``secret`` is the bare ``sso`` value or the xAI key. ``user_id`` is the web account's
    UUID (upstream-web 1.7); an upstream that has to look it up writes it back here, and
    the caller keeps it with the credential.
    """

    secret: str
    user_id: str | None = None

    def __repr__(self) -> str:
        return f"Account(secret=<hidden>, user_id={self.user_id!r})"


@dataclass(frozen=True, slots=True)
class WebTarget:
    """How grok.com names a model: ``name`` + ``mode_enum`` (Gen 1) or ``mode`` (Gen 2, 3)."""

    name: str
    mode_enum: str
    mode: str


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """Bytes of an attachment with a checked type and a safe name."""

    name: str
    mime_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A checked file that lies on disk; ``size`` in bytes. It must not change while used."""

    name: str
    mime_type: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Pictures from a prompt. ``ratio`` is "2:3" or such, empty for upstream's own choice.

    ``pro`` picks the newer model of grok.com's picture socket, ``nsfw`` sets its flag.
    ``resolution`` ("1k", "1.5k", "2k"), ``quality``, ``user`` and ``inline`` (base64 in
    place of links) are api.x.ai's.
    """

    prompt: str
    count: int = 1
    ratio: str = ""
    nsfw: bool = False
    pro: bool = False
    resolution: str = ""
    quality: str = ""
    inline: bool = False
    user: str = ""


@dataclass(frozen=True, slots=True)
class EditRequest:
    """Pictures made from pictures; the rest is as in ``ImageRequest``."""

    prompt: str
    images: tuple[StoredFile, ...]
    count: int = 1
    ratio: str = ""
    resolution: str = ""
    quality: str = ""
    inline: bool = False
    user: str = ""


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """One video of ``seconds``, from a prompt or, with ``image``, from its first frame.

    ``resolution`` is "480p", "720p" or "1080p"; ``preset`` ("normal", "fun", "spicy",
    "custom") means something to grok.com only, ``user`` to api.x.ai only.
    """

    prompt: str
    ratio: str = "3:2"
    seconds: int = 6
    resolution: str = "480p"
    preset: str = "custom"
    image: StoredFile | None = None
    user: str = ""


LoadFile = Callable[[Part], Awaitable[FetchedFile]]
"""Turns an image, audio or file part into bytes; remembers what it loaded."""
