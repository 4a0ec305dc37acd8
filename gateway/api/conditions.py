"""Conditional and partial requests for one unchanging file (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.http import http_date, parse_http_date_safe

from gateway.wire.errors import ApiError

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"[^"]*"')
_DIGITS = 18
"""More than any file needs; longer numbers cost time to read and mean the same."""


@dataclass(frozen=True, slots=True)
class Version:
    """``modified`` is in whole seconds of Unix time; ``size`` in bytes."""

    etag: str
    modified: int
    size: int

    @property
    def last_modified(self) -> str:
        return http_date(self.modified)


@dataclass(frozen=True, slots=True)
class Span:
    """``status`` is 200 for all of it, 206 for a part."""

    status: int
    start: int
    length: int


def is_unchanged(headers: Mapping[str, str], version: Version) -> bool:
    """Whether the answer is 304: the client has this version; ``headers`` by their usual names."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        known = {tag.removeprefix("W/") for tag in _ETAG.findall(tags)}
        return tags.strip() == "*" or version.etag in known
    since = parse_http_date_safe(headers.get("If-Modified-Since", ""))
    return since is not None and version.modified <= since


def check_preconditions(headers: Mapping[str, str], version: Version) -> None:
    """Raises ApiError 412 where the client wants another version or none."""
    tags = headers.get("If-Match")
    if tags is not None:
        failed = tags.strip() != "*" and version.etag not in _ETAG.findall(tags)
    else:
        until = parse_http_date_safe(headers.get("If-Unmodified-Since", ""))
        failed = until is not None and version.modified > until
    if failed:
        raise ApiError(412, "The file is another version.", code="precondition_failed")


def wanted_span(headers: Mapping[str, str], version: Version) -> Span:
    """What part of the file to send; raises ApiError 416.

    What is no range of bytes is ignored, as are several ranges: the whole file answers
    them too, and no player asks for more than one.
    """
    whole = Span(200, 0, version.size)
    found = _RANGE.fullmatch(headers.get("Range", ""))
    if found is None or not any(found.groups()) or not _is_current(headers, version):
        return whole
    first, last = (_number(text) for text in found.groups())
    if first is None:
        start, end = max(0, version.size - (last or 0)), version.size
        satisfiable = bool(last) and version.size > 0
    else:
        if last is not None and last < first:
            return whole
        start, end = first, version.size if last is None else min(last + 1, version.size)
        satisfiable = first < version.size
    if not satisfiable:
        raise _unsatisfiable(version)
    return Span(206, start, end - start)


def _is_current(headers: Mapping[str, str], version: Version) -> bool:
    """If-Range wants the very same version: no weak tag, no later date."""
    wanted = headers.get("If-Range", "").strip()
    return not wanted or wanted == version.etag or wanted == version.last_modified


def _number(digits: str) -> int | None:
    if not digits:
        return None
    short = digits.lstrip("0") or "0"
    return int(short) if len(short) <= _DIGITS else int("9" * _DIGITS)


def _unsatisfiable(version: Version) -> ApiError:
    return ApiError(
        416,
        "The file has no such part.",
        code="range_not_satisfiable",
        headers={"Content-Range": f"bytes */{version.size}", "Accept-Ranges": "bytes"},
    )
