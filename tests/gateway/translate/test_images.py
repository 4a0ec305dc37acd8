"""Sizes, places and the shapes of picture answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.translate.images import ImageEvents, ImageHead, Places, answer_body, ratio_of
from gateway.upstream.events import Finished, ImageProgress, ImageReady
from gateway.wire.errors import ApiError

HEAD = ImageHead(created=1, format="b64_json", size="1024x1024", quality="standard", count=2)


@pytest.mark.parametrize(("sizes", "ratio"), [
    ("1024x1024 512x512 1:1", "1:1"),
    ("1024x576 1280x720 1536x864 16:9", "16:9"),
    ("576x1024 720x1280 864x1536 9:16", "9:16"),
    ("1024x1536 1024x1792 512x768 768x1024 2:3", "2:3"),
    ("1536x1024 1792x1024 768x512 1024x768 3:2", "3:2"),
    ("auto 7x7 large 4:3", "2:3"),
])  # fmt: skip
def test_every_size_has_a_ratio(sizes: str, ratio: str) -> None:
    assert {ratio_of(size) for size in sizes.split()} == {ratio}
    assert ratio_of(f" {sizes.split()[0].upper()} ") == ratio


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30),
)
def test_places_are_dense_and_each_is_finished_once(
    count: int, events: list[tuple[int, bool]]
) -> None:
    places, done, finished = Places(count), [], set()
    for index, ready in events:
        if ready and index not in finished:
            finished.add(index)
            place = places.finished(index)
            if place is not None:
                done.append(place)
        elif index not in finished:
            place = places.in_progress(index)
            assert place is None or (place < count and place not in done)
    assert len(done) == len(set(done)) == min(count, len(finished))
    assert set(done) <= set(range(count))


def test_a_finished_picture_takes_the_place_of_one_that_never_will_be() -> None:
    places = Places(1)

    assert places.in_progress(0) == 0
    assert places.in_progress(1) is None
    assert places.finished(1) == 0
    assert places.in_progress(0) is None


def test_the_whole_answer_counts_what_is_missing() -> None:
    pictures = [ImageReady(0, data="QQ==", revised_prompt="a cat"), ImageReady(1, data="Qg==")]
    answer = json.loads(answer_body(replace(HEAD, count=5), pictures, 2, 1))

    assert answer == {
        "created": 1,
        "data": [{"b64_json": "QQ==", "revised_prompt": "a cat"}, {"b64_json": "Qg=="}],
        "usage": None,
        "blocked": 2,
        "failed": 1,
    }


def test_half_a_surrogate_pair_breaks_nothing() -> None:
    head = replace(HEAD, size="\ud800", ignored=("mask",))
    events = ImageEvents(head)

    assert b"\\ud800" in events.encode([ImageProgress(0, 50, "QQ==")])
    assert answer_body(head, [ImageReady(0, data="QQ==", revised_prompt="\udfff")], 0, 0)


def read(message: bytes) -> list[tuple[str, dict[str, object]]]:
    blocks = message.decode().split("\n\n")[:-1]
    pairs = [block.split("\n") for block in blocks]
    return [(name[7:], json.loads(data[6:])) for name, data in pairs]


def test_the_events_of_a_stream() -> None:
    events = ImageEvents(replace(HEAD, format="url"))
    message = events.encode(
        [ImageProgress(3, 40, "cHJl"), ImageReady(3, url="https://x/1.png", mime_type="image/png")]
    )
    (partial, first), (completed, second) = read(message)

    assert partial == "image_generation.partial_image"
    assert completed == "image_generation.completed"
    assert first["type"] == partial
    assert (first["url"], first["b64_json"], first["index"]) == ("", "cHJl", 0)
    assert (first["progress"], first["partial_image_index"]) == (40, 0)
    assert (second["url"], second["index"], second["usage"]) == ("https://x/1.png", 0, None)
    assert second["output_format"] == "png"


def test_a_short_stream_says_what_is_missing_and_a_full_one_does_not() -> None:
    short, full = ImageEvents(HEAD), ImageEvents(HEAD)
    pictures = [ImageReady(0, data="QQ=="), ImageReady(1, data="QQ==")]

    assert read(short.encode([pictures[0], Finished(blocked=1)]))[-1] == (
        "image_generation.incomplete",
        {"type": "image_generation.incomplete", "blocked": 1, "failed": 0},
    )
    assert read(full.encode([*pictures, Finished()]))[-1][0] == "image_generation.completed"
    assert full.delivered == 2


def test_pictures_in_the_making_can_be_left_out() -> None:
    events = ImageEvents(replace(HEAD, partials=False))

    assert events.encode([ImageProgress(0, 50)]) == b""
    assert read(events.encode([ImageReady(0, data="QQ==")]))[0][1]["index"] == 0


def test_an_error_is_an_event_too() -> None:
    ((name, data),) = read(ImageEvents(HEAD).fail(ApiError(502, "It broke.", code="broken")))

    assert name == data["type"] == "error"
    assert data["error"] == {
        "message": "It broke.",
        "type": "invalid_request_error",
        "param": None,
        "code": "broken",
    }
