"""The REST stream of grok.com, from bytes to events (upstream-web 2.3-2.9, 7.1, 9.4)."""

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
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.events import (
    Event,
    Finished,
    ImageProgress,
    ImageReady,
    Reasoning,
    Source,
    Text,
    VideoProgress,
    VideoReady,
)
from gateway.upstream.web.frames import RestDecoder
from tests.gateway.upstream.streams import (
    ASSETS,
    PROPERTY,
    WRAPPINGS,
    cut,
    merged,
    recording,
    text_of,
    wrap,
)

TIDE = "https://example.org/tide"
IMAGE = "users/u-1/generated/img-1/image.jpg"
VIDEO = "users/u-1/generated/vid-1/generated_video.mp4"
STOP = {"token": "", "isSoftStop": True}
GOLDEN: dict[str, list[Event]] = {
    "rest_tide": [
        Reasoning("Checking sources"),
        Source(TIDE, "Tides"),
        Text(f"A tide is a rise of the sea.[[1]]({TIDE})"),
        Source(TIDE, "Tides", 28, 59),
        Finished("stop", "resp-1", "hash-abc", {"conversation_id": "conv-1"}),
    ],
    "rest_picture": [
        ImageProgress(0, 50, preview_url=f"{ASSETS}/users/u-1/generated/img-1-part-0/image.jpg"),
        ImageReady(0, f"{ASSETS}/{IMAGE}", mime_type="image/jpeg"),
        Text("Here it is."),
        Finished("stop", "resp-2"),
    ],
    "rest_video": [
        VideoProgress(1),
        VideoProgress(95),
        VideoReady(
            f"{ASSETS}/{VIDEO}",
            f"{ASSETS}/users/u-1/generated/vid-1/preview_image.jpg",
            "720p",
            "vid-1",
        ),
        Text("I generated a video"),
        Finished("stop", extra={"conversation_id": "conv-3"}),
    ],
}


def decoder() -> RestDecoder:
    return RestDecoder((), ASSETS)


def decode(pieces: Iterable[bytes], decoding: RestDecoder | None = None) -> list[Event]:
    decoding = decoding or decoder()
    events = [event for piece in pieces for event in decoding.feed(piece)]
    return merged(events + decoding.finish())


def frame(response: dict[str, Any]) -> bytes:
    return json.dumps({"result": {"response": response}}).encode() + b"\n"


def play(*responses: dict[str, Any]) -> list[Event]:
    """The events of ``responses``, each in a read of its own."""
    return decode(map(frame, responses))


def failure(*responses: dict[str, Any]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        play(*responses)
    return caught.value


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", GOLDEN)
def test_a_recording_gives_the_same_events_cut_at_every_byte(name: str, wrapping: str) -> None:
    body = wrap(recording(name), wrapping)
    assert decode([body]) == GOLDEN[name]
    for place in range(len(body)):
        assert decode([body[:place], body[place:]]) == GOLDEN[name]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("name", GOLDEN)
def test_a_recording_gives_the_same_events_in_small_reads(
    name: str, size: int, wrapping: str
) -> None:
    body = wrap(recording(name), wrapping)
    assert decode(cut(body, range(0, len(body), size))) == GOLDEN[name]


def test_it_counts_the_tools_upstream_used() -> None:
    decoding = decoder()
    decode([wrap(recording("rest_tide"), "lines")], decoding)
    assert decoding.tools.counts == {"web_search": 1}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ({"token": "x"}, [Text("x")]),
        ({"token": "x", "messageTag": "final", "isThinking": False}, [Text("x")]),
        ({"token": "x", "isThinking": True}, [Reasoning("x")]),
        ({"token": "x", "isThinking": True, "messageTag": "header"}, [Reasoning("x")]),
        ({"token": "x", "messageTag": "header"}, []),
        ({"token": "x", "messageTag": "summary"}, []),
        ({"token": "x", "messageTag": "tool_usage_card", "isThinking": True}, []),
        ({"token": "x", "messageTag": "raw_function_result"}, []),
        ({"token": "x", "toolUsageCardId": "t1", "isThinking": True}, []),
        ({"token": "x", "toolUsageCardId": "t1", "webSearchResults": []}, [Text("x")]),
        ({"token": ["x"]}, []),
        ({"token": ""}, []),
        ({"token": None, "messageTag": ["odd"]}, []),
    ],
)
def test_the_classifier_row_by_row(response: dict[str, Any], expected: list[Event]) -> None:
    assert play(response, STOP)[:-1] == expected


