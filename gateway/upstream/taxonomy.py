"""The one table of upstream errors: upstream-web section 12 and upstream-xai 10.2.

Rows are tried from top to bottom and the first that matches decides. What a row means
for the credential, for a retry and for the client stands on its exception class
(``gateway.upstream.errors``). Rows without a test are raised where they are noticed;
they are listed so that the table is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from urllib.parse import unquote_plus

from gateway.upstream.errors import (
    BalanceExhausted,
    ContentRefused,
    CredentialRejected,
    Forbidden,
    NetworkFailed,
    NotEntitled,
    PostprocessingFailed,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    TeamBalanceExhausted,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.signals import Body, Signal, read_signal, retry_after


class AlreadySet(UpstreamError):
    """Row 4: a setting that can be set once was set before. For the caller a success."""

    message = "This was already set."


class NotFound(RequestRejected):
    """xAI 404: the model may only be missing for this team, so one other may try."""

    retry = True
    max_attempts = 2


class TlsFault(UpstreamFailed):
    """xAI 525 and 526: repeating does not help."""

    retry = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: ``matches`` is None for what no reply can show."""

    number: int | str
    meaning: str
    error: type[UpstreamError]
    matches: Callable[[Signal], bool] | None = None


NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_GRPC_TO_HTTP = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}
_BLOCKED = ("blocked-user", "user is blocked")
_DEAD = (
    "invalid-credentials",
    "bad-credentials",
    "failed to look up session id",
    "session not found",
    "token revoked",
    "token expired",
    "account suspended",
    "email-domain-rejected",
)
_LIMITED = ("too many requests", "rate limit", "rate_limit", "usage limit", "usage quota")
_BROKE = (
    "run out of credits",
    "usage balance exhausted",
    "spending-limit",
    "free-usage-exhausted",
)
_MODERATED = (
    "content-moderated",
    "content moderated",
    "content violates usage guidelines",
    "safety_check_type_",
    "content policy",
    "content moderation",
)
_CHALLENGE = ("just a moment", "challenge-platform", "__cf_chl", "cf-chl-")
_TEAM_BROKE = (
    "used all available credits",
    "monthly spending limit",
    "run out of credits",
    "have any credits",
)


def _in_band(signal: Signal) -> bool:
    return signal.status is None or signal.status < 300


def _is(*statuses: int) -> Callable[[Signal], bool]:
    return lambda signal: signal.status in statuses


def _says(*phrases: str) -> Callable[[Signal], bool]:
    return lambda signal: signal.says(*phrases)


def _when(status: int, *phrases: str) -> Callable[[Signal], bool]:
    return lambda signal: signal.status == status and signal.says(*phrases)


def _dead_session(signal: Signal) -> bool:
    odd_status = _in_band(signal) or signal.status in {400, 401, 403}
    return odd_status and signal.says(*_DEAD)


def _moderated(signal: Signal) -> bool:
    odd_status = _in_band(signal) or signal.status in {400, 403}
    return odd_status and signal.says(*_MODERATED)


def _own_fault(signal: Signal) -> bool:
    by_status = signal.status in {400, 404, 413, 415, 422}
    return by_status or signal.code == 3 or signal.says("invalid_argument", "bad_request")


def _challenged(signal: Signal) -> bool:
    marked = any(marker in signal.page or marker in signal.said for marker in _CHALLENGE)
    return marked or (signal.status == 403 and signal.kind != "json")


def _broken(signal: Signal) -> bool:
    status = signal.status or 0
    return status >= 500 or signal.code in {13, 14}


def _other_client_error(signal: Signal) -> bool:
    return 400 <= (signal.status or 0) < 500 and signal.status not in {408, 425}


WEB_ROWS: tuple[Row, ...] = (
    Row(
        1,
        "session dead",
        CredentialRejected,
        lambda signal: signal.status == 401 or signal.session == "unauthenticated",
    ),
    Row(
        2,
        "account banned",
        CredentialRejected,
        lambda signal: signal.says(*_BLOCKED) or signal.session == "blocked",
    ),
    Row(3, "dead credential behind an odd status", CredentialRejected, _dead_session),
    Row(4, "already set", AlreadySet, _when(429, "account:birth-date-change-limit-reached")),
    Row(
        5,
        "quota of this mode spent",
        QuotaExhausted,
        lambda signal: signal.status == 429 or signal.code == 8 or signal.says(*_LIMITED),
    ),
    Row(
        6,
        "account balance spent",
        BalanceExhausted,
        lambda signal: signal.status == 402 or signal.says(*_BROKE),
    ),
    Row(7, "content refused", ContentRefused, _moderated),
    Row(8, "the request's own fault", RequestRejected, _own_fault),
    Row(9, "browser session not accepted", SessionRejected, _challenged),
    Row(
        10,
        "refused by anti-bot rules",
        SessionRejected,
        lambda signal: signal.code == 7 or signal.says("anti-bot", "anti_bot"),
    ),
    Row(
        11, "missing entitlement", NotEntitled, _when(403, "access to the chat endpoint is denied")
    ),
    Row(11, "unclassified policy", Forbidden, _is(403)),
    Row(12, "upstream trouble", UpstreamFailed, _broken),
    Row(13, "network", NetworkFailed),
    Row(14, "incomplete stream", UpstreamIncomplete),
    Row(15, "asset download failed", PostprocessingFailed),
    Row(8, "a client error outside the table", RequestRejected, _other_client_error),
    Row(12, "anything else upstream calls an error", UpstreamFailed, lambda signal: True),
)
"""Row 16, unparseable frames and a client that left, is nobody's error and raises nothing."""


