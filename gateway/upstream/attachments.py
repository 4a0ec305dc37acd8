"""Turns the attachments of one request into bytes that upstream will take.

An attachment is an http(s) address, a ``data:`` URI or bare base64; limits and types are
those of upstream-web 5.1, and audio besides, which the older clients send.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Set
from typing import Protocol
from urllib.parse import unquote_to_bytes

from gateway.upstream.fetch import (
    MAX_BYTES,
    FetchError,
    FetchFailed,
    FetchRefused,
    FileTooLarge,
    WrongFileType,
)
from gateway.upstream.filetypes import (
    AUDIO_TYPES,
    DOCUMENT_TYPES,
    IMAGE_TYPES,
    is_accepted,
    safe_name,
    settle_type,
    type_of_format,
)
from gateway.upstream.requests import AudioPart, FetchedFile, FilePart, ImagePart, Part, TextPart

MAX_PARTS = 8
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_PLAIN = 4 * 1024 * 1024
"""Characters of a ``data:`` URI without base64: undoing percent signs costs 40 times their size."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE | re.ASCII)
_ACCEPT: dict[type[Part], Set[str]] = {
    ImagePart: IMAGE_TYPES,
    AudioPart: AUDIO_TYPES,
    FilePart: DOCUMENT_TYPES | IMAGE_TYPES,
}
_KIND: dict[type[Part], str] = {ImagePart: "image", AudioPart: "audio", FilePart: "file"}
_INVALID: dict[type[Part], str] = {
    ImagePart: "invalid_image_url",
    AudioPart: "invalid_audio",
    FilePart: "invalid_file",
}
_CODE_OF_FETCH_ERROR: dict[type[FetchError], str] = {
    FetchRefused: "url_not_allowed",
    FileTooLarge: "file_too_large",
    WrongFileType: "unsupported_file_type",
    FetchFailed: "url_fetch_failed",
}


class AttachmentError(Exception):
    """An attachment that cannot be used; ``message`` is ours and safe for the client.

    ``code`` is one of ``invalid_image_url``, ``invalid_file``, ``invalid_audio``,
    ``file_too_large``, ``unsupported_file_type``, ``url_not_allowed``, ``url_fetch_failed``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Fetches(Protocol):
    """What is needed of a fetcher; ``GuardedFetcher`` is the real one."""

    async def fetch(self, url: str, *, accept: Set[str], name_hint: str = "") -> FetchedFile:
        """The file at ``url``; raises FetchError."""


class AttachmentLoader:
    """Loads the attachments of one request, each at most once however often it is asked.

    Make one per request: it counts 8 parts of at most 32 MiB each, 64 MiB together.
    """

    def __init__(self, fetcher: Fetches) -> None:
        self._fetcher = fetcher
        self._locks: dict[Part, asyncio.Lock] = {}
        self._outcomes: dict[Part, FetchedFile | AttachmentError] = {}
        self._total = 0

    async def load(self, part: Part) -> FetchedFile:
        """The checked bytes of an image, audio or file part.

        Whoever asks for a part that is already being loaded waits for that load; a load
        that is cancelled is taken over by the next in line. Raises AttachmentError.
        """
        if isinstance(part, TextPart):
            raise TypeError("a text part is not an attachment")
        if part not in self._locks and len(self._locks) >= MAX_PARTS:
            message = f"A request may have at most {MAX_PARTS} attachments."
            raise AttachmentError(message, "invalid_file")
        async with self._locks.setdefault(part, asyncio.Lock()):
            if part not in self._outcomes:
                self._outcomes[part] = await self._attempt(part)
        outcome = self._outcomes[part]
        if isinstance(outcome, AttachmentError):
            raise AttachmentError(outcome.message, outcome.code)
        return outcome

    async def _attempt(self, part: Part) -> FetchedFile | AttachmentError:
        try:
            file = await self._obtain(part)
        except FetchError as error:
            return AttachmentError(error.reason, _CODE_OF_FETCH_ERROR[type(error)])
        except AttachmentError as error:
            return error
        self._total += len(file.content)
        if self._total > MAX_TOTAL_BYTES:
            message = f"The attachments are larger than {MAX_TOTAL_BYTES} bytes together."
            return AttachmentError(message, "file_too_large")
        return file

    async def _obtain(self, part: Part) -> FetchedFile:
        source = _source(part)
        scheme = _SCHEME.match(source)
        if scheme is None:
            return _inline(part, "", _decode_base64(part, source))
        match scheme[1].lower():
            case "http" | "https":
                accept = _ACCEPT[type(part)]
                return await self._fetcher.fetch(source, accept=accept, name_hint=_name(part))
            case "data":
                return _inline(part, *_read_data_uri(part, source))
        message = f"The {_KIND[type(part)]} must be an http, https or data address."
        raise AttachmentError(message, "url_not_allowed")


def _source(part: Part) -> str:
    match part:
        case ImagePart():
            return part.url.strip()
        case AudioPart():
            return part.data.strip()
        case FilePart():
            return part.source.strip()
        case TextPart():
            return ""


def _name(part: Part) -> str:
    return part.name or "" if isinstance(part, FilePart) else ""


def _read_data_uri(part: Part, uri: str) -> tuple[str, bytes]:
    """The declared type and the bytes of a ``data:`` URI (RFC 2397)."""
    head, comma, payload = uri[len("data:") :].partition(",")
    if not comma:
        raise _invalid(part, "data URI")
    declared, *parameters = head.split(";")
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        return declared, _decode_base64(part, payload)
    if len(payload) > MAX_PLAIN:
        message = f"A data URI of more than {MAX_PLAIN} characters must be in base64."
        raise AttachmentError(message, "file_too_large")
    return declared, unquote_to_bytes(payload)


def _decode_base64(part: Part, text: str) -> bytes:
    if len(text) > (MAX_BYTES + 2) // 3 * 4:
        raise _too_large(part)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise _invalid(part, "base64") from error


def _inline(part: Part, declared: str, content: bytes) -> FetchedFile:
    if not content:
        raise AttachmentError(f"The {_KIND[type(part)]} is empty.", _INVALID[type(part)])
    if len(content) > MAX_BYTES:
        raise _too_large(part)
    if not declared and isinstance(part, AudioPart):
        declared = type_of_format(part.format or "")
    name = _name(part)
    mime = settle_type(declared, name, content)
    if not mime or not is_accepted(mime, _ACCEPT[type(part)]):
        message = f"The {_KIND[type(part)]} is not of a supported type."
        raise AttachmentError(message, "unsupported_file_type")
    return FetchedFile(name=safe_name(name, mime), mime_type=mime, content=content)


def _invalid(part: Part, form: str) -> AttachmentError:
    message = f"The {_KIND[type(part)]} is not valid {form}."
    return AttachmentError(message, _INVALID[type(part)])


def _too_large(part: Part) -> AttachmentError:
    message = f"The {_KIND[type(part)]} is larger than {MAX_BYTES} bytes."
    return AttachmentError(message, "file_too_large")
