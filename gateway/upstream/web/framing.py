"""Cuts the body of a grok.com stream into JSON objects (upstream-web 1.5).

Three wrappings are in use: one object a line, the same dressed as server-sent events,
and objects set end to end with nothing between. All three obey one rule: outside an
object everything up to the next ``{`` is noise; an object ends where its braces balance.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

from gateway.upstream.errors import UpstreamFailed, UpstreamIncomplete

MAX_OBJECT = 8 * 1024 * 1024
"""Bytes one object may take (upstream-web 1.4)."""

_STRUCTURAL = re.compile(rb'["{}]')
_STRING_BODY = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_QUOTE, _OPEN, _CLOSE = b'"{}'


def parse_object(raw: bytes | str) -> dict[str, Any] | None:
    """One JSON object, or None for anything else.

    Half a surrogate pair, raw control characters and broken UTF-8 cost the characters
    concerned, not the object.
    """
    try:
        value = from_json(raw)
    except (ValueError, TypeError):  # TypeError: text that holds half a surrogate pair
        value = _parse_leniently(raw)
    return value if isinstance(value, dict) else None


def _parse_leniently(raw: bytes | str) -> object:
    try:
        whole = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        value = json.loads(whole, strict=False)
        text = json.dumps(value, ensure_ascii=False)
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return json.loads(whole)
    except (ValueError, RecursionError):
        return None


class ObjectScanner:
    """Bytes in, objects out, however the bytes were cut.

    An object that arrives whole is handed to the JSON parser at once: a JSON text that
    parses ends where it ends. Only what the parser refuses is walked by structure. Each
    byte is tried at most once and walked at most once, so the cost is linear.
    """

    def __init__(self, max_object: int = MAX_OBJECT) -> None:
        self._max_object = max_object
        self._held = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._failure: UpstreamFailed | None = None

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The objects completed by ``data``, in order; unparseable ones are skipped.

        Raises UpstreamFailed (row 12) for an object above the cap, after the objects
        before it were handed out.
        """
        if self._failure is not None:
            raise self._failure
        found: list[dict[str, Any]] = []
        try:
            self._consume(data, found)
        except UpstreamFailed as error:
            self._failure = error
            if not found:
                raise
        return found

    def finish(self) -> None:
        """Raises UpstreamIncomplete (row 14) when the body ended inside an object."""
        if self._failure is not None:
            raise self._failure
        if self._depth:
            raise UpstreamIncomplete(row=14, evidence="cut inside an object")

    def _consume(self, data: bytes, found: list[dict[str, Any]]) -> None:
        position, end = 0, len(data)
        line_end = tried_up_to = -1
        while position < end:
            if self._depth:
                position = self._walk(data, position, found)
                continue
            start = data.find(b"{", position)
            if start < 0:
                return
            if start >= tried_up_to:
                if start > line_end:
                    line_end = data.find(b"\n", start)
                    line_end = end if line_end < 0 else line_end
                seam = data.find(b"}{", start, line_end)
                stop = line_end if seam < 0 else seam + 1
                if self._take(data, start, stop, found):
                    position = stop
                    continue
                tried_up_to = stop if seam < 0 else line_end
            position = self._walk(data, start, found)

    def _take(self, data: bytes, start: int, stop: int, found: list[dict[str, Any]]) -> bool:
        if stop - start > self._max_object:
            return False
        try:
            found.append(from_json(data[start:stop]))
        except ValueError:
            return False
        return True

    def _walk(self, data: bytes, start: int, found: list[dict[str, Any]]) -> int:
        """Follow strings and braces from ``start``; return the position after them."""
        position = self._skip_escaped(start)
        end = len(data)
        while position < end:
            if self._in_string:
                position = self._walk_string(data, position)
                continue
            mark = _STRUCTURAL.search(data, position)
            if mark is None:
                position = end
                break
            position = mark.end()
            symbol = data[position - 1]
            if symbol == _QUOTE:
                self._in_string = True
            elif symbol == _OPEN:
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    break
        self._hold(data, start, position, found)
        return position

    def _skip_escaped(self, position: int) -> int:
        if self._escaped:
            self._escaped = False
            return position + 1
        return position

    def _walk_string(self, data: bytes, position: int) -> int:
        body = _STRING_BODY.match(data, position)
        position = body.end() if body else position
        if position < len(data):
            if data[position] == _QUOTE:
                self._in_string = False
            else:
                self._escaped = True
            position += 1
        return position

    def _hold(self, data: bytes, start: int, stop: int, found: list[dict[str, Any]]) -> None:
        if len(self._held) + stop - start > self._max_object:
            raise UpstreamFailed(row=12, evidence="object above the cap")
        self._held += memoryview(data)[start:stop]
        if self._depth:
            return
        value = parse_object(bytes(self._held))
        self._held.clear()
        if value is not None:
            found.append(value)
