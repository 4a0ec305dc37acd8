"""From the bytes of multipart/form-data (RFC 7578) to parts, whatever the bytes are cut into.

The parser is python-multipart's; here its callbacks become events, and its silence about a
form that stops half-way becomes an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.wire.errors import ApiError, bad_request

_SILENT = logging.Logger("multipart", logging.CRITICAL)
"""The parser's own would fill the log with what any client may get wrong."""
MAX_HEADERS = 16
MAX_HEADER = 4096
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class PartHead:
    """``filename`` is None for a plain field; both names are the client's own words."""

    name: str
    filename: str | None
    content_type: str


class PartEnd:
    """The part that began last is complete."""


Event = PartHead | PartEnd | bytes


@dataclass(slots=True)
class _Headers:
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    seen: dict[bytes, bytes] = field(default_factory=dict)

    def keep(self) -> None:
        self.seen.setdefault(bytes(self.name).lower(), bytes(self.value))
        self.name.clear()
        self.value.clear()

    def head(self) -> PartHead:
        """Raises ApiError for a part without a name."""
        disposition, options = parse_options_header(self.seen.get(b"content-disposition"))
        name = options.get(b"name", b"")
        if disposition != b"form-data" or not 0 < len(name) <= MAX_NAME:
            raise broken("A part of the form has no name.")
        filename = options.get(b"filename")
        return PartHead(
            name=name.decode("utf-8", "replace"),
            filename=None if filename is None else filename.decode("utf-8", "replace"),
            content_type=self.seen.get(b"content-type", b"").decode("latin-1").strip(),
        )


class FormParts:
    """Feed it the body; each event is given once. Raises ApiError for what is no form."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise broken("The form has no boundary.")
        self._events: list[Event] = []
        self._headers = _Headers()
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._head,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._finish,
                },
                max_header_count=MAX_HEADERS,
                max_header_size=MAX_HEADER,
            )
        except FormParserError as error:
            raise broken("The form's boundary is too long.") from error
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> Iterator[Event]:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise broken("The form cannot be read.") from error
        events, self._events = self._events, []
        return iter(events)

    def close(self) -> None:
        """Raises ApiError where the end of the form is missing."""
        if not self._ended:
            raise broken("The form is incomplete.")

    def _begin(self) -> None:
        self._headers = _Headers()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._headers.name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers.value += data[start:end]

    def _header_end(self) -> None:
        self._headers.keep()

    def _head(self) -> None:
        self._events.append(self._headers.head())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _end(self) -> None:
        self._events.append(PartEnd())

    def _finish(self) -> None:
        self._ended = True


def broken(message: str) -> ApiError:
    return bad_request(message, "form_invalid", "body")
