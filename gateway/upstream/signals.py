"""An upstream's complaint, brought into one form before anybody judges it.

Bodies come in the shapes of upstream-web 2.9 and upstream-xai 10.1: flat, nested under
``error``, text only, a page of HTML, or nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from pydantic_core import from_json

Kind = Literal["json", "html", "text", "empty"]
Body = bytes | str | Mapping[str, Any] | None

MAX_RETRY_AFTER = 30 * 24 * 3600.0
_SPOKEN_FIELDS = ("code", "type", "message", "error", "detail")
_MAX_DEPTH = 3
_RESETS_IN = re.compile(r"resets in:?\s*((?:\d+(?:\.\d+)?\s*(?:ms|[dhms])\s*)+)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[dhms])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Signal:
    """What there is to judge by.

    ``status`` is the HTTP status, None for an error inside a stream or on a socket.
    ``code`` is the first number found in a ``code`` field. ``said`` is everything the
    error says for itself, lower-cased: code, message, error and the same one level
    down, never ``details``. ``page`` is the text of an HTML body. ``session`` is the
    ``status`` word of a session reply (upstream-web 1.7).
    """

    status: int | None
    kind: Kind
    code: int | None
    said: str
    page: str
    session: str
    evidence: str

    def says(self, *phrases: str) -> bool:
        return any(phrase in self.said for phrase in phrases)


def read_signal(status: int | None, body: Body) -> Signal:
    """Parse ``body``, which may be cut short or be anything at all; never raises."""
    raw, value = _raw_and_value(body)
    if value is not None:
        fields = value if isinstance(value, Mapping) else {"error": value}
        session = fields.get("status")
        return Signal(
            status=status,
            kind="json",
            code=next(_codes(fields), None),
            said="\n".join(_spoken(fields)).lower(),
            page="",
            session=session.lower() if isinstance(session, str) else "",
            evidence=_evidence("json", raw),
        )
    text = raw.decode("utf-8", "replace").strip().lower()
    kind: Kind = "html" if text.startswith("<") else "text" if text else "empty"
    return Signal(
        status=status,
        kind=kind,
        code=None,
        said=text if kind == "text" else "",
        page=text if kind == "html" else "",
        session="",
        evidence=_evidence(kind, raw),
    )


def retry_after(
    signal: Signal, headers: Mapping[str, str], now: datetime | float | None = None
) -> float | None:
    """Seconds to wait: the ``Retry-After`` header, else "Resets in: ..." in the text.

    ``now`` (aware, or Unix time) turns an HTTP date into a wait; without it the answer's
    own ``Date`` does.
    """
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    wait = _header_wait(lowered.get("retry-after", ""), _moment(now, lowered.get("date", "")))
    if wait is None:
        wait = _spoken_wait(signal.said)
    return None if wait is None else min(max(wait, 0.0), MAX_RETRY_AFTER)


def _raw_and_value(body: Body) -> tuple[bytes, object]:
    """The bytes evidence is taken of, and the JSON value, None where there is none."""
    if isinstance(body, Mapping):
        return _serialised(body), body
    raw = body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body or b"")
    try:
        return raw, from_json(raw)
    except ValueError:
        return raw, _cut_object(raw)


def _serialised(body: Mapping[str, Any]) -> bytes:
    """JSON to take a hash of; empty where JSON cannot say it (a number of 5000 digits)."""
    try:
        return json.dumps(body, default=repr).encode()
    except (ValueError, RecursionError):
        return b""


def _cut_object(raw: bytes) -> object:
    """What was complete of an object cut at the reading limit; None for other text.

    Without this its ``details`` would be taken for plain speech.
    """
    if not raw.lstrip().startswith(b"{"):
        return None
    try:
        return from_json(raw, allow_partial=True)
    except ValueError:
        return {}


def _evidence(kind: Kind, raw: bytes) -> str:
    return f"{kind} {len(raw)} bytes sha256:{hashlib.sha256(raw).hexdigest()[:12]}"


def _spoken(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for name in _SPOKEN_FIELDS:
            yield from _spoken(value.get(name), depth + 1)


def _codes(value: object, depth: int = 0) -> Iterator[int]:
    if not isinstance(value, Mapping) or depth >= _MAX_DEPTH:
        return
    code = value.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        yield code
    elif isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 6:
        yield int(code)
    yield from _codes(value.get("error"), depth + 1)


def _moment(now: datetime | float | None, date: str) -> datetime | None:
    if isinstance(now, datetime):
        return now
    return _http_date(date) if now is None else datetime.fromtimestamp(now, UTC)


def _header_wait(value: str, now: datetime | None) -> float | None:
    if value.isascii() and value.isdigit() and len(value) < 12:
        return float(value)
    then = _http_date(value)
    return None if then is None or now is None else (then - now).total_seconds()


def _http_date(value: str) -> datetime | None:
    if not value:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _spoken_wait(said: str) -> float | None:
    found = _RESETS_IN.search(said)
    if found is None:
        return None
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION.findall(found[1]))
