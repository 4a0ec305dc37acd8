"""The error table, row for row (upstream-web 12, upstream-xai 10.2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import errors
from gateway.upstream.errors import Effect, UpstreamError
from gateway.upstream.taxonomy import (
    ROWS,
    WEB_ROWS,
    XAI_ROWS,
    AlreadySet,
    NotFound,
    TlsFault,
    classify_grpc,
    classify_web,
    classify_web_event,
    classify_xai,
)
from tests.gateway.upstream.streams import PROPERTY

NOW = datetime(2026, 10, 1, 12, 0, 0, tzinfo=UTC)
HTML = b"<!DOCTYPE html><title>Just a moment...</title>"
DETAILS = [{"reason": "blocked-user", "text": "token revoked; content-moderated; rate limit"}]
LOCKED = "Birth date is locked once set. [WKE=account:birth-date-change-limit-reached]"


def said(message: str, **fields: Any) -> dict[str, Any]:
    return {"message": message, **fields}


WEB: list[tuple[int, int | None, Any, type[UpstreamError]]] = [
    (1, 401, b"", errors.CredentialRejected),
    (1, 401, HTML, errors.CredentialRejected),
    (1, 401, said("anything"), errors.CredentialRejected),
    (1, 200, {"status": "unauthenticated", "session": {"userId": "x"}}, errors.CredentialRejected),
    (2, 403, said("User is blocked [WKE=unauthorized:blocked-user]"), errors.CredentialRejected),
    (2, 403, said("user is blocked", code=7), errors.CredentialRejected),
    (
        2,
        None,
        {"error": said("[WKE=unauthorized:blocked-user]", code=7)},
        errors.CredentialRejected,
    ),
    (2, 200, {"status": "blocked"}, errors.CredentialRejected),
    *(
        (3, status, body, errors.CredentialRejected)
        for status in (None, 400, 403)
        for body in (
            {"code": "invalid-credentials"},
            {"error": "bad-credentials"},
            {"error": {"message": "Failed to look up session ID"}},
            said("Session not found"),
            said("token revoked"),
            said("Token expired"),
            said("account suspended"),
            {"error": {"code": "email-domain-rejected"}},
        )
    ),
    (4, 429, said(LOCKED, code=8, details=[]), AlreadySet),
    (5, 429, b"", errors.QuotaExhausted),
    (5, 429, said("content policy"), errors.QuotaExhausted),
    (5, None, {"error": {"code": 8}}, errors.QuotaExhausted),
    (5, None, said("Too many requests"), errors.QuotaExhausted),
    (5, 400, said("Rate limit reached"), errors.QuotaExhausted),
    (5, None, said("You've reached your usage limit."), errors.QuotaExhausted),
    (5, None, said("usage quota"), errors.QuotaExhausted),
    (5, None, {"error": {"code": "rate_limit_exceeded"}}, errors.QuotaExhausted),
    (6, 402, b"", errors.BalanceExhausted),
    (6, 403, said("You have run out of credits"), errors.BalanceExhausted),
    (6, 403, said("usage balance exhausted"), errors.BalanceExhausted),
    (6, None, {"code": "spending-limit"}, errors.BalanceExhausted),
    (6, 400, {"code": "free-usage-exhausted"}, errors.BalanceExhausted),
    *(
        (7, status, said(text), errors.ContentRefused)
        for status in (None, 400, 403)
        for text in (
            "content-moderated",
            "Content moderated",
            "[WKE=grok:content-moderated]",
            "Content violates usage guidelines",
            "Failed check: SAFETY_CHECK_TYPE_X",
            "our content policy",
            "content moderation",
        )
    ),
    *((8, status, said("no"), errors.RequestRejected) for status in (400, 404, 413, 415, 422)),
    (8, None, {"error": {"code": 3}}, errors.RequestRejected),
    (8, None, {"error": {"code": "invalid_argument"}}, errors.RequestRejected),
    (8, None, said("bad_request"), errors.RequestRejected),
    (8, 405, b"", errors.RequestRejected),
    (9, 403, HTML, errors.SessionRejected),
    (9, 403, b"", errors.SessionRejected),
    (9, 403, b"error code: 1020", errors.SessionRejected),
    (9, 503, HTML, errors.SessionRejected),
    (9, 503, b"<script src=/cdn-cgi/challenge-platform/x>", errors.SessionRejected),
    (9, 503, b"<a href='?__cf_chl_tk=x'>", errors.SessionRejected),
    (9, 503, b"<div class=cf-chl-x>", errors.SessionRejected),
    (10, 403, said("no", code=7), errors.SessionRejected),
    (
        10,
        None,
        {"error": {"code": 7, "message": "Rejected by anti-bot rules."}},
        errors.SessionRejected,
    ),
    (10, 403, said("anti-bot"), errors.SessionRejected),
    (10, None, {"error": {"code": "anti_bot"}}, errors.SessionRejected),
    (11, 403, {"code": "permission-denied"}, errors.Forbidden),
    (11, 403, {}, errors.Forbidden),
    (11, 403, said("Access to the chat endpoint is denied"), errors.NotEntitled),
    (12, 500, b"", errors.UpstreamFailed),
    (12, 502, b"<html>Bad gateway</html>", errors.UpstreamFailed),
    (12, None, {"error": {"code": 13}}, errors.UpstreamFailed),
    (12, None, {"error": {"code": 14}}, errors.UpstreamFailed),
    (12, None, {"error": {"code": 16, "message": "x"}}, errors.UpstreamFailed),
    (12, None, said("something new"), errors.UpstreamFailed),
    (12, 302, b"", errors.UpstreamFailed),
    (12, 408, b"", errors.UpstreamFailed),
]


@pytest.mark.parametrize(("row", "status", "body", "expected"), WEB)
def test_every_web_row(
    row: int, status: int | None, body: Any, expected: type[UpstreamError]
) -> None:
    error = classify_web(status, body)
    assert (error.row, type(error)) == (row, expected)
    assert error.upstream_status == status
    if not isinstance(body, bytes):
        as_bytes = classify_web(status, json.dumps(body).encode())
        assert (as_bytes.row, type(as_bytes)) == (row, expected)


def test_every_row_with_a_test_has_a_case_and_the_table_is_whole() -> None:
    assert {row for row, *_ in WEB} == {row.number for row in WEB_ROWS if row.matches}
    assert {row.number for row in WEB_ROWS} == set(range(1, 16))
    assert {row for row, *_ in XAI} == {row.number for row in XAI_ROWS}
    assert (*WEB_ROWS, *XAI_ROWS) == ROWS


@pytest.mark.parametrize(
    ("number", "effect", "retry", "status", "kind", "code"),
    [
        (1, Effect.RETIRE, True, 503, "server_error", "upstream_unavailable"),
        (2, Effect.RETIRE, True, 503, "server_error", "upstream_unavailable"),
        (3, Effect.RETIRE, True, 503, "server_error", "upstream_unavailable"),
        (4, Effect.NONE, False, 502, "server_error", "upstream_error"),
        (5, Effect.COOL_BUCKET, True, 429, "rate_limit_error", "rate_limit_exceeded"),
        (6, Effect.COOL_CREDENTIAL, True, 503, "server_error", "upstream_unavailable"),
        (7, Effect.NONE, False, 400, "invalid_request_error", "content_policy_violation"),
        (8, Effect.NONE, False, 400, "invalid_request_error", "invalid_request"),
        (9, Effect.PROFILE_UNHEALTHY, False, 502, "server_error", "upstream_session_rejected"),
        (10, Effect.PROFILE_UNHEALTHY, False, 502, "server_error", "upstream_session_rejected"),
        (11, Effect.SKIP_MODEL, True, 502, "server_error", "upstream_forbidden"),
        (12, Effect.BACK_OFF, True, 502, "server_error", "upstream_error"),
        (13, Effect.PAUSE, True, 502, "server_error", "upstream_network_error"),
        (14, Effect.NONE, True, 502, "server_error", "upstream_incomplete"),
        (15, Effect.NONE, False, 502, "server_error", "media_postprocessing_failed"),
    ],
)
def test_what_a_row_means(
    number: int, effect: Effect, retry: bool, status: int, kind: str, code: str
) -> None:
    error = next(row.error for row in WEB_ROWS if row.number == number)()
    assert (error.effect, error.retry) == (effect, retry)
    assert (error.status, error.type, error.code) == (status, kind, code)


@pytest.mark.parametrize(
    ("status", "row"), [(None, 12), (403, 11), (400, 8), (404, 8), (500, 12), (402, 6)]
)
def test_marker_text_inside_details_does_not_count(status: int | None, row: int) -> None:
    body = {"code": "odd", "message": "no", "details": DETAILS}
    assert classify_web(status, body).row == row
    assert classify_web(status, {"error": body}).row == row
    assert classify_web(status, {"error": body, "details": DETAILS}).row == row


def test_marker_text_inside_details_does_not_count_in_a_body_cut_at_the_limit() -> None:
    whole = json.dumps({"message": "no", "details": DETAILS * 2}).encode()
    assert {classify_web(403, whole[:size]).row for size in range(20, len(whole))} == {11}


@pytest.mark.parametrize("code", [1, 2, 3, 5, 7, 8, 9, 13, 14, 16, 401, "7", "16"])
@pytest.mark.parametrize("status", [None, 200, 400, 403, 429, 500])
def test_a_bare_number_never_retires(status: int | None, code: int | str) -> None:
    error = classify_web(status, {"error": {"code": code, "message": "x"}})
    assert error.effect is not Effect.RETIRE


def test_words_in_a_page_retire_nobody() -> None:
    assert classify_web(403, b"<p>your token expired, user is blocked</p>").row == 9
    assert classify_web(502, b"<p>user is blocked</p>").row == 12


def test_a_block_is_recognised_before_code_7() -> None:
    assert classify_web_event({"code": 7, "message": "blocked-user"}).row == 2
    assert classify_web_event({"code": 7, "message": "rejected"}).row == 10


@pytest.mark.parametrize(
    ("error", "row"),
    [
        ("too many requests", 5),
        ({"detail": "content-moderated"}, 7),
        ({"error": {"message": "content-moderated"}}, 7),
        ([{"code": 13}, "content-moderated"], 7),
        ([], 12),
        (None, 12),
        (8, 12),
    ],
)
def test_errors_inside_a_stream_come_in_many_shapes(error: object, row: int) -> None:
    assert classify_web_event(error).row == row


@pytest.mark.parametrize(
    ("status", "row"), [(16, 1), (8, 5), (7, 11), (14, 12), (4, 12), (2, 12), (13, 12)]
)
def test_a_grpc_status_is_judged_by_its_http_equivalent(status: int, row: int) -> None:
    assert classify_grpc(status).row == row


def test_a_locked_birth_date_is_recognised_in_a_grpc_message() -> None:
    assert isinstance(classify_grpc(8, LOCKED), AlreadySet)


CREDIT = (
    "Your team t-1 has either used all available credits or reached its monthly spending limit."
)
LIMIT = (
    "Too many requests for team t-1 and model grok-4.3. "
    "Requests per Minute (actual/limit): 61/60. Resets in: 12s"
)
XAI: list[tuple[str, int, Any, type[UpstreamError]]] = [
    (
        "xai-400-key",
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided: xa***zz."},
        errors.CredentialRejected,
    ),
    (
        "xai-400-key",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect%20API%20key%20provided",
        },
        errors.CredentialRejected,
    ),
    (
        "xai-400",
        400,
        {"code": "invalid-argument", "error": "maximum prompt length"},
        errors.RequestRejected,
    ),
    ("xai-400", 400, {"error": {"message": "no", "code": "invalid_image"}}, errors.RequestRejected),
    ("xai-400", 400, b"", errors.RequestRejected),
    ("xai-401", 401, {"code": "unauthenticated:no-credentials"}, errors.CredentialRejected),
    ("xai-401", 401, {"error": {"code": "bad-credentials"}}, errors.CredentialRejected),
    ("xai-402", 402, {"error": "Payment required"}, errors.TeamBalanceExhausted),
    (
        "xai-403-credit",
        403,
        {"code": "permission-denied", "error": CREDIT},
        errors.TeamBalanceExhausted,
    ),
    ("xai-403-credit", 403, {"error": "You have run out of credits"}, errors.TeamBalanceExhausted),
    (
        "xai-403-content",
        403,
        {"error": "Content violates usage guidelines."},
        errors.ContentRefused,
    ),
    (
        "xai-403-content",
        403,
        {"error": {"message": "Failed check: SAFETY_CHECK_TYPE_BIO"}},
        errors.ContentRefused,
    ),
    ("xai-403-edge", 403, b"<html>", errors.Forbidden),
    ("xai-403-edge", 403, b"", errors.Forbidden),
    ("xai-403-permission", 403, {"code": "unauthorized:blocked-user"}, errors.NotEntitled),
    ("xai-403-permission", 403, {"error": "API key is disabled"}, errors.NotEntitled),
    ("xai-404", 404, {"code": "not-found", "error": "The model x does not exist"}, NotFound),
    *(("xai-4xx", status, b"", errors.RequestRejected) for status in (405, 413, 415, 409)),
    ("xai-410", 410, {"error": "Live search is gone"}, errors.RequestRejected),
    ("xai-422", 422, b"missing field", errors.RequestRejected),
    (
        "xai-429-credit",
        429,
        {"code": "resource-exhausted", "error": CREDIT},
        errors.TeamBalanceExhausted,
    ),
    (
        "xai-429-capacity",
        429,
        {"error": {"message": "The model is currently at capacity", "code": 429}},
        errors.UpstreamFailed,
    ),
    ("xai-429", 429, {"code": "resource-exhausted", "error": LIMIT}, errors.QuotaExhausted),
    ("xai-429", 429, {"code": "Some resource has been exhausted"}, errors.QuotaExhausted),
    ("xai-429", 429, b"", errors.QuotaExhausted),
    ("xai-tls", 525, b"<html>", TlsFault),
    ("xai-tls", 526, b"", TlsFault),
    *(
        ("xai-5xx", status, HTML, errors.UpstreamFailed)
        for status in (500, 503, 520, 524, 529, 530)
    ),
    ("xai-5xx", 503, {"code": "The service is currently unavailable"}, errors.UpstreamFailed),
]


@pytest.mark.parametrize(("row", "status", "body", "expected"), XAI)
def test_every_xai_row(row: str, status: int, body: Any, expected: type[UpstreamError]) -> None:
    error = classify_xai(status, body)
    assert (error.row, type(error)) == (row, expected)
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ({"code": "Client specified an invalid argument", "error": "no"}, "xai-400"),
        ({"code": "invalid-argument", "error": "Incorrect API key provided: x"}, "xai-400-key"),
        ({"code": "Some resource has been exhausted", "error": LIMIT}, "xai-429"),
        ({"code": "resource-exhausted", "error": LIMIT}, "xai-429"),
        ({"code": "resource-exhausted", "error": CREDIT}, "xai-403-credit"),
        ({"code": "The service is currently unavailable", "error": "x"}, "xai-5xx"),
        ({"code": "unauthenticated:no-credentials", "error": "x"}, "xai-401"),
        ({"code": "unauthorized:blocked-user", "error": "x"}, "xai-403-permission"),
        (
            {"code": "permission-denied", "error": "Content violates usage guidelines"},
            "xai-403-content",
        ),
        ({"error": {"code": 429, "message": "x"}}, "xai-429"),
        ({"error": "model is currently at capacity"}, "xai-429-capacity"),
        ({"error": "odd"}, "xai-5xx"),
    ],
)
@pytest.mark.parametrize("status", [200, None])
def test_an_xai_error_under_http_200_is_judged_by_its_code(
    status: int | None, body: Any, row: str
) -> None:
    error = classify_xai(status, body)
    assert error.row == row
    assert error.upstream_status == status


def test_only_one_other_team_is_tried_for_a_missing_model() -> None:
    error = classify_xai(404, b"")
    assert (error.retry, error.max_attempts, error.status) == (True, 2, 400)


def test_xai_can_forbid_a_repeat() -> None:
    assert classify_xai(503, b"", headers={"x-should-retry": "false"}).retry is False
    assert classify_xai(503, b"", headers={"x-should-retry": "true"}).retry is True
    assert classify_xai(525, b"").retry is False


@pytest.mark.parametrize(
    ("headers", "message", "expected"),
    [
        ({"Retry-After": "7"}, LIMIT, 7),
        ({"retry-after": "Thu, 01 Oct 2026 12:01:30 GMT"}, "", 90),
        ({"retry-after": "Thu, 01 Oct 2026 11:00:00 GMT"}, "", 0),
        ({}, LIMIT, 12),
        ({}, "Resets in: 1m30s", 90),
        ({}, "resets in 1h 2m", 3720),
        ({}, "Resets in: 500ms", 0.5),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "99999999999"}, "", 30 * 24 * 3600),
        ({}, "", None),
    ],
)
def test_the_wait_upstream_names(
    headers: dict[str, str], message: str, expected: float | None
) -> None:
    for classify in (classify_web, classify_xai):
        for now in (NOW, NOW.timestamp()):
            assert (
                classify(429, {"error": message}, headers=headers, now=now).retry_after == expected
            )


def test_without_a_clock_the_date_of_the_answer_is_the_clock() -> None:
    headers = {
        "Retry-After": "Thu, 01 Oct 2026 12:01:30 GMT",
        "Date": "Thu, 01 Oct 2026 12:00:00 GMT",
    }
    assert classify_web(429, b"", headers=headers).retry_after == 90
    del headers["Date"]
    assert classify_web(429, b"", headers=headers).retry_after is None


@PROPERTY
@given(
    status=st.none() | st.integers(100, 599),
    body=st.binary(max_size=40)
    | st.text(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda inner: st.dictionaries(
            st.sampled_from(["error", "code", "message", "status"]), inner
        ),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_any_reply_has_a_verdict_that_says_nothing_of_upstreams_words(
    status: int | None, body: bytes | str
) -> None:
    for classify in (classify_web, classify_xai):
        error = classify(status, body)
        assert error.row
        assert error.message == type(error).message


def test_evidence_and_message_hold_none_of_upstreams_text() -> None:
    body = b'{"error":{"message":"secret-cookie=abc someone@example.org"}}'
    for error in (classify_web(403, body), classify_xai(403, body)):
        assert "secret" not in f"{error!r} {error} {error.evidence}"
        assert error.evidence.startswith(f"json {len(body)} bytes sha256:")
