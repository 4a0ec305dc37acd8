"""Reading multipart/form-data to the letter, so that its form can be checked too."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r'[; ]name="([^"]*)"')
_FILENAME = re.compile(r'filename="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part; ``filename`` is None for a plain field, backslash escapes undone."""

    name: str
    filename: str | None
    content_type: str
    disposition: str
    content: bytes


def form_parts(body: bytes, content_type: str) -> list[FormPart]:
    """The parts in order; empty for a body that is no multipart/form-data."""
    boundary = content_type.partition("boundary=")[2].strip().strip('"')
    if not content_type.startswith("multipart/form-data") or not boundary:
        return []
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    return [_part(section[2:]) for section in sections[1:-1]]


def _part(section: bytes) -> FormPart:
    head, _, content = section.partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    name = _NAME.search(disposition)
    filename = _FILENAME.search(disposition)
    return FormPart(
        name=name[1] if name else "",
        filename=re.sub(r"\\(.)", r"\1", filename[1]) if filename else None,
        content_type=headers.get("content-type", ""),
        disposition=disposition,
        content=content,
    )
