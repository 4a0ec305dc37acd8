"""From an upstream's bytes to what a client reads, the bytes cut at every boundary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.chat_answer import AnswerCollector, AnswerHead, ChunkEncoder, ThinkingStyle
from gateway.upstream.events import Event
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.mgw_frames import MgwDecoder
from gateway.upstream.xai.decode import XaiStreamDecoder
from tests.gateway.upstream.streams import ASSETS, PROPERTY, WRAPPINGS, cut, recording, wrap

TAGS = ("xaiartifact", "xai:tool_usage_card", "grok:render")
HIDDEN = ("<grok:render", "<xai:tool_usage_card", "xaiartifact")
TIDE = "A tide is a rise of the sea.[[1]](https://example.org/tide)"
XAI_CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Adding"}}]},
    {"choices": [{"index": 0, "delta": {"content": "Fi"}}]},
    {"choices": [{"index": 0, "delta": {"content": "ve – 五"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
XAI_USAGE: dict[str, Any] = {
    "choices": [],
    "usage": {
        "prompt_tokens": 40,
        "completion_tokens": 3,
        "total_tokens": 143,
        "prompt_tokens_details": {"cached_tokens": 32},
        "completion_tokens_details": {"reasoning_tokens": 100},
    },
}


def xai_stream(chunks: list[dict[str, Any]]) -> bytes:
    """Recorded shapes of upstream-xai 3.3, as server-sent events."""
    shared = {"id": "x", "model": "grok-4.3", "system_fingerprint": "fp_1"}
    lines = [f"data: {json.dumps(shared | chunk)}\n\n".encode() for chunk in chunks]
    return b"".join(lines) + b"data: [DONE]\n\n"


XAI = xai_stream([*XAI_CHUNKS, XAI_USAGE])


def head(style: ThinkingStyle = "reasoning_content", prompt: int | None = 40) -> AnswerHead:
    return AnswerHead("chatcmpl-1", "grok-4", 1, style, True, prompt)


@dataclass
class Seen:
    """What a client makes of a stream."""

    content: str = ""
    reasoning: str = ""
    finish: list[str] = field(default_factory=list)
    usage: Any = None
    citations: list[str] = field(default_factory=list)

    def take(self, frame: dict[str, Any]) -> None:
        self.usage = frame.get("usage") or self.usage
        for choice in frame["choices"]:
            delta = choice["delta"]
            self.content += delta.get("content") or ""
            self.reasoning += delta.get("reasoning_content") or ""
            self.citations += [n["url_citation"]["url"] for n in delta.get("annotations", [])]
            if choice["finish_reason"]:
                self.finish.append(choice["finish_reason"])


def read(stream: bytes) -> Seen:
    seen = Seen()
    frames = stream.decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    for frame in frames[:-2]:
        assert frame.startswith("data: ")
        seen.take(json.loads(frame[6:]))
    return seen


def encoded(batches: Iterable[list[Event]], head: AnswerHead) -> bytes:
    encoder = ChunkEncoder(head)
    return encoder.start() + b"".join(encoder.encode(batch) for batch in batches)


def collected(batches: Iterable[list[Event]], head: AnswerHead) -> Any:
    collector = AnswerCollector(head)
    for batch in batches:
        collector.add(batch)
    return json.loads(collector.body())


def rest(pieces: Iterable[bytes]) -> list[list[Event]]:
    decoder = RestDecoder(TAGS, ASSETS)
    return [*(decoder.feed(piece) for piece in pieces), decoder.finish()]


def xai(pieces: Iterable[bytes]) -> list[list[Event]]:
    decoder = XaiStreamDecoder()
    return [*(decoder.feed(piece) for piece in pieces), decoder.finish()]


def check_tide(seen: Seen) -> None:
    assert seen.content == TIDE
    assert seen.reasoning == "Checking sources"
    assert seen.finish == ["stop"]
    assert seen.citations == ["https://example.org/tide"]
    assert seen.usage["estimated"] is True


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_rest_chat_reads_the_same_wherever_it_is_cut(wrapping: str) -> None:
    data = wrap(recording("rest_tide"), wrapping)
    for place in range(len(data) + 1):
        check_tide(read(encoded(rest([data[:place], data[place:]]), head())))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_rest_chat_reads_the_same_byte_by_byte(wrapping: str) -> None:
    data = wrap(recording("rest_tide"), wrapping)
    check_tide(read(encoded(rest(data[i : i + 1] for i in range(len(data))), head())))


def test_socket_chat_reads_as_recorded() -> None:
    objects = recording("mgw_tide")
    event_id = json.loads(objects[0])["event"]["client_event_id"]
    decoder = MgwDecoder(event_id, TAGS, ASSETS)
    batches = [decoder.feed(item) for item in objects]

    seen = read(encoded([*batches, decoder.finish()], head()))

    picture = f"{ASSETS}/users/u-1/generated/img-1/image.jpg"
    assert seen.content == f"{TIDE}\n![image]({picture})\n"
    assert seen.reasoning == "Looking up."
    assert seen.finish == ["stop"]


def test_xai_chat_reads_the_same_wherever_it_is_cut() -> None:
    for place in range(len(XAI) + 1):
        seen = read(encoded(xai([XAI[:place], XAI[place:]]), head(prompt=None)))
        assert (seen.content, seen.reasoning) == ("Five – 五", "Adding")
        assert seen.finish == ["stop"]
        assert seen.usage == {
            "prompt_tokens": 40,
            "completion_tokens": 103,
            "total_tokens": 143,
            "prompt_tokens_details": {"cached_tokens": 32},
            "completion_tokens_details": {"reasoning_tokens": 100},
        }


def test_the_whole_answer_says_what_the_stream_says() -> None:
    batches = rest([wrap(recording("rest_tide"), "lines")])
    seen = read(encoded(batches, head()))

    answer = collected(batches, head())

    message = answer["choices"][0]["message"]
    assert message["content"] == seen.content
    assert message["reasoning_content"] == seen.reasoning
    assert answer["usage"] == seen.usage
    note = message["annotations"][0]["url_citation"]
    assert seen.content[note["start_index"] : note["end_index"]] == (
        "[[1]](https://example.org/tide)"
    )


def test_think_tags_wrap_the_reasoning_in_both_forms() -> None:
    batches = rest([wrap(recording("rest_tide"), "lines")])
    streamed = read(encoded(batches, head("think_tags"))).content
    whole = collected(batches, head("think_tags"))["choices"][0]["message"]["content"]

    assert streamed == f"<think>\nChecking sources\n</think>\n{TIDE}"
    assert whole == streamed


def test_hidden_reasoning_is_not_there_at_all() -> None:
    batches = rest([wrap(recording("rest_tide"), "lines")])

    assert "Checking" not in encoded(batches, head("hidden")).decode()
    assert "Checking" not in json.dumps(collected(batches, head("hidden")))


def test_usage_that_nobody_measured_is_absent() -> None:
    without = xai_stream(XAI_CHUNKS)
    batches = xai([without])

    assert read(encoded(batches, head(prompt=None))).usage is None
    assert "usage" not in collected(batches, head(prompt=None))


MARKUP = st.sampled_from(
    [
        '<grok:render card_id="c1" type="render_inline_citation">x</grok:render>',
        "<xai:tool_usage_card><xai:tool_name>web</xai:tool_name></xai:tool_usage_card>",
        '<xaiArtifact id="1">secret</xaiArtifact>',
        '<GROK:RENDER type="x"/>',
    ]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)


@PROPERTY
@given(
    st.lists(TEXT | MARKUP, min_size=1, max_size=8),
    st.lists(st.integers(0, 10_000), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=6),
    st.sampled_from(["reasoning_content", "think_tags", "hidden"]),
)
def test_no_hidden_tag_reaches_a_client_however_it_is_cut(
    pieces: list[str], token_cuts: list[int], byte_cuts: list[int], style: ThinkingStyle
) -> None:
    answer = "".join(pieces)
    tokens = [part.decode("utf-8", "ignore") for part in cut(answer.encode(), token_cuts)]
    frames = [{"result": {"response": {"token": t, "responseId": "r"}}} for t in ["ok ", *tokens]]
    end = {"result": {"response": {"token": "", "isSoftStop": True, "responseId": "r"}}}
    data = wrap([json.dumps(frame).encode() for frame in [*frames, end]], "lines")

    batches = rest(cut(data, byte_cuts))

    stream = encoded(batches, head(style)).decode().lower()
    whole = json.dumps(collected(batches, head(style))).lower()
    for tag in HIDDEN:
        assert tag not in stream
        assert tag not in whole
