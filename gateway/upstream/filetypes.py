"""The file types that upstream takes as attachments, and what a file really is.

Pictures are believed only by their content; documents by the declared type and the
extension of their name (upstream-web 5.1). Nothing here decodes a picture or unpacks
an archive, so nothing here can be blown up by one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Set as AbstractSet

MAX_NAME = 160
"""Characters in a file name (upstream-web 5.1)."""

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
AUDIO_TYPES = frozenset(
    {"audio/wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/flac", "audio/webm"}
)
DOCUMENT_TYPES = frozenset(
    {
        "application/pdf",
        "application/json",
        "application/xml",
        "application/rtf",
        "application/msword",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.ms-powerpoint",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.ms-excel",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "text/plain",
        "text/csv",
        "text/markdown",
        "text/html",
    }
)
KNOWN_TYPES = IMAGE_TYPES | AUDIO_TYPES | DOCUMENT_TYPES

_TYPE_OF_EXTENSION = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "mp4": "audio/mp4",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "webm": "audio/webm",
    "pdf": "application/pdf",
    "json": "application/json",
    "xml": "application/xml",
    "rtf": "application/rtf",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "txt": "text/plain",
    "csv": "text/csv",
    "md": "text/markdown",
    "markdown": "text/markdown",
    "html": "text/html",
    "htm": "text/html",
}
_EXTENSION_OF_TYPE = {mime: ext for ext, mime in reversed(_TYPE_OF_EXTENSION.items())}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "audio/x-flac": "audio/flac",
    "audio/opus": "audio/ogg",
    "application/ogg": "audio/ogg",
    "application/x-pdf": "application/pdf",
    "text/json": "application/json",
    "text/xml": "application/xml",
    "text/rtf": "application/rtf",
    "text/x-markdown": "text/markdown",
    "application/csv": "text/csv",
    "application/xhtml+xml": "text/html",
}
_SAYS_NOTHING = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download"}
)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "audio/webm"),
)


def canonical_type(declared: str) -> str:
    """A declared MIME type without parameters, lower-case, by its usual name."""
    mime = declared.partition(";")[0].strip().lower()
    return _ALIASES.get(mime, mime)


def type_of_format(name: str) -> str:
    """The type that an extension or an audio format ("mp3") stands for; "" if unknown."""
    return _TYPE_OF_EXTENSION.get(name.lower(), "")


def sniff(content: bytes) -> str:
    """The type that the first bytes give away; "" when they do not."""
    for magic, mime in _MAGIC:
        if content.startswith(magic):
            return mime
    if content[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(content[8:12], "")
    if content[4:8] == b"ftyp" and content[8:12] not in (b"avif", b"avis", b"heic", b"mif1"):
        return "audio/mp4"
    if content[:1] == b"\xff" and content[1:2] in (b"\xfb", b"\xf3", b"\xf2", b"\xfa"):
        return "audio/mpeg"
    return ""


def presumed_type(declared: str, name: str) -> str:
    """What a file claims to be, before its content is seen; "" when it claims nothing.

    A vague type is made precise by the extension: servers give Markdown and CSV as
    text/plain, and anything at all as application/octet-stream.
    """
    mime = canonical_type(declared)
    named = type_of_format(name.rpartition(".")[2]) if "." in name else ""
    if mime in _SAYS_NOTHING:
        return named
    if mime == "text/plain" and named in DOCUMENT_TYPES and _is_text(named):
        return named
    return mime


def settle_type(declared: str, name: str, content: bytes) -> str:
    """The type a file is handed on as; "" when it is none of ours or its content belies it."""
    claimed = presumed_type(declared, name)
    found = sniff(content)
    if not claimed:
        claimed = found
    if claimed.startswith("image/") or found in IMAGE_TYPES:
        agreed = claimed.startswith("image/") and found in IMAGE_TYPES
        return found if agreed else ""
    if claimed in AUDIO_TYPES and found in AUDIO_TYPES:
        return found
    return claimed if claimed in KNOWN_TYPES else ""


def is_accepted(mime: str, accept: AbstractSet[str]) -> bool:
    """Whether ``mime`` is in ``accept``, by itself or by a prefix such as ``image/``."""
    return mime in accept or mime.partition("/")[0] + "/" in accept


def safe_name(name: str, mime: str) -> str:
    """``name`` without path, control and direction characters, extension made to fit.

    At most 160 characters; a name with nothing left becomes "image", "audio" or "file".
    """
    leaf = name.replace("\\", "/").rpartition("/")[2]
    clean = "".join(char for char in leaf[:1000] if unicodedata.category(char)[0] != "C")
    clean = clean.strip(" .")
    stem, dot, extension = clean.rpartition(".")
    if not dot or not type_of_format(extension):
        stem, extension = clean, ""
    if type_of_format(extension) != mime:
        extension = _EXTENSION_OF_TYPE[mime]
    kind = mime.partition("/")[0]
    fallback = kind if kind in ("image", "audio") else "file"
    stem = stem[: MAX_NAME - len(extension) - 1].strip(" .") or fallback
    return f"{stem}.{extension}"


def _is_text(mime: str) -> bool:
    return mime.startswith("text/") or mime in ("application/json", "application/xml")
