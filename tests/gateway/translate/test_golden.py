"""Recorded upstream streams, all the way to what a client reads.

``golden/`` holds one stream (``.sse``) and one whole answer (``.json``) for each recording
and style of thinking. However the input is cut or wrapped, a client that puts the pieces
together must get that same answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.chat_answer import AnswerCollector, AnswerHead, ChunkEncoder, ThinkingStyle
from gateway.upstream.events import Event
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.mgw_frames import MgwDecoder
from gateway.upstream.xai.decode import XaiStreamDecoder
from tests.gateway.api.reading import read_stream
from tests.gateway.upstream.streams import ASSETS, PROPERTY, WRAPPINGS, cut, recording, wrap

GOLDEN = Path(__file__).parent / "golden"
STYLES: tuple[ThinkingStyle, ...] = ("hidden", "reasoning_content", "think_tags")
TAGS = ("xaiartifact", "xai:tool_usage_card", "grok:render")
EVENT_ID = "evt_init_0b1c2d3e-0000-4000-8000-000000000001"
REST = ("rest_tide", "rest_picture", "rest_video")
NAMES = (*REST, "mgw_tide", "xai_adding")

Batches = Iterable[list[Event]]
Answer = dict[str, Any]


def head(name: str, style: ThinkingStyle) -> AnswerHead:
    """The web counts no tokens; api.x.ai does."""
    prompt = None if name.startswith("xai") else 15
    return AnswerHead("chatcmpl-1", "grok-4", 1_790_000_000, style, True, prompt)


def rest_batches(pieces: Iterable[bytes]) -> Iterator[list[Event]]:
    decoder = RestDecoder(TAGS, ASSETS)
    yield from map(decoder.feed, pieces)
    yield decoder.finish()


def xai_batches(pieces: Iterable[bytes]) -> Iterator[list[Event]]:
    decoder = XaiStreamDecoder()
    yield from map(decoder.feed, pieces)
    yield decoder.finish()


def mgw_batches(messages: Iterable[bytes]) -> Iterator[list[Event]]:
    decoder = MgwDecoder(EVENT_ID, TAGS, ASSETS)
    for message in messages:
        yield decoder.feed(message)
    assert decoder.done


def xai_bytes(end: bytes = b"\n\n") -> bytes:
    lines = (GOLDEN / "xai_adding.jsonl").read_bytes().splitlines()
    return b"".join(b"data: " + line + end for line in (*lines, b"[DONE]"))


def batches_of(name: str) -> Iterator[list[Event]]:
    """The recording as it came, one object a read."""
    if name.startswith("xai"):
        return xai_batches([xai_bytes()])
    if name.startswith("mgw"):
        return mgw_batches(recording(name))
    return rest_batches(line + b"\n" for line in recording(name))


def stream(batches: Batches, answer_head: AnswerHead) -> bytes:
    encoder = ChunkEncoder(answer_head)
    return encoder.start() + b"".join(map(encoder.encode, batches))


def whole(batches: Batches, answer_head: AnswerHead) -> Answer:
    collector = AnswerCollector(answer_head)
    for batch in batches:
        collector.add(batch)
    answer: Answer = json.loads(collector.body())
    return answer


def put_together(body: bytes) -> Answer:
    """What a client has in the end, wherever the pieces were cut."""
    read = read_stream(body)
    return {
        "content": read.content,
        "reasoning": read.reasoning,
        "tool_calls": read.tool_calls,
        "annotations": read.annotations,
        "finish": read.finish,
        "usage": read.usage,
    }


def golden(name: str, style: str) -> Answer:
    return put_together((GOLDEN / f"{name}.{style}.sse").read_bytes())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_becomes_exactly_the_golden_stream(name: str, style: ThinkingStyle) -> None:
    assert (
        stream(batches_of(name), head(name, style)).decode()
        == (GOLDEN / f"{name}.{style}.sse").read_text()
    )


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_becomes_exactly_the_golden_answer(name: str, style: ThinkingStyle) -> None:
    expected = json.loads((GOLDEN / f"{name}.{style}.json").read_text())

    assert whole(batches_of(name), head(name, style)) == expected


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", [*REST[:1], "mgw_tide", "xai_adding"])
def test_a_golden_stream_and_its_golden_answer_say_the_same(name: str, style: str) -> None:
    """Media is left out: its progress is shown in streams only."""
    streamed = golden(name, style)
    answer = json.loads((GOLDEN / f"{name}.{style}.json").read_text())
    message = answer["choices"][0]["message"]

    assert streamed == {
        "content": message["content"],
        "reasoning": message.get("reasoning_content", ""),
        "tool_calls": [
            {"index": index, **call} for index, call in enumerate(message.get("tool_calls", []))
        ],
        "annotations": message["annotations"],
        "finish": answer["choices"][0]["finish_reason"],
        "usage": answer["usage"],
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", REST)
def test_the_three_wrappings_come_out_the_same(
    name: str, wrapping: str, style: ThinkingStyle
) -> None:
    data = wrap(recording(name), wrapping)

    for pieces in ([data], [bytes([byte]) for byte in data]):
        assert put_together(stream(rest_batches(pieces), head(name, style))) == golden(name, style)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", REST)
def test_a_cut_at_any_byte_changes_nothing(name: str, wrapping: str) -> None:
    data, expected = wrap(recording(name), wrapping), golden(name, "think_tags")

    _check_every_cut(name, data, rest_batches, expected)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_a_cut_at_any_byte_of_the_official_api_changes_nothing(end: bytes) -> None:
    _check_every_cut("xai_adding", xai_bytes(end), xai_batches, golden("xai_adding", "think_tags"))


def _check_every_cut(
    name: str,
    data: bytes,
    batches: Callable[[Iterable[bytes]], Iterator[list[Event]]],
    expected: Answer,
) -> None:
    for place in range(1, len(data)):
        encoded = stream(batches(cut(data, [place])), head(name, "think_tags"))
        assert put_together(encoded) == expected, place


def _in_letters(messages: Iterable[bytes]) -> Iterator[bytes]:
    """The same conversation with every text chunk sent letter by letter."""
    for message in messages:
        frame = json.loads(message)
        text = frame["event"].get("chunk", {}).get("text")
        for letter in text["text"] if text else [None]:
            if letter is not None:
                frame["event"]["chunk"]["text"] = {**text, "text": letter}
            yield json.dumps(frame).encode()


@pytest.mark.parametrize("style", STYLES)
def test_the_socket_may_send_letter_by_letter(style: ThinkingStyle) -> None:
    letters = list(_in_letters(recording("mgw_tide")))

    assert len(letters) > 40
    encoded = stream(mgw_batches(letters), head("mgw_tide", style))
    assert put_together(encoded) == golden("mgw_tide", style)


# What must never reach a client

HIDDEN = "HIDDEN"
FORBIDDEN = ("grok:render", "xai:tool_usage_card", "xaiartifact", HIDDEN.lower())
TAG = st.sampled_from(TAGS).flatmap(lambda tag: st.sampled_from([tag, tag.upper(), tag.title()]))
ATTRIBUTES = st.sampled_from(
    ["", " ", ' a="1"', " b='<i>'", ' c="x>y"', " d", "\n", ' card_id="c1"']
)
TEXT = st.text(alphabet="ab<>/&=\"' \n:é你", max_size=6)
MARKUP = st.builds("<{0}{1}>{2}</{0}>".format, TAG, ATTRIBUTES, TEXT.map(HIDDEN.__add__))
SELF_CLOSED = st.builds("<{}{}/>".format, TAG, ATTRIBUTES)
LOOSE = st.builds("</{}>".format, TAG)
BROKEN = TAG.flatmap(lambda tag: st.integers(1, len(tag)).map(lambda n: "<" + tag[:n]))
SPLIT = st.builds(
    lambda outer, inner, at: f"<{outer[:at]}<{inner}>{HIDDEN}</{inner}>{outer[at:]}>",
    TAG,
    TAG,
    st.integers(1, 6),
)
"""A tag taken out must not join what is around it to another."""
ANSWER = st.lists(st.one_of(TEXT, TEXT, MARKUP, SELF_CLOSED, LOOSE, BROKEN, SPLIT), max_size=6)
CUTS = st.lists(st.integers(0, 10_000), max_size=6)


def _tokens(text: str, cuts: Iterable[int], **fields: Any) -> Iterator[bytes]:
    places = sorted({0, len(text), *(at % (len(text) + 1) for at in cuts)})
    for start, stop in pairwise(places):
        response = {"token": text[start:stop], "responseId": "r", **fields}
        yield json.dumps({"result": {"response": response}}).encode()


def _forbidden_in(text: str) -> list[str]:
    """Bare names may be talked about; as tags, and what they hide, they may not get out."""
    lowered = text.lower()
    tags = [f"<{slash}{name}" for slash in ("", "/") for name in FORBIDDEN[:3]]
    return [tag for tag in (*tags, FORBIDDEN[3]) if tag in lowered]


@PROPERTY
@given(
    answer=ANSWER,
    thinking=ANSWER,
    cuts=CUTS,
    byte_cuts=CUTS,
    wrapping=st.sampled_from(WRAPPINGS),
    style=st.sampled_from(STYLES),
)
def test_no_hidden_markup_reaches_a_client(
    answer: list[str],
    thinking: list[str],
    cuts: list[int],
    byte_cuts: list[int],
    wrapping: str,
    style: ThinkingStyle,
) -> None:
    objects = [
        *_tokens("".join(thinking), cuts, isThinking=True),
        *_tokens("".join(answer), cuts, isThinking=False, messageTag="final"),
        b'{"result":{"response":{"isSoftStop":true,"responseId":"r"}}}',
    ]
    batches = list(rest_batches(cut(wrap(objects, wrapping), byte_cuts)))
    encoded = stream(batches, head("rest", style))
    streamed = put_together(encoded)
    message = whole(batches, head("rest", style))["choices"][0]["message"]

    assert _forbidden_in(encoded.decode()) == []
    for text in (
        streamed["content"],
        streamed["reasoning"],
        message["content"],
        message.get("reasoning_content", ""),
    ):
        assert _forbidden_in(text) == []
    assert (streamed["content"], streamed["reasoning"]) == (
        message["content"],
        message.get("reasoning_content", ""),
    )


def test_usage_that_nobody_measured_is_absent() -> None:
    data = b"".join(
        event + b"\n\n" for event in xai_bytes().split(b"\n\n") if b"usage" not in event
    )
    encoded = stream(xai_batches([data]), head("xai", "hidden"))

    assert put_together(encoded)["usage"] is None
    assert "usage" not in whole(xai_batches([data]), head("xai", "hidden"))