def test_thinking_after_the_answer_began_is_kept_but_not_streamed() -> None:
    events = play(
        {"token": "first", "isThinking": True},
        {"token": "answer"},
        {"token": "late", "isThinking": True},
        STOP,
    )
    assert events == [
        Reasoning("first"),
        Text("answer"),
        Finished(extra={"late_reasoning": "late"}),
    ]


def test_hidden_tags_in_thinking_do_not_leak_and_its_end_comes_before_the_answer() -> None:
    events = play(
        {"token": "a<xai:tool_usage_card>x</xai:tool_us", "isThinking": True},
        {"token": "age_card>b <", "isThinking": True},
        {"token": "answer"},
        STOP,
    )
    assert events[:2] == [Reasoning("ab <"), Text("answer")]


@pytest.mark.parametrize(
    ("tokens", "message", "expected"),
    [
        (["A tide", " is"], "A tide is", "A tide is"),
        (["A tide", " is"], "A tide", "A tide is"),
        (["A tide", " is"], "A tide is high.", "A tide is high."),
        (["A tide", " is"], "Something else", "A tide is"),
        ([], "All of it", "All of it"),
        (["a<grok:render card_id='x'/>"], "a<grok:render card_id='x'/> b", "a b"),
        (["a<grok:render card_id='x'/>"], "a b", "a"),
        (["a"], None, "a"),
    ],
)
def test_the_whole_answer_is_reconciled_with_the_raw_tokens(
    tokens: list[str], message: object, expected: str
) -> None:
    events = play(*({"token": token} for token in tokens), {"modelResponse": {"message": message}})
    assert text_of(events) == expected


def test_two_answers_side_by_side_are_not_mixed() -> None:
    events = play(
        {"token": "think", "isThinking": True, "responseId": "r2"},
        {"token": "one", "responseId": "r1"},
        {"token": "zwei", "responseId": "r2"},
        {"token": "", "isSoftStop": True, "responseId": "r2"},
        {"token": " two", "responseId": "r1"},
        {"modelResponse": {"responseId": "r2", "message": "zwei drei"}},
        {"modelResponse": {"responseId": "r1", "message": "one two three"}},
    )
    assert events[1:] == [Text("one two three"), Finished(response_id="r1")]


def test_the_end_of_the_other_answer_is_not_the_end_of_this_one() -> None:
    error = failure(
        {"token": "one", "responseId": "r1"},
        {"token": "", "isSoftStop": True, "responseId": "r2"},
    )
    assert isinstance(error, UpstreamIncomplete)


@pytest.mark.parametrize(
    "last", [STOP, {"finalMetadata": {}}, {"modelResponse": {"message": "one"}}]
)
def test_a_break_after_an_end_mark_is_a_normal_finish(last: dict[str, Any]) -> None:
    decoding = decoder()
    assert [
        (decoding.feed(frame(item)), decoding.complete) for item in ({"token": "one"}, last)
    ] == [([Text("one")], False), ([], True)]
    decoding.feed(b'{"result":{"title":{"newT')
    assert decoding.finish() == [Finished()]


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>no</html>", b'{"result":{"respo'])
def test_a_body_that_ends_too_early_is_incomplete(body: bytes) -> None:
    with pytest.raises(UpstreamIncomplete) as caught:
        decode([body])
    assert caught.value.row == 14


