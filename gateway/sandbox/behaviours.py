"""How a token's name, or a ``SANDBOX:<name>`` in the prompt, decides what goes wrong.

A token is named ``<behaviour>-<anything>``: the ``sso`` cookie's value, an API key after an
optional ``xai-``, a management key after ``mgmt-``. The longest known name wins, so
``limited-noretry-7`` is not ``limited``. What follows may name a tier (``ok-super-1``,
``ok-heavy-2``, ``ok-unlimited-3``, else basic) and, after ``-team-``, the team of an API key
(``ok-1-team-blue``). Bodies follow upstream-web 2.9 and 12 and upstream-xai 10.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Phase = Literal["", "reset", "hang", "silent", "html"]
Cut = Literal["", "abort", "eof", "late", "ended"]
Garbage = Literal["", "some", "only"]
Wrap = Literal["lines", "sse", "concat"]
AssetFault = Literal["", "denied", "flaky", "html", "wrongtype", "huge", "cut", "reset", "hang"]

HTML = "text/html; charset=utf-8"
JSON = "application/json"
CHALLENGE_PAGE = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b'<body><div id="challenge-platform"></div></body></html>'
)
OTHER_PAGE = b"<!DOCTYPE html><html><body>Something went wrong</body></html>"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole HTTP answer that stands in for the real one."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One row of the table.

    ``web`` and ``xai`` answer instead of the work; ``everywhere`` makes them answer on every
    route of the account, not only where quota is spent. ``at_handshake`` says that a WebSocket
    is refused with ``web``; otherwise, and for a forced behaviour, the ``error`` event carries
    ``code`` and ``message``. ``in_band`` puts that error first in a 200 answer, ``mid`` puts
    it after some answer tokens, ``failed`` lets the answer's last frame report failure.
    ``moderated`` is how many pictures are withheld: none, one or all. ``asset`` is what
    befalls the download of a private asset.
    """

    name: str
    doc: str
    web: Refusal | None = None
    xai: Refusal | None = None
    everywhere: bool = False
    at_handshake: bool = True
    session: str = "authenticated"
    code: int | str = 13
    message: str = "Internal error."
    in_band: bool = False
    mid: bool = False
    failed: bool = False
    phase: Phase = ""
    cut: Cut = ""
    garbage: Garbage = ""
    wrap: Wrap = "lines"
    split: int = 0
    slow: bool = False
    moderated: Literal["none", "one", "all"] = "none"
    asset: AssetFault = ""


