"""Which of the import formats a stream is in, and the entries in it.

Formats (upstream-web 1.2, http-contract 11): one token per line; JSON lines; an old
``token.json`` (pool name to items); ``{"provider": "grok_web", "accounts": [...]}``; a bare
array. What begins with ``[`` or ``{`` is JSON, never tokens. Lines are read one at a time;
only a JSON document is held whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any, BinaryIO, Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pool.models import Kind
from pool.token_items import Parsed, Rejected, holds_token, parse_item

MAX_LINE_BYTES = 1024 * 1024
POOL_NAMES = {
    "ssoBasic": Kind.SSO,
    "sso": Kind.SSO,
    "ssoSuper": Kind.SSO_SUPER,
    "api": Kind.API,
}
_BOM = b"\xef\xbb\xbf"
_WEB_PROVIDER = "grok_web"


class FormatError(ValueError):
    """The input as a whole cannot be read. ``reason`` is for the operator."""

    def __init__(self, reason: Promise | str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Source:
    """``unit`` says what the numbers of the entries count."""

    unit: Literal["line", "item"]
    entries: Iterator[Parsed | Rejected]


def open_source(stream: BinaryIO, kind: Kind) -> Source:
    """Detect the format; ``kind`` is for what the input itself says nothing about.

    Raises FormatError when the input is JSON that does not parse or holds no credentials.
    """
    number, first = _first_line(stream)
    if first.lstrip()[:1] in (b"[", b"{"):
        return _json_source(number, first, stream, kind)
    lines = chain([(number, _bounded(first, stream))], _lines(stream, number + 1))
    return Source("line", _token_lines(lines, kind))


def expand(document: object, kind: Kind) -> Iterator[tuple[Kind, object]]:
    """The items of parsed JSON with the kind each is filed under; raises FormatError."""
    if isinstance(document, str):
        return iter([(kind, document)])
    if isinstance(document, list):
        return ((kind, item) for item in document)
    if not isinstance(document, dict):
        raise FormatError(_("this JSON holds no credentials"))
    if isinstance(document.get("accounts"), list):
        return _accounts(document, kind)
    if holds_token(document):
        return iter([(kind, document)])
    return _pools(document)


def _accounts(document: Mapping[str, Any], kind: Kind) -> Iterator[tuple[Kind, object]]:
    if document.get("provider", _WEB_PROVIDER) != _WEB_PROVIDER:
        raise FormatError(_("accounts of a provider other than grok_web"))
    if kind is Kind.API:
        raise FormatError(_("these are web accounts, and the pool asked for holds API keys"))
    return ((kind, item) for item in document["accounts"])


def _pools(document: Mapping[str, Any]) -> Iterator[tuple[Kind, object]]:
    """Pools that are not lists count as empty (http-contract 6.5), unknown ones as basic (8)."""
    pools = {name: items for name, items in document.items() if isinstance(items, list)}
    if document and not pools:
        raise FormatError(_("this JSON holds no credentials"))
    return (
        (POOL_NAMES.get(name, Kind.SSO), item) for name, items in pools.items() for item in items
    )


def _first_line(stream: BinaryIO) -> tuple[int, bytes]:
    """The first line with anything on it, possibly cut at the length limit."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        raw = raw.removeprefix(_BOM) if number == 1 else raw
        if raw.strip():
            return number, raw
    return number, b""


def _lines(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None stands for one that is too long."""
    number = start
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        yield number, _bounded(raw, stream)
        number += 1


def _bounded(raw: bytes, stream: BinaryIO) -> bytes | None:
    if len(raw) <= MAX_LINE_BYTES:
        return raw
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(MAX_LINE_BYTES)
    return None


def _token_lines(
    lines: Iterable[tuple[int, bytes | None]], kind: Kind
) -> Iterator[Parsed | Rejected]:
    for number, raw in lines:
        text = _text(number, raw)
        if isinstance(text, Rejected):
            yield text
        elif text and not text.startswith("#"):
            yield parse_item(number, kind, text)


def _text(number: int, raw: bytes | None) -> str | Rejected:
    if raw is None:
        return Rejected(number, _("line too long"))
    try:
        return raw.decode().strip("\ufeff").strip()
    except UnicodeDecodeError:
        return Rejected(number, _("not valid UTF-8"))


def _json_source(number: int, first: bytes, stream: BinaryIO, kind: Kind) -> Source:
    """A document, or lines when the first one alone is complete and others follow."""
    if len(first) > MAX_LINE_BYTES:
        first += stream.readline()
    try:
        document = _parse(first)
    except ValueError:
        return _whole_document(number, first + stream.read(), kind)
    rest = _lines(stream, number + 1)
    second = next(((at, raw) for at, raw in rest if raw is None or raw.strip()), None)
    if second is None:
        return Source("item", _items(document, kind))
    return Source("line", _json_lines(chain([(number, first), second], rest), kind))


def _whole_document(number: int, whole: bytes, kind: Kind) -> Source:
    try:
        document = _parse(whole)
    except ValueError as error:
        if _is_lines_with_a_bad_first(whole):
            return Source("line", _json_lines(_lines(BytesIO(whole), number), kind))
        raise FormatError(_where_broken(error, number)) from None
    return Source("item", _items(document, kind))


def _is_lines_with_a_bad_first(whole: bytes) -> bool:
    """Objects line by line, of which only the first does not parse."""
    second = next((line for line in whole.split(b"\n", 100)[1:] if line.strip()), b"")
    if not whole.lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(_parse(second), dict)
    except ValueError:
        return False


def _where_broken(error: ValueError, number: int) -> Promise | str:
    if not isinstance(error, json.JSONDecodeError):
        return _("JSON nested too deeply or with an absurd number")
    place = {"line": error.lineno + number - 1, "column": error.colno}
    return _("broken JSON at line %(line)d, column %(column)d") % place


def _items(document: object, kind: Kind) -> Iterator[Parsed | Rejected]:
    """Raises FormatError at once, not at the first item."""
    pairs = expand(document, kind)
    return (parse_item(number, kind, item) for number, (kind, item) in enumerate(pairs, 1))


def _json_lines(
    lines: Iterable[tuple[int, bytes | None]], kind: Kind
) -> Iterator[Parsed | Rejected]:
    for number, raw in lines:
        if raw is None:
            yield Rejected(number, _("line too long"))
        elif raw.strip():
            yield from _json_line(number, raw, kind)


def _json_line(number: int, raw: bytes, kind: Kind) -> Iterator[Parsed | Rejected]:
    try:
        pairs = expand(_parse(raw), kind)
    except FormatError as error:
        yield Rejected(number, error.reason)
    except ValueError:
        yield Rejected(number, _("broken JSON"))
    else:
        for filed, item in pairs:
            yield parse_item(number, filed, item)


def _parse(raw: bytes) -> object:
    """Parsed JSON; NaN and infinities become null. Raises ValueError, also when too deep."""
    # A byte that is not UTF-8 spoils only the string it is in: a token with U+FFFD is refused.
    text = raw.removeprefix(_BOM).decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=lambda _name: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