def test_it_is_committed_by_the_first_semantic_event_only() -> None:
    decoding = decoder()
    decoding.feed(b'{"result":{"conversation":{"conversationId":"c"}}}\n')
    decoding.feed(frame({"webSearchResults": {"results": [{"url": TIDE, "title": "T"}]}}))
    before = decoding.committed
    decoding.feed(frame({"token": "x", "isThinking": True}))
    assert (before, decoding.committed) == (False, True)


MODERATED = {"message": "content-moderated"}
LIMIT_CARD = {"jsonData": '{"image_chunk":{"progress":100,"systemErrCode":"rate_limit"}}'}


@pytest.mark.parametrize(
    ("body", "expected", "row"),
    [
        ({"error": {"code": 8, "message": "Too many requests", "details": []}}, QuotaExhausted, 5),
        ({"error": {"code": 7, "message": "Rejected by anti-bot rules."}}, SessionRejected, 10),
        ({"error": "You are sending too many requests"}, QuotaExhausted, 5),
        (
            {"result": {"response": {"error": {"message": "Oops"}, "cardAttachment": LIMIT_CARD}}},
            QuotaExhausted,
            5,
        ),
        ({"result": {"response": {"cardAttachment": LIMIT_CARD}}}, QuotaExhausted, 5),
        (
            {"result": {"response": {"modelResponse": {"streamErrors": [{"code": 13}]}}}},
            UpstreamFailed,
            12,
        ),
        (
            {
                "result": {
                    "response": {
                        "streamErrors": ["odd", {"error": {"message": "content-moderated"}}]
                    }
                }
            },
            ContentRefused,
            7,
        ),
        ({"result": {"response": {"modelResponse": {"error": "failed"}}}}, UpstreamFailed, 12),
    ],
)
def test_an_error_in_the_stream_is_an_error(
    body: dict[str, Any], expected: type[UpstreamError], row: int
) -> None:
    with pytest.raises(expected) as caught:
        decoder().feed(json.dumps(body).encode())
    assert caught.value.row == row


@pytest.mark.parametrize("empty", [{"error": None}, {"streamErrors": []}, {"error": {}}])
def test_an_empty_error_field_is_no_error(empty: dict[str, Any]) -> None:
    assert text_of(play({"token": "x", **empty}, STOP)) == "x"


def test_events_before_an_error_in_the_same_read_are_not_lost() -> None:
    decoding = decoder()
    error = b'{"error":{"code":13,"message":"x"}}\n'
    assert decoding.feed(frame({"token": "x"}) + error + frame({"token": "y"})) == [Text("x")]
    assert isinstance(decoding.pending, UpstreamFailed)
    with pytest.raises(UpstreamFailed):
        decoding.feed(b"")
    with pytest.raises(UpstreamFailed):
        decoding.finish()


def test_an_oversized_object_behind_text_fails_the_next_call() -> None:
    decoding = decoder()
    body = frame({"token": "x"}) + b'{"a":"' + b"y" * (9 * 1024 * 1024)
    assert decoding.feed(body) == [Text("x")]
    with pytest.raises(UpstreamFailed):
        decoding.feed(b"")


def test_sources_are_checked_told_once_and_bounded() -> None:
    pages = [
        {"url": "javascript:alert(1)", "title": "no"},
        {"url": "https://user:pw@example.org/", "title": "no"},
        {"url": "/relative", "title": "no"},
        {"url": "https://example.org/" + "x" * 9000, "title": "no"},
        {"url": TIDE, "title": "T" * 1000},
        {"url": TIDE, "title": "again"},
        *({"url": f"https://example.org/{number}"} for number in range(100)),
    ]
    events = play({"webSearchResults": pages}, {"modelResponse": {"webSearchResults": pages}})
    sources = [event for event in events if isinstance(event, Source)]
    assert sources[0] == Source(TIDE, "T" * 512)
    assert len(sources) == 50


def test_posts_on_x_become_addresses() -> None:
    posts = [
        {"username": "sea", "postId": "42", "text": "high"},
        {"username": "../evil", "postId": "1"},
        {"username": "sea", "postId": "4/../2"},
    ]
    events = play({"xSearchResults": {"results": posts}}, STOP)
    assert events[:-1] == [Source("https://x.com/sea/status/42", "high")]


