"""What a trace says of a request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.exchange import End
from gateway.telemetry.spans import attempt_spans, request_span
from tests.gateway.telemetry.samples import attempt, exchange

START = 1_000_000.0


def test_the_span_of_a_request_has_its_times_and_the_attributes_of_the_conventions() -> None:
    tokens: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 20, "tokens": "measured"}
    span = request_span(exchange(**tokens, bytes_in=100, bytes_out=2000))

    assert (span.name, span.started_at, span.ended_at) == ("chat grok-4", START, START + 3)
    assert not span.failed
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "x_ai",
        "gen_ai.request.model": "grok-4",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.4,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "http.response.status_code": 200,
        "http.request.body.size": 100,
        "http.response.body.size": 2000,
        "grok2api.request.id": "r-1",
        "grok2api.request.end": "completed",
        "grok2api.usage.source": "measured",
    }


def test_a_request_without_a_model_is_named_by_its_operation() -> None:
    span = request_span(exchange(model="", operation="images"))

    assert span.name == "images"
    assert "gen_ai.request.model" not in span.attributes


@pytest.mark.parametrize(
    ("end", "status", "code", "failed", "error_type"),
    [
        (End.COMPLETED, 200, "", False, None),
        (End.REFUSED, 429, "rate_limit_exceeded", False, "rate_limit_exceeded"),
        (End.FAILED, 400, "content_policy_violation", False, "content_policy_violation"),
        (End.FAILED, 502, "upstream_error", True, "upstream_error"),
        (End.BROKEN, 200, "upstream_incomplete", True, "upstream_incomplete"),
        (End.BROKEN, 200, "", True, "broken"),
        (End.STOPPED, 0, "", True, "stopped"),
        (End.CLIENT_GONE, 0, "", False, None),
    ],
)
def test_only_a_fault_of_ours_or_upstreams_is_an_error(
    end: End, status: int, code: str, failed: bool, error_type: str | None
) -> None:
    span = request_span(exchange(end=end, status=status, error_code=code))

    assert span.failed is failed
    assert span.attributes.get("error.type") == error_type


def test_attempts_follow_one_another_up_to_the_first_event() -> None:
    left = attempt(seconds=0.125, left="UpstreamFailed", status=502, row=12)
    spans = attempt_spans(exchange(attempts=[left, attempt(seconds=0.25)], first_event=0.5))

    times = [(span.started_at - START, span.ended_at - START) for span in spans]
    assert times == [(0.125, 0.25), (0.25, 3.0)]
    assert [span.failed for span in spans] == [True, False]
    assert spans[0].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "x_ai",
        "gen_ai.request.model": "grok-4",
        "http.response.status_code": 502,
        "error.type": "UpstreamFailed",
        "grok2api.upstream": "web",
        "grok2api.error.row": 12,
        "grok2api.credential.id": 7,
        "grok2api.credential.kind": "sso",
        "grok2api.credential.bucket": "grok-4",
    }
    assert spans[1].attributes["http.request.resend_count"] == 1


def test_attempts_that_were_all_left_end_with_the_request() -> None:
    lost = [attempt(seconds=0.5, left="NetworkFailed"), attempt(seconds=0.25, left="Forbidden")]
    spans = attempt_spans(exchange(attempts=lost, first_event=None, duration=1.0))

    times = [(span.started_at - START, span.ended_at - START) for span in spans]
    assert times == [(0.25, 0.75), (0.75, 1.0)]


def test_an_attempt_that_was_cut_off_is_no_failure() -> None:
    tried = [attempt(left="UpstreamFailed", row=12), attempt(left="CancelledError")]
    spans = attempt_spans(exchange(attempts=tried, end=End.CLIENT_GONE, first_event=None))

    assert [span.failed for span in spans] == [True, False]
    assert [span.attributes.get("error.type") for span in spans] == ["UpstreamFailed", None]


def test_no_attempt_begins_before_its_request() -> None:
    spans = attempt_spans(exchange(attempts=[attempt(seconds=9.0)] * 2, first_event=0.4))

    assert [span.started_at for span in spans] == [START, START]
    assert attempt_spans(exchange(attempts=[])) == []


def test_no_key_and_nothing_of_a_secret_is_told() -> None:
    whole = exchange(attempts=[attempt(left="Forbidden"), attempt()])

    told = repr([request_span(whole), *attempt_spans(whole)])
    assert "secret name" not in told
    assert "c0ffee" not in told