def _dead_key(signal: Signal) -> bool:
    return signal.status == 400 and "incorrect api key provided" in unquote_plus(signal.said)


XAI_ROWS: tuple[Row, ...] = (
    Row("xai-400-key", "key dead", CredentialRejected, _dead_key),
    Row("xai-400", "request fault", RequestRejected, _is(400)),
    Row("xai-401", "key rejected", CredentialRejected, _is(401)),
    Row("xai-402", "out of credit", TeamBalanceExhausted, _is(402)),
    Row(
        "xai-403-credit", "out of credit, team wide", TeamBalanceExhausted, _when(403, *_TEAM_BROKE)
    ),
    Row("xai-403-content", "content refused", ContentRefused, _when(403, *_MODERATED)),
    Row(
        "xai-403-edge",
        "refused before the API",
        Forbidden,
        lambda signal: signal.status == 403 and signal.kind != "json",
    ),
    Row("xai-403-permission", "no permission for this key", NotEntitled, _is(403)),
    Row("xai-404", "unknown here, maybe only for this team", NotFound, _is(404)),
    Row("xai-4xx", "method, type or size", RequestRejected, _is(405, 413, 415)),
    Row("xai-410", "retired feature", RequestRejected, _is(410)),
    Row("xai-422", "field missing or of wrong type", RequestRejected, _is(422)),
    Row("xai-429-credit", "out of credit", TeamBalanceExhausted, _when(429, *_TEAM_BROKE)),
    Row("xai-429-capacity", "model at capacity", UpstreamFailed, _when(429, "at capacity")),
    Row("xai-429", "team and model rate limited", QuotaExhausted, _is(429)),
    Row("xai-tls", "TLS fault at the edge", TlsFault, _is(525, 526)),
    Row("xai-4xx", "a client error outside the table", RequestRejected, _other_client_error),
    Row("xai-5xx", "transient", UpstreamFailed, lambda signal: True),
)
ROWS: tuple[Row, ...] = (*WEB_ROWS, *XAI_ROWS)

_XAI_IMPLIED = (
    *((phrase, 403) for phrase in (*_TEAM_BROKE, *_MODERATED)),
    ("incorrect api key provided", 400),
    ("invalid argument", 400),
    ("invalid-argument", 400),
    ("invalid_request", 400),
    ("unauthenticated", 401),
    ("bad-credentials", 401),
    ("resource has been exhausted", 429),
    ("resource-exhausted", 429),
    ("at capacity", 429),
    ("rate_limit", 429),
    ("too many requests", 429),
    ("unauthorized", 403),
    ("permission", 403),
    ("not-found", 404),
    ("not found", 404),
)
"""What a code means when HTTP said 200; both spellings of upstream-xai 10.1."""


def classify_web(
    status: int | None,
    body: Body,
    *,
    headers: Mapping[str, str] = NO_HEADERS,
    now: datetime | float | None = None,
) -> UpstreamError:
    """The error of a grok.com reply, to be raised by the caller.

    ``status`` is None for an error inside a stream or on a socket. ``body`` is already
    decompressed. ``now`` (aware, or Unix time) is used for a ``Retry-After`` date.
    """
    signal = read_signal(status, body)
    return _verdict(WEB_ROWS, signal, headers, now)


def classify_web_event(error: object) -> UpstreamError:
    """The error object of a frame: a mapping, a list of them (the gravest wins), or text."""
    if isinstance(error, list):
        verdicts = [classify_web_event(item) for item in error[:8]]
        return min(verdicts, key=_rank) if verdicts else classify_web(None, None)
    return classify_web(None, {"error": error})


def classify_grpc(status: int, message: str = "") -> UpstreamError:
    """A non-zero ``grpc-status`` by its HTTP equivalent (upstream-web 1.6)."""
    http = {4: 504, 7: 403, 8: 429, 14: 503, 16: 401}.get(status, 502)
    return classify_web(http, {"message": message})


def classify_xai(
    status: int | None,
    body: Body,
    *,
    headers: Mapping[str, str] = NO_HEADERS,
    now: datetime | float | None = None,
) -> UpstreamError:
    """The error of an api.x.ai reply; a status below 400 is replaced by the code's meaning."""
    signal = read_signal(status, body)
    if (status or 0) < 400:
        signal = read_signal(_implied_status(signal), body)
    error = _verdict(XAI_ROWS, signal, headers, now)
    error.upstream_status = status
    if headers.get("x-should-retry", "").strip().lower() == "false":
        error.retry = False
    return error


def _implied_status(signal: Signal) -> int:
    if signal.code is not None:
        if 400 <= signal.code < 600:
            return signal.code
        if signal.code in _GRPC_TO_HTTP:
            return _GRPC_TO_HTTP[signal.code]
    said = unquote_plus(signal.said)
    return next((status for phrase, status in _XAI_IMPLIED if phrase in said), 503)


def _verdict(
    rows: tuple[Row, ...],
    signal: Signal,
    headers: Mapping[str, str],
    now: datetime | float | None,
) -> UpstreamError:
    row = next(row for row in rows if row.matches is not None and row.matches(signal))
    return row.error(
        row=row.number,
        retry_after=retry_after(signal, headers, now),
        upstream_status=signal.status,
        evidence=signal.evidence,
    )


def _rank(error: UpstreamError) -> int:
    return error.row if isinstance(error.row, int) else 0