def live(**fields: Any) -> dict[str, Any]:
    return {"streamingImageGenerationResponse": fields}


def card(url: str, **fields: Any) -> dict[str, Any]:
    chunk = {"imageUuid": "img-1", "imageUrl": url, "progress": 100, **fields}
    return {"jsonData": json.dumps({"id": "c3", "type": "render_file", "image_chunk": chunk})}


@pytest.mark.parametrize(
    "response",
    [
        live(imageIndex=0, progress=100, imageUrl=IMAGE),
        live(imageIndex=0, progress=99, isFinal=True, url=IMAGE),
        {"cardAttachment": card(IMAGE)},
        {"cardAttachments": [{"jsonData": {"id": "c", "image_chunk": None}}, card(IMAGE)]},
        {"modelResponse": {"generatedImageUrls": ["", "/", ASSETS, IMAGE]}},
        {"modelResponse": {"cardAttachmentsJson": [card(IMAGE)["jsonData"]]}},
        {"imageAttachmentInfo": {}, "token": f"![x]({ASSETS}/{IMAGE})"},
        {"imageAttachmentInfo": {}, "odd": [{"deep": f"see /{IMAGE}"}]},
    ],
)
def test_a_picture_is_found_wherever_it_is_named(response: dict[str, Any]) -> None:
    pictures = [event for event in play(response, STOP) if isinstance(event, ImageReady)]
    assert pictures == [ImageReady(0, f"{ASSETS}/{IMAGE}", mime_type="image/jpeg")]


def test_one_picture_named_in_every_place_is_given_out_once() -> None:
    events = play(
        live(imageIndex=0, progress=100, imageUrl=IMAGE),
        {"cardAttachment": card(f"{ASSETS}/{IMAGE}")},
        {"modelResponse": {"generatedImageUrls": [IMAGE], "cardAttachmentsJson": [card(IMAGE)]}},
    )
    assert sum(isinstance(event, ImageReady) for event in events) == 1


def test_two_pictures_keep_their_places() -> None:
    events = play(
        live(imageIndex=1, progress=50, imageUrl="users/u/generated/b-part-0/image.jpg"),
        live(imageIndex=1, progress=100, imageUrl="users/u/generated/b/image.png"),
        {"modelResponse": {"generatedImageUrls": ["users/u/generated/a/image.webp"]}},
    )
    assert [
        (event.index, event.mime_type) for event in events if isinstance(event, ImageReady)
    ] == [(1, "image/png"), (2, "image/webp")]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/users/u/generated/i/image.jpg",
        "http://assets.grok.com/users/u/generated/i/image.jpg",
        "https://assets.grok.com@evil.example/generated/i/image.jpg",
        "//evil.example/generated/i/image.jpg",
        "users/../../etc/generated/i/image.jpg",
        "users/u/generated/i-part-0/image.jpg",
        "users/u/generated/i/im age.jpg",
    ],
)
def test_an_address_that_is_no_finished_asset_of_ours_is_not_a_picture(url: str) -> None:
    error = failure(live(imageIndex=0, progress=100, imageUrl=url), STOP)
    assert isinstance(error, UpstreamIncomplete)


def test_a_moderated_picture_is_removed_from_the_later_list() -> None:
    other = "users/u-1/generated/img-2/image.jpg"
    events = play(
        live(imageIndex=0, progress=100, imageUrl=IMAGE, moderated=True),
        live(imageIndex=1, progress=100, imageUrl=other),
        {"modelResponse": {"generatedImageUrls": [IMAGE, other]}},
    )
    urls = [event.url for event in events if isinstance(event, ImageReady)]
    assert urls == [f"{ASSETS}/{other}"]


def test_nothing_but_moderated_pictures_is_a_refusal() -> None:
    error = failure(live(imageIndex=0, progress=100, imageUrl=IMAGE, moderated=True), STOP)
    assert isinstance(error, ContentRefused)
    assert error.row == 7


