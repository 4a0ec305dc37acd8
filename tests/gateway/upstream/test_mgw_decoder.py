"""The gateway WebSocket of grok.com, from messages to events (upstream-web 3.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import (
    ContentRefused,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.events import Event, Finished, ImageReady, Reasoning, Source, Text
from gateway.upstream.web.mgw_frames import MgwDecoder
from tests.gateway.upstream.streams import ASSETS, PROPERTY, merged, recording, text_of

EVENT_ID = "evt_init_0b1c2d3e-0000-4000-8000-000000000001"
TIDE = "https://example.org/tide"
IMAGE = "users/u-1/generated/img-1/image.jpg"
CITED = Source(TIDE, "Tides", 28, 59)
GOLDEN: list[Event] = [
    Reasoning("Looking up."),
    Source(TIDE, "Tides"),
    Source("https://x.com/sea/status/42", "high tide"),
    Text(f"A tide is a rise of the sea.[[1]]({TIDE})"),
    CITED,
    ImageReady(0, f"{ASSETS}/{IMAGE}", mime_type="image/jpeg"),
    Finished("stop", "resp-1", extra={"conversation_id": "conv-1"}),
]


def decoder() -> MgwDecoder:
    return MgwDecoder(EVENT_ID, (), ASSETS)


def message(kind: str, session_id: str = "conv-1", **fields: Any) -> str:
    return json.dumps({"session_id": session_id, "event": {"type": kind, **fields}})


CREATED = message("session.created", client_event_id=EVENT_ID)
ATTACHED = message("conversation.attached", conversation={"id": "conv-1"})
DONE = message("response.done", response={"id": "resp-1", "status": "completed"})


def chunk(**fields: Any) -> str:
    return message("response.chunk", chunk=fields)


def said(text: str, channel: str = "CHANNEL_ASSISTANT_RESPONSE") -> str:
    return chunk(text={"text": text, "channel": channel})


def decode(messages: Iterable[str | bytes], decoding: MgwDecoder | None = None) -> list[Event]:
    decoding = decoding or decoder()
    events = [event for item in messages for event in decoding.feed(item)]
    return merged(events + decoding.finish())


def play(*messages: str) -> list[Event]:
    """The events of a turn of ``messages``, without the closing one."""
    events = decode([CREATED, ATTACHED, *messages, DONE])
    assert isinstance(events[-1], Finished)
    return events[:-1]


def failure(*messages: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        decode(messages)
    return caught.value


def test_the_recording_gives_its_events() -> None:
    assert decode(recording("mgw_tide")) == GOLDEN
    assert decode(item.decode() for item in recording("mgw_tide")) == GOLDEN


def test_the_recording_with_its_text_cut_at_every_character() -> None:
    whole = 'A <grok:render card_id="none">x</grok:render>tide\u2028 <é😀'
    for place in range(len(whole)):
        assert text_of(play(said(whole[:place]), said(whole[place:]))) == "A tide\u2028 <é😀"


@pytest.mark.parametrize("order", [(CREATED, ATTACHED), (ATTACHED, CREATED)])
def test_it_is_ready_when_both_announcements_came_in_either_order(order: tuple[str, str]) -> None:
    decoding = decoder()
    assert [(decoding.feed(item), decoding.ready, decoding.attached) for item in order] == [
        ([], False, False),
        ([], True, True),
    ]
    assert decoding.session_id == "conv-1"
    assert not decoding.committed


def test_a_session_created_for_somebody_else_is_passed_over() -> None:
    decoding = decoder()
    decoding.feed(message("session.created", session_id="conv-9", client_event_id="evt_other"))
    before = decoding.session_id
    decoding.feed(message("session.created", client_event_id=""))
    assert (before, decoding.session_id) == ("", "conv-1")


@pytest.mark.parametrize(
    "messages",
    [
        (CREATED, message("conversation.attached", conversation={"id": "conv-2"})),
        (message("conversation.attached", conversation={"id": "conv-2"}), CREATED),
        (CREATED, message("conversation.attached", conversation={"id": ""})),
        (CREATED, message("conversation.attached")),
        (message("session.created", session_id="", client_event_id=EVENT_ID),),
    ],
)
def test_a_breach_of_the_opening_is_an_upstream_failure(messages: tuple[str, ...]) -> None:
    assert isinstance(failure(*messages), UpstreamFailed)


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("", [Text("x")]),
        ("CHANNEL_ASSISTANT_RESPONSE", [Text("x")]),
        ("channel_assistant_response", [Text("x")]),
        ("CHANNEL_ANALYSIS", [Reasoning("x")]),
        ("channel_reasoning_summary", [Reasoning("x")]),
        ("CHANNEL_COMMENTARY", []),
    ],
)
def test_the_channel_rule(channel: str, expected: list[Event]) -> None:
    assert play(said("x", channel)) == expected


def test_text_without_a_channel_is_answer() -> None:
    assert play(chunk(text={"text": "x"})) == [Text("x")]


def test_deltas_are_ignored_once_chunk_text_came() -> None:
    delta = message("response.output_text.delta", delta="x")
    assert play(said("x"), delta) == [Text("x")]
    assert play(said("think", "ANALYSIS"), delta, said("x")) == [Reasoning("think"), Text("x")]


def test_deltas_alone_are_the_answer_and_are_not_doubled() -> None:
    one, two = (message("response.output_text.delta", delta=item) for item in ("one", " two"))
    done = message("response.output_text.done", text="one two")
    assert play(one, two, done) == [Text("one two")]
    assert play(one, said("one"), two, said(" two")) == [Text("one two")]
    assert play(done) == [Text("one two")]
    assert play(said("one"), done) == [Text("one")]


def test_thinking_after_the_answer_began_is_kept_but_not_streamed() -> None:
    events = decode([said("x"), said("late", "ANALYSIS"), DONE])
    assert events == [Text("x"), Finished("stop", "resp-1", extra={"late_reasoning": "late"})]


def test_tool_results_find_their_call() -> None:
    decoding = decoder()
    call = chunk(tool_usage_card={"tool_usage_card_id": "t1", "x_search": {"args": {}}})
    other = chunk(tool_usage_card={"tool_usage_card_id": "t2", "web_search": {"args": {}}})
    without_id = chunk(tool_result={"x_post": {"posts": [{"username": "a", "postId": 1}]}})
    with_id = chunk(tool_result={"tool_call_id": "t2", "web_search": {"webpages": []}})
    for item in (call, other, other):
        assert decoding.feed(item) == []
    assert decoding.feed(without_id) == [Source("https://x.com/a/status/1")]
    assert [use.finished for use in decoding.tools.uses.values()] == [True, False]
    decoding.feed(with_id)
    assert all(use.finished for use in decoding.tools.uses.values())
    assert decoding.tools.counts == {"x_search": 1, "web_search": 1}


def test_a_result_without_id_stays_unpaired_when_two_calls_are_open() -> None:
    decoding = decoder()
    for number in ("t1", "t2"):
        decoding.feed(chunk(tool_usage_card={"tool_usage_card_id": number, "web_search": {}}))
    decoding.feed(chunk(tool_result={"web_search": {"webpages": []}}))
    assert not any(use.finished for use in decoding.tools.uses.values())


def test_a_citation_resolves_tags_too_and_is_not_doubled_next_to_one() -> None:
    citation = chunk(render_citation={"id": "c1", "url": TIDE, "citation_id": 0})
    tag = '<grok:render card_id="c1" type="render_inline_citation"></grok:render>'
    assert text_of(play(citation, said(tag))) == f"[[1]]({TIDE})"
    assert text_of(play(citation, said(f" a{tag}"))) == f"[[1]]({TIDE}) a[[1]]({TIDE})"


def test_a_source_is_told_once() -> None:
    found = message("response.search.result", result={"url": TIDE, "title": "Tides"})
    assert play(found, found) == [Source(TIDE, "Tides")]


def output(**fields: Any) -> str:
    return message("response.grok.output", output=fields)


@pytest.mark.parametrize(
    ("item", "expected", "row"),
    [
        (message("error", error={"code": "anti_bot", "message": "x"}), SessionRejected, 10),
        (message("error", error={"code": 7, "message": "x"}), SessionRejected, 10),
        (message("error", error={"code": "rate_limit_exceeded"}), QuotaExhausted, 5),
        (message("error", error={"code": 8}), QuotaExhausted, 5),
        (message("error", error={"code": 3}), RequestRejected, 8),
        (message("error"), UpstreamFailed, 12),
        (output(stream_error={"code": 13, "message": "x"}), UpstreamFailed, 12),
        (output(stream_error={"message": "content-moderated"}), ContentRefused, 7),
        (
            output(card_attachment={"jsonData": {"image_chunk": {"systemErrCode": "rate_limit"}}}),
            QuotaExhausted,
            5,
        ),
        (message("response.done", response={"status": "failed"}), UpstreamFailed, 12),
        (message("session.ended"), UpstreamIncomplete, 14),
    ],
)
def test_a_failure_is_an_error(item: str, expected: type[UpstreamError], row: int) -> None:
    error = failure(CREATED, ATTACHED, said("x"), item)
    assert type(error) is expected
    assert error.row == row


def test_nothing_but_moderated_pictures_is_a_refusal() -> None:
    moderated = {"id": "c", "image_chunk": {"progress": 100, "imageUrl": IMAGE, "moderated": True}}
    assert isinstance(
        failure(output(card_attachment={"jsonData": moderated}), DONE), ContentRefused
    )


def test_a_status_is_optional_on_the_last_event() -> None:
    assert decode([message("response.done", response={"id": "r"})]) == [Finished(response_id="r")]


def test_a_closed_socket_is_incomplete_unless_the_answer_was_done() -> None:
    decoding = decoder()
    decoding.feed(said("x"))
    assert decoding.committed
    with pytest.raises(UpstreamIncomplete):
        decoding.finish()
    decoding.feed(DONE)
    assert decoding.done
    assert decoding.finish() == []
    assert decoding.feed(message("session.ended")) == []


@pytest.mark.parametrize(
    "noise", ["", "null", "[]", "{", '{"event":1}', '{"event":{"type":[]}}', message("pong")]
)
def test_unknown_and_unparseable_messages_are_ignored(noise: str) -> None:
    assert decoder().feed(noise) == []


KEYS = (
    *("chunk", "text", "channel", "tool_usage_card", "tool_result", "render_citation", "delta"),
    *("result", "url", "output", "card_attachment", "jsonData", "image_chunk", "response", "id"),
    *("conversation", "webpages", "posts", "x_post", "tool_call_id", "client_event_id", "error"),
)
KINDS = (
    *("session.created", "conversation.attached", "response.chunk", "response.search.result"),
    *("response.output_text.delta", "response.output_text.done", "response.grok.output"),
    *("response.done", "error"),
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "x", IMAGE, TIDE]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=10,
)


@PROPERTY
@given(kind=st.sampled_from(KINDS), fields=st.dictionaries(st.sampled_from(KEYS), ODD))
def test_no_shape_of_message_raises_anything_but_our_errors(
    kind: str, fields: dict[str, Any]
) -> None:
    try:
        decoder().feed(message(kind, **fields))
    except UpstreamError as error:
        assert error.row in range(1, 17)
