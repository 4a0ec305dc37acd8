"""The types that are kept and served, told by their first bytes and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.media.names import Kind

HEAD = 64
"""Bytes from the beginning of a file that ``sniff`` wants to see."""


@dataclass(frozen=True, slots=True)
class Format:
    """``extension`` without dot; ``label`` is what people call it."""

    label: str
    mime: str
    extension: str
    kind: Kind


PNG = Format("PNG", "image/png", "png", "image")
JPEG = Format("JPEG", "image/jpeg", "jpg", "image")
WEBP = Format("WebP", "image/webp", "webp", "image")
GIF = Format("GIF", "image/gif", "gif", "image")
MP4 = Format("MP4", "video/mp4", "mp4", "video")
WEBM = Format("WebM", "video/webm", "webm", "video")
PICTURES = (PNG, JPEG, WEBP, GIF)
VIDEOS = (MP4, WEBM)
_NOT_VIDEO = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"M4A "})


def sniff(head: bytes) -> Format | None:
    """The format of a file that begins with ``head``, at least HEAD bytes if it has them."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp" and head[8:12] not in _NOT_VIDEO:
        return MP4
    if head.startswith(b"\x1aE\xdf\xa3") and b"webm" in head[:HEAD]:
        return WEBM
    return None
