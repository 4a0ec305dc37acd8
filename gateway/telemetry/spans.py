"""What a trace says of one request: a span for it, and one within for each credential tried.

Attribute names are OpenTelemetry's (GenAI, HTTP, error) where it has one, else begin with
``grok2api.``. Nothing of what was asked or answered is in them, nor of any key or secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gateway.exchange import Attempt, End, Exchange
from gateway.telemetry.outcomes import fault_of

Value = str | bool | int | float
PROVIDER = "x_ai"
_UNFINISHED = frozenset({End.FAILED, End.BROKEN, End.STOPPED})


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """Times are Unix times. ``failed`` marks an error of ours or upstream's, not a client's."""

    name: str
    started_at: float
    ended_at: float
    attributes: dict[str, Value]
    failed: bool


def request_span(exchange: Exchange) -> SpanFacts:
    found: dict[str, Value | None] = {
        **_generation(exchange),
        "gen_ai.request.stream": exchange.streaming,
        "gen_ai.response.time_to_first_chunk": exchange.first_event,
        "gen_ai.usage.input_tokens": exchange.prompt_tokens,
        "gen_ai.usage.output_tokens": exchange.completion_tokens,
        "gen_ai.usage.reasoning.output_tokens": exchange.reasoning_tokens,
        "http.response.status_code": exchange.status or None,
        "http.request.body.size": exchange.bytes_in,
        "http.response.body.size": exchange.bytes_out,
        "grok2api.request.id": exchange.id,
        "grok2api.request.end": exchange.end.value,
        "grok2api.usage.source": exchange.tokens or None,
    }
    unfinished = exchange.end in _UNFINISHED
    # A stream that broke has its 200; an answer of 4xx is the client's own error.
    failed = exchange.status >= 500 or (unfinished and exchange.status < 400)
    if exchange.error_code or failed:
        found["error.type"] = exchange.error_code or exchange.end.value
    ended_at = exchange.started_at + exchange.duration
    return SpanFacts(_name(exchange), exchange.started_at, ended_at, _known(found), failed)


def attempt_spans(exchange: Exchange) -> list[SpanFacts]:
    """In the order of the attempts."""
    return [
        SpanFacts(
            _name(exchange),
            exchange.started_at + start,
            exchange.started_at + end,
            _attempt_attributes(exchange, attempt, number),
            bool(fault_of(attempt, exchange.end)),
        )
        for number, (attempt, (start, end)) in enumerate(
            zip(exchange.attempts, _times(exchange), strict=True)
        )
    ]


def _times(exchange: Exchange) -> list[tuple[float, float]]:
    """Start and end of each attempt, in seconds of the exchange.

    Only their lengths are known, and that they follow one another: the last one began to
    answer when the first event came, or was left at the very end.
    """
    if not exchange.attempts:
        return []
    last = exchange.attempts[-1]
    served = not last.left and exchange.first_event is not None
    moment = (exchange.first_event or 0.0) if served else exchange.duration
    starts = []
    for attempt in reversed(exchange.attempts):
        moment = max(0.0, moment - attempt.seconds)
        starts.append(moment)
    return list(pairwise([*reversed(starts), exchange.duration]))


def _attempt_attributes(exchange: Exchange, attempt: Attempt, number: int) -> dict[str, Value]:
    return _known(
        {
            **_generation(exchange),
            "http.response.status_code": attempt.status,
            "http.request.resend_count": number or None,
            "error.type": fault_of(attempt, exchange.end) or None,
            "grok2api.upstream": attempt.upstream,
            "grok2api.error.row": attempt.row,
            "grok2api.credential.id": attempt.credential_id,
            "grok2api.credential.kind": attempt.kind,
            "grok2api.credential.bucket": attempt.bucket,
        }
    )


def _generation(exchange: Exchange) -> dict[str, Value | None]:
    return {
        "gen_ai.operation.name": exchange.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": exchange.model or None,
    }


def _name(exchange: Exchange) -> str:
    return f"{exchange.operation} {exchange.model}".rstrip()


def _known(found: dict[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in found.items() if value is not None}