def _web(status: int, code: int | str, message: str, **headers: str) -> Refusal:
    body = json.dumps({"code": code, "message": message, "details": []}).encode()
    return Refusal(status, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def _xai(status: int, code: str, error: str, **headers: str) -> Refusal:
    body = json.dumps({"code": code, "error": error}).encode()
    return Refusal(status, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def _gzipped(refusal: Refusal) -> Refusal:
    headers = {**refusal.headers, "Content-Encoding": "gzip"}
    return Refusal(refusal.status, gzip.compress(refusal.body, mtime=0), JSON, headers)


INCORRECT_KEY = _xai(400, "invalid-argument", "Incorrect API key provided: xa***zz.")
NO_CREDENTIALS = _xai(401, "unauthenticated:no-credentials", "No credentials were provided.")
NO_SESSION = _web(401, 16, "Unauthenticated.")
_BAD_CREDENTIALS = _xai(401, "unauthenticated:bad-credentials", "The credentials are not valid.")
_TOO_MANY = "Too many requests"
_XAI_TOO_MANY = (
    "Too many requests for team t-1 and model grok-4.3. "
    "Requests per Minute (actual/limit): 61/60. Resets in: 12s"
)
_REFUSED = "Content violates usage guidelines. [WKE=grok:content-moderated]"
_XAI_REFUSED = "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_DATA_LEAKAGE"
_NO_CREDIT = (
    "Your team t-1 has either used all available credits or reached its monthly spending limit."
)
_NO_PERMISSION = _xai(403, "permission-denied", "The key has no permission for this endpoint.")
_XAI_ERROR = _xai(500, "Internal error", "The service failed.")
_XAI_AWAY = _xai(503, "The service is currently unavailable", "Service temporarily unavailable.")
_TABLE = (
    Behaviour("ok", "Answers normally."),
    Behaviour(
        "unknown",
        "A token nobody issued: 401 on the web, 400 'Incorrect API key' on api.x.ai.",
        web=NO_SESSION,
        xai=INCORRECT_KEY,
        everywhere=True,
        code=16,
        message="Unauthenticated.",
    ),
    Behaviour(
        "expired",
        "A dead session: 401 everywhere.",
        web=NO_SESSION,
        xai=_BAD_CREDENTIALS,
        everywhere=True,
        code=16,
        message="Unauthenticated.",
    ),
    Behaviour(
        "unauthenticated",
        "The session call says so with a 200; everything else is 401.",
        web=NO_SESSION,
        xai=_BAD_CREDENTIALS,
        everywhere=True,
        session="unauthenticated",
        code=16,
        message="Unauthenticated.",
    ),
    Behaviour(
        "blocked",
        "A banned account: 403 with the blocked-user marker; the session call says 'blocked'.",
        web=_web(403, 7, "User is blocked. [WKE=unauthorized:blocked-user]"),
        xai=_xai(403, "unauthorized:blocked-user", "The user is blocked."),
        everywhere=True,
        session="blocked",
        code=7,
        message="User is blocked. [WKE=unauthorized:blocked-user]",
    ),
    Behaviour(
        "deadcred",
        "A dead credential behind an odd status: 403 invalid-credentials; 400 on api.x.ai.",
        web=_web(403, 7, "Failed to look up session ID. [WKE=unauthenticated:invalid-credentials]"),
        xai=INCORRECT_KEY,
        everywhere=True,
        code=7,
        message="Failed to look up session ID. [WKE=unauthenticated:invalid-credentials]",
    ),
    Behaviour(
        "limited",
        "Quota spent: 429 with Retry-After: 7; counters stand at 0.",
        web=_web(429, 8, _TOO_MANY, Retry_After="7"),
        xai=_xai(429, "resource-exhausted", _XAI_TOO_MANY, Retry_After="7"),
        code="rate_limit_exceeded",
        message=_TOO_MANY,
    ),
    Behaviour(
        "limited-noretry",
        "Quota spent: 429 without Retry-After (on api.x.ai the text says 'Resets in: 12s').",
        web=_web(429, 8, _TOO_MANY),
        xai=_xai(429, "Some resource has been exhausted", _XAI_TOO_MANY),
        code="rate_limit_exceeded",
        message=_TOO_MANY,
    ),
    Behaviour(
        "limited-credit",
        "Out of credit behind a 429 on api.x.ai; an ordinary 429 on the web.",
        web=_web(429, 8, _TOO_MANY),
        xai=_xai(429, "resource-exhausted", _NO_CREDIT),
        code="rate_limit_exceeded",
        message=_TOO_MANY,
    ),
    Behaviour("inband", "A 200 whose first object is a server error.", in_band=True),
    Behaviour(
        "inband-limit",
        "A 200 whose first object is a rate-limit error, code 8.",
        in_band=True,
        code=8,
        message=_TOO_MANY,
    ),
    Behaviour(
        "inband-antibot",
        "A 200 whose first object is an anti-bot refusal, code 7.",
        in_band=True,
        code=7,
        message="Request rejected by anti-bot rules.",
    ),
    Behaviour("inband-error", "A 200 whose first object is a server error.", in_band=True),
    Behaviour(
        "inband-moderated",
        "A 200 whose first object is a content refusal; every picture slot is moderated.",
        in_band=True,
        code=7,
        message=_REFUSED,
        moderated="all",
    ),
    Behaviour(
        "midlimit",
        "A rate-limit error after some answer tokens.",
        mid=True,
        code=8,
        message=_TOO_MANY,
    ),
    Behaviour("miderror", "A server error after some answer tokens.", mid=True),
    Behaviour("failed", "The whole answer, but its last frame reports failure.", failed=True),
    Behaviour(
        "broke",
        "No balance: 402 on the web, 403 out-of-credit on api.x.ai.",
        web=_web(402, 9, "You have run out of credits."),
        xai=_xai(403, "permission-denied", _NO_CREDIT),
        code=9,
        message="You have run out of credits.",
    ),
    Behaviour(
        "moderated",
        "Content refused: 403 JSON; on the Imagine socket every picture is moderated.",
        web=_web(403, 7, _REFUSED),
        xai=_xai(403, "permission-denied", _XAI_REFUSED),
        at_handshake=False,
        code=7,
        message=_REFUSED,
        moderated="all",
    ),
    Behaviour("moderated-one", "One picture of a batch (the last) is moderated.", moderated="one"),
    Behaviour(
        "badreq",
        "The request's own fault: 400 invalid argument.",
        web=_web(400, 3, "invalid_argument: the request is not valid"),
        xai=_xai(400, "invalid-argument", "Invalid request content: field is not valid."),
        at_handshake=False,
        code="invalid_argument",
        message="The request is not valid",
    ),
    Behaviour(
        "challenge",
        "The browser session is not accepted: 403 with the edge's challenge page.",
        web=Refusal(403, CHALLENGE_PAGE, HTML),
        xai=Refusal(403, CHALLENGE_PAGE, HTML),
        everywhere=True,
        code="anti_bot",
        message="Request rejected by anti-bot rules.",
    ),
    Behaviour(
        "empty403",
        "403 with an empty body.",
        web=Refusal(403, b"", HTML),
        xai=Refusal(403, b"", HTML),
        everywhere=True,
        code="anti_bot",
        message="Request rejected by anti-bot rules.",
    ),
    Behaviour(
        "forbidden",
        "403 JSON, permission-denied and nothing more.",
        web=_web(403, "permission-denied", "Permission denied."),
        xai=_NO_PERMISSION,
        code="permission-denied",
        message="Permission denied.",
    ),
    Behaviour(
        "noent",
        "Not entitled: access to the chat endpoint is denied.",
        web=_web(403, "permission-denied", "Access to the chat endpoint is denied."),
        xai=_NO_PERMISSION,
        code="permission-denied",
        message="Access to the chat endpoint is denied.",
    ),
    Behaviour(
        "error500", "500 with a JSON error.", web=_web(500, 13, "Internal error."), xai=_XAI_ERROR
    ),
    Behaviour(
        "error503-gzip",
        "503 whose JSON body is gzip-compressed.",
        web=_gzipped(_web(503, 14, "Service unavailable.")),
        xai=_gzipped(_XAI_AWAY),
        code=14,
        message="Service unavailable.",
    ),
    Behaviour("reset", "Resets the TCP connection before any header.", phase="reset"),
    Behaviour("hang", "Never sends a header.", phase="hang"),
    Behaviour("silent", "Sends headers, then nothing at all.", phase="silent"),
    Behaviour("html", "200 with an HTML page.", phase="html"),
    Behaviour("cut", "Resets the TCP connection in the middle of the answer.", cut="abort"),
    Behaviour("cutclean", "Ends cleanly in the middle of the answer.", cut="eof"),
    Behaviour("late-cut", "Resets the connection once the answer is complete.", cut="late"),
    Behaviour(
        "ended", "mgw: session.ended in the middle of the answer; else cutclean.", cut="ended"
    ),
    Behaviour("garbage", "Unparseable bytes among valid frames.", garbage="some"),
    Behaviour("garbageonly", "Nothing but unparseable bytes, then the end.", garbage="only"),
    Behaviour("asset-denied", "Media are made; their download is 403.", asset="denied"),
    Behaviour("asset-flaky", "The first two downloads of an asset are 503.", asset="flaky"),
    Behaviour("asset-html", "The download is a page of HTML with status 200.", asset="html"),
    Behaviour("asset-wrongtype", "The download is declared as text.", asset="wrongtype"),
    Behaviour("asset-huge", "The download has no length and 600 MiB.", asset="huge"),
    Behaviour("asset-cut", "The download breaks off half way.", asset="cut"),
    Behaviour("asset-reset", "The download's connection is reset.", asset="reset"),
    Behaviour("asset-hang", "The download never sends a header.", asset="hang"),
    Behaviour("slow", "One token per 50 ms (see slow_ms).", slow=True),
    Behaviour("wrap-sse", "REST objects wrapped as SSE data lines.", wrap="sse"),
    Behaviour("wrap-concat", "REST objects run together without newlines.", wrap="concat"),
    Behaviour("split1", "The body is written one byte at a time.", split=1),
    Behaviour("split7", "The body is written seven bytes at a time.", split=7),
    Behaviour("split1-sse", "SSE wrapping, written one byte at a time.", split=1, wrap="sse"),
    Behaviour("split1-concat", "No newlines, written one byte at a time.", split=1, wrap="concat"),
)
BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType({row.name: row for row in _TABLE})
"""Every behaviour by its name."""


def behaviour_named(name: str) -> Behaviour | None:
    """The behaviour of a token name: the longest known one that starts it, else None."""
    parts = name.split("-")
    for count in range(len(parts), 0, -1):
        found = BEHAVIOURS.get("-".join(parts[:count]))
        if found is not None:
            return found
    return None


def behaviour_of(token: str, default: str = "unknown") -> Behaviour:
    """The behaviour of a token as sent, its ``xai-`` or ``mgmt-`` taken off."""
    name = token.removeprefix("xai-").removeprefix("mgmt-")
    return behaviour_named(name) or BEHAVIOURS[default]


def describe() -> str:
    """The table as text, one behaviour a line."""
    width = max(map(len, BEHAVIOURS)) + 2
    return "\n".join(f"{row.name + '-*':<{width}}  {row.doc}" for row in _TABLE)
