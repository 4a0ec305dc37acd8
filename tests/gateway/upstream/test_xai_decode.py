"""api.x.ai's answers as events."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import (
    CredentialRejected,
    QuotaExhausted,
    RequestRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.events import (
    Event,
    Finished,
    Reasoning,
    Source,
    Text,
    ToolCall,
    Usage,
)
from gateway.upstream.xai.decode import XaiStreamDecoder, decode_completion

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 3,
    "total_tokens": 143,
    "prompt_tokens_details": {"cached_tokens": 32},
    "completion_tokens_details": {"reasoning_tokens": 100},
    "cost_in_usd_ticks": 2739000,
}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> Any:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "7d1c", "object": "chat.completion.chunk", "choices": choices, **more}


def sse(*chunks: Any, end: str = "\n", done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(item, ensure_ascii=False)}{end}{end}" for item in chunks]
    return ("".join(lines) + (f"data: [DONE]{end}{end}" if done else "")).encode()


def run(pieces: Iterable[bytes]) -> tuple[list[Event], UpstreamError | None]:
    """Everything a reader gets to see, in order: events, then perhaps an error."""
    decoder = XaiStreamDecoder()
    events: list[Event] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.finish()
    except UpstreamError as error:
        return events, error
    return events, None


def answer(*chunks: Any, done: bool = True) -> list[Event]:
    events, error = run([sse(*chunks, done=done)])
    assert error is None
    return events


FULL = (
    chunk({"role": "assistant", "reasoning_content": "Adding"}, system_fingerprint="fp_1"),
    chunk({"content": "Fünf "}),
    chunk({"content": "是 5.\r\n"}),
    chunk(
        {
            "tool_calls": [
                {"id": "call_1", "index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
            ]
        }
    ),
    chunk({}, "stop", citations=["https://example.org/1"]),
    chunk(usage=USAGE),
)
FULL_EVENTS: list[Event] = [
    Reasoning("Adding"),
    Text("Fünf "),
    Text("是 5.\r\n"),
    ToolCall("call_1", "f", '{"a":1}'),
    Source("https://example.org/1"),
    Usage(prompt=40, completion=3, reasoning=100, cached=32),
    Finished("tool_calls", "7d1c", "fp_1", {"cost_in_usd_ticks": "2739000"}),
]


def test_it_works() -> None:
    assert answer(*FULL) == FULL_EVENTS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_it_gives_the_same_events_wherever_the_bytes_are_cut(end: str) -> None:
    data = b": hello" + end.encode() + sse(*FULL, end=end)
    for cut in range(len(data) + 1):
        assert run([data[:cut], data[cut:]]) == (FULL_EVENTS, None), cut
    assert run(bytes([byte]) for byte in data) == (FULL_EVENTS, None)


@given(st.lists(st.integers(0, 1200), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_it_gives_the_same_events_in_any_number_of_pieces(cuts: list[int], end: str) -> None:
    data = sse(*FULL, end=end)
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(borders)]
    assert run(pieces) == (FULL_EVENTS, None)


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_it_never_loses_text_before_an_error(cuts: list[int]) -> None:
    failure = {"code": "resource-exhausted", "error": "Too many requests for team t"}
    data = sse(chunk({"content": "a"}), chunk({"content": "b"}), failure, chunk({"content": "c"}))
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    events, error = run(data[a:b] for a, b in itertools.pairwise(borders))
    assert events == [Text("a"), Text("b")]
    assert isinstance(error, QuotaExhausted)


def test_it_reports_an_error_that_comes_alone_at_once() -> None:
    decoder = XaiStreamDecoder()
    with pytest.raises(QuotaExhausted):
        decoder.feed(sse({"code": "resource-exhausted", "error": "Too many requests"}))
    assert decoder.done


def test_it_says_that_it_is_done_while_it_holds_an_error_back() -> None:
    decoder = XaiStreamDecoder()
    failure = {"error": {"message": "The service is currently unavailable", "code": 503}}
    assert decoder.feed(sse(chunk({"content": "a"}), failure)) == [Text("a")]
    assert decoder.done
    assert not decoder.complete
    with pytest.raises(UpstreamFailed):
        decoder.finish()


@pytest.mark.parametrize("done", [True, False])
def test_it_takes_either_end_for_the_end(done: bool) -> None:
    assert answer(chunk({"content": "a"}, "stop"), done=done)[-1] == Finished("stop", "7d1c")


def test_it_takes_done_alone_for_the_end() -> None:
    assert answer(chunk({"content": "a"})) == [Text("a"), Finished("stop", "7d1c")]


def test_it_reads_a_last_event_without_its_blank_line() -> None:
    data = sse(chunk({"content": "a"}), done=False) + b"data: [DONE]"
    assert run([data]) == ([Text("a"), Finished("stop", "7d1c")], None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
        b"data: {broken\n\n",
        b"data: 3\n\ndata: null\n\n",
        sse(chunk({"content": ""}), done=False),
    ],
)
def test_it_calls_an_answer_without_an_end_incomplete(data: bytes) -> None:
    events, error = run([data])
    assert events == []
    assert isinstance(error, UpstreamIncomplete)


def test_it_emits_no_half_a_tool_call() -> None:
    piece = {"tool_calls": [{"id": "c", "index": 0, "function": {"name": "f", "arguments": '{"'}}]}
    events, error = run([sse(chunk(piece), done=False)])
    assert events == []
    assert isinstance(error, UpstreamIncomplete)


@pytest.mark.parametrize(
    ("given_reason", "reason"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_it_maps_finish_reasons(given_reason: str, reason: Any) -> None:
    assert answer(chunk({"content": "a"}, given_reason))[-1] == Finished(reason, "7d1c")


def tool_piece(index: int | None, arguments: Any, **more: Any) -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"arguments": arguments, **more.pop("function", {})}}
    return piece | more | ({} if index is None else {"index": index})


def test_it_joins_fragmented_tool_calls_by_index() -> None:
    events = answer(
        chunk({"tool_calls": [tool_piece(0, "", id="c0", function={"name": "f"})]}),
        chunk({"tool_calls": [tool_piece(1, '{"b"', id="c1", function={"name": "g"})]}),
        chunk({"tool_calls": [tool_piece(0, '{"a":'), tool_piece(1, ":2}")]}),
        chunk({"tool_calls": [tool_piece(0, "1}")]}),
        chunk({}, "tool_calls"),
    )
    assert events[:2] == [ToolCall("c0", "f", '{"a":1}'), ToolCall("c1", "g", '{"b":2}')]
    assert events[2] == Finished("tool_calls", "7d1c")


def test_it_keeps_whole_calls_apart_that_share_an_index() -> None:
    events = answer(
        chunk({"tool_calls": [tool_piece(0, "{}", id="c0", function={"name": "f"})]}),
        chunk({"tool_calls": [tool_piece(0, "{}", id="c1", function={"name": "f"})]}),
        chunk({}, "tool_calls"),
    )
    assert [event.id for event in events if isinstance(event, ToolCall)] == ["c0", "c1"]


def test_it_gives_a_call_an_id_and_arguments_where_it_has_none() -> None:
    events = answer(
        chunk({"tool_calls": [tool_piece(None, None, function={"name": "f"})]}, "tool_calls")
    )
    assert events[0] == ToolCall("call_7d1c_0", "f", "{}")


def test_it_counts_reasoning_apart_whichever_way_upstream_adds_up() -> None:
    inclusive = USAGE | {"completion_tokens": 103, "total_tokens": 143}
    for usage in (USAGE, inclusive):
        found = answer(chunk({"content": "a"}, "stop", usage=usage))[1]
        assert found == Usage(prompt=40, completion=3, reasoning=100, cached=32)


def test_it_reports_usage_once_though_every_chunk_carries_it() -> None:
    first = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
    events = answer(chunk({"content": "a"}, usage=first), chunk({}, "stop", usage=USAGE))
    assert [event for event in events if isinstance(event, Usage)] == [
        Usage(prompt=40, completion=3, reasoning=100, cached=32)
    ]


def test_it_reports_no_usage_where_upstream_did_not() -> None:
    assert not any(isinstance(event, Usage) for event in answer(chunk({"content": "a"}, "stop")))


def test_it_names_a_source_once() -> None:
    cited = [{"url": "https://example.org/1", "title": "One"}, "https://example.org/2", 3, {}]
    events = answer(chunk({"content": "a"}, citations=cited), chunk({}, "stop", citations=cited))
    assert events[1:3] == [Source("https://example.org/1", "One"), Source("https://example.org/2")]
    assert len(events) == 4


def test_it_reads_only_the_first_choice() -> None:
    other = {"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}
    mixed = chunk({"content": "yes"})
    mixed["choices"].append(other)
    assert answer(mixed, chunk({}, "stop")) == [Text("yes"), Finished("stop", "7d1c")]


def test_it_joins_the_lines_of_one_event() -> None:
    data = b'data: {"id":"7d1c",\ndata: "choices":[{"delta":{"content":"a"},\n'
    data += b'data:"finish_reason":"stop"}]}\n\n'
    assert run([data]) == ([Text("a"), Finished("stop", "7d1c")], None)


def test_it_ignores_what_follows_the_end() -> None:
    data = sse(chunk({"content": "a"}, "stop")) + sse({"error": "late"})
    assert run([data]) == ([Text("a"), Finished("stop", "7d1c")], None)


def test_it_drops_a_byte_order_mark() -> None:
    data = b"\xef\xbb\xbf" + sse(chunk({"content": "a"}, "stop"))
    assert run([data]) == ([Text("a"), Finished("stop", "7d1c")], None)


def test_it_refuses_an_endless_event() -> None:
    decoder = XaiStreamDecoder()
    decoder.feed(b"data: ")
    with pytest.raises(UpstreamFailed):
        for _ in range(18):
            decoder.feed(b"x" * 1024 * 1024)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ({"code": "resource-exhausted", "error": "Too many requests"}, QuotaExhausted),
        ({"code": "invalid-argument", "error": "bad schema"}, RequestRejected),
        ({"code": "invalid-argument", "error": "Incorrect API key provided"}, CredentialRejected),
        ({"code": "The service is currently unavailable", "error": "x"}, UpstreamFailed),
        ({"error": "text only"}, UpstreamFailed),
    ],
)
def test_it_sees_an_error_behind_a_200_streamed_or_not(
    failure: Any, expected: type[UpstreamError]
) -> None:
    body = json.dumps(failure).encode()
    for pieces in ([body], [body[:5], body[5:]], [b"\n ", body], [sse(failure)]):
        events, error = run(pieces)
        assert events == []
        assert type(error) is expected
    with pytest.raises(expected):
        decode_completion(body)


COMPLETION = {
    "id": "7d1c",
    "object": "chat.completion",
    "model": "grok-4.3",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Five.",
                "reasoning_content": "Adding",
                "refusal": None,
                "tool_calls": None,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "citations": ["https://example.org/1"],
    "system_fingerprint": "fp_1",
    "service_tier": "default",
}


def test_it_reads_a_whole_completion() -> None:
    expected: list[Event] = [
        Reasoning("Adding"),
        Text("Five."),
        Source("https://example.org/1"),
        Usage(prompt=40, completion=3, reasoning=100, cached=32),
        Finished(
            "stop",
            "7d1c",
            "fp_1",
            {"model": "grok-4.3", "service_tier": "default", "cost_in_usd_ticks": "2739000"},
        ),
    ]
    body = json.dumps(COMPLETION).encode()
    assert decode_completion(body) == expected
    assert run([body]) == (expected, None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{", b"\xff"])
def test_it_fails_on_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        decode_completion(body)


def test_it_fails_on_html_where_a_stream_was_asked() -> None:
    _, error = run([b"\n<!doctype html>"])
    assert isinstance(error, UpstreamFailed)


def test_it_calls_a_completion_without_choices_incomplete() -> None:
    with pytest.raises(UpstreamIncomplete):
        decode_completion(b'{"id":"x","choices":[]}')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "message",
                        "tool_calls",
                        "function",
                        "usage",
                        "citations",
                        "index",
                        "finish_reason",
                        "error",
                        "code",
                        "id",
                        "content",
                        "arguments",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_it_survives_any_json(value: Any) -> None:
    run([sse(value)])
    run([json.dumps(value).encode()])