def test_moderated_pictures_beside_text_leave_the_text() -> None:
    events = play(live(imageIndex=0, imageUrl=IMAGE, moderated=True), {"token": "no"}, STOP)
    assert text_of(events) == "no"


def test_a_finished_picture_makes_a_broken_stream_complete_only_when_no_other_is_coming() -> None:
    decoding = decoder()
    frames = (
        live(imageIndex=1, progress=10),
        live(imageIndex=0, progress=100, imageUrl=IMAGE),
        live(imageIndex=1, progress=100, moderated=True),
    )
    complete = [decoding.feed(frame(item)) is not None and decoding.complete for item in frames]
    assert complete == [False, False, True]
    assert isinstance(decoding.finish()[-1], Finished)


def video(**fields: Any) -> dict[str, Any]:
    return {"streamingVideoGenerationResponse": fields}


@pytest.mark.parametrize(
    "response",
    [
        video(progress=100, videoUrl=VIDEO),
        video(progress=100, contentURL=VIDEO),
        video(progress=100, fileUri=VIDEO),
        {"modelResponse": {"fileAttachments": ["file-1", VIDEO]}},
    ],
)
def test_a_video_completes_the_stream(response: dict[str, Any]) -> None:
    decoding = decoder()
    assert VideoReady(f"{ASSETS}/{VIDEO}", video_id="vid-1") in decoding.feed(frame(response))
    assert decoding.complete


def test_a_content_path_is_a_video_only_in_a_video_turn() -> None:
    attached = {"modelResponse": {"fileAttachments": ["users/u/file/content"]}}
    assert play({"token": "x"}, attached)[0] == Text("x")
    ready = play(video(progress=1), attached)
    assert VideoReady(f"{ASSETS}/users/u/file/content") in ready


def test_a_moderated_video_is_a_refusal() -> None:
    moderated = video(progress=100, videoUrl=VIDEO, moderated=True)
    attached = {"modelResponse": {"fileAttachments": [VIDEO]}}
    assert isinstance(failure(moderated), ContentRefused)
    assert isinstance(failure(moderated, attached), ContentRefused)


def test_a_video_that_never_came_is_incomplete() -> None:
    assert isinstance(failure(video(progress=99), STOP), UpstreamIncomplete)


def test_numbers_beyond_reason_are_survived() -> None:
    body = frame({"token": "x", "toolUsageCard": {}, "messageStepId": 1})
    huge = body.replace(b"1}", b"1" * 5000 + b"}") + frame({"error": {"code": 1}}).replace(
        b": 1}", b": " + b"1" * 4200 + b"}"
    )
    with pytest.raises(UpstreamFailed):
        decode([huge])


def test_long_words_and_runs_of_spaces_cost_no_backtracking() -> None:
    opener = "<grok:render " + "y" * 200_000 + ">"
    tool = {"messageTag": "tool_usage_card", "token": "<xai:tool_name>" + " " * 200_000}
    assert play({"token": opener}, {**tool, "toolUsageCard": {}}, STOP) == [Finished()]


KEYS = (
    *("result", "response", "conversation", "error", "token", "isThinking", "isSoftStop"),
    *("messageTag", "responseId", "llmInfo", "toolUsageCard", "toolUsageCardId", "progress"),
    *("webSearchResults", "xSearchResults", "results", "url", "cardAttachment", "jsonData"),
    *("streamingImageGenerationResponse", "streamingVideoGenerationResponse", "imageUrl"),
    *("modelResponse", "message", "generatedImageUrls", "cardAttachmentsJson", "streamErrors"),
    *("image_chunk", "metadata", "llm_info", "videoUrl", "fileAttachments", "id", "code"),
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", IMAGE]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@PROPERTY
@given(responses=st.lists(st.dictionaries(st.sampled_from(KEYS), ODD), max_size=4))
def test_no_shape_of_frame_raises_anything_but_our_errors(
    responses: list[dict[str, Any]],
) -> None:
    try:
        decode([*map(frame, responses), json.dumps(responses).encode()])
    except UpstreamError as error:
        assert error.row in range(1, 17)
