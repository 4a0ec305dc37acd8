"""One round of the picture socket: which pictures come of which frames."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.media_bytes import jpeg, png
from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    ImagesIncomplete,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady
from gateway.upstream.web.media import imagine_frames
from gateway.upstream.web.media.imagine_frames import RoundDecoder
from tests.gateway.upstream.streams import PROPERTY

ASSETS = "https://assets.grok.com"
PUBLIC = "https://imagine-public.x.ai/imagine-public/images"
OURS = "img_1"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


FINAL = b64(jpeg("final"))
PREVIEW = b64(png("preview"))


def decoder(wanted: int = 1, past: tuple[str, ...] = (), **limits: int) -> RoundDecoder:
    return RoundDecoder(OURS, wanted, ASSETS, past, **limits)


def start(slot: int) -> dict[str, Any]:
    return state(slot, "start_stage", percentage_complete=0)


def state(slot: int, status: str, **fields: Any) -> dict[str, Any]:
    named = {"type": "json", "current_status": status, "image_id": f"id-{slot}", "order": slot}
    return {**named, **fields}


def image(slot: int, blob: str = FINAL, percent: int | None = 100, **fields: Any) -> dict[str, Any]:
    ending = "jpg" if percent in (None, 100) else "png"
    frame = {"type": "image", "id": f"id-{slot}", "order": slot, "blob": blob}
    frame |= {} if percent is None else {"percentage_complete": percent}
    return {**frame, "url": f"{PUBLIC}/id-{slot}.{ending}", **fields}


def completed(slot: int, **fields: Any) -> dict[str, Any]:
    return state(slot, "completed", **{"moderated": False, **fields})


def play(decoding: RoundDecoder, *frames: dict[str, Any]) -> list[Event]:
    return [event for frame in frames for event in decoding.feed(json.dumps(frame))]


def ready(index: int = 0) -> ImageReady:
    return ImageReady(index, f"{PUBLIC}/id-{index}.jpg", FINAL, "image/jpeg")


def test_it_works() -> None:
    decoding = decoder()
    events = play(decoding, start(0), image(0, PREVIEW, 50), image(0), completed(0))
    assert events == [ImageProgress(0, 50, preview=PREVIEW), ready()]
    assert decoding.done
    assert decoding.finish() == [Finished()]


@pytest.mark.parametrize(
    "frames",
    [
        (image(0), completed(0)),
        (completed(0), image(0)),
        (image(0, percent=None), completed(0)),
        (state(0, "done"), image(0, percent=None)),
        (image(0), state(0, "SUCCESS")),
        (image(0), {"type": "json", "currentStatus": "completed", "imageId": "id-0"}),
        (completed(0, blob=FINAL, url=f"{PUBLIC}/id-0.jpg"),),
        (image(0, f"data:image/jpeg;base64,{FINAL}"), completed(0)),
        (image(0, PREVIEW, 99), image(0), completed(0)),
        ({"type": "image", "url": f"{PUBLIC}/id-0.jpg", "blob": FINAL}, completed(0)),
        (image(0), {"type": "json", "current_status": "completed", "job_id": "id-0"}),
    ],
)
def test_a_final_frame_and_a_completed_one_make_a_picture(
    frames: tuple[dict[str, Any], ...],
) -> None:
    decoding = decoder()
    assert [event for event in play(decoding, *frames) if isinstance(event, ImageReady)] == [
        ready()
    ]
    assert decoding.done


@pytest.mark.parametrize(
    "frames",
    [
        (image(0),),
        (completed(0),),
        (image(0, PREVIEW, 99), completed(0)),
        (image(0, percent=99), completed(0)),
        (start(0), completed(0)),
        (image(0), completed(1)),
        (image(0), completed(0, moderated=True)),
        (completed(0, moderated=True), image(0)),
        (completed(0, moderated=True), completed(0), image(0)),
        (image(0, moderated=True), completed(0)),
        (completed(0, moderated=True, blob=FINAL, url=f"{PUBLIC}/id-0.jpg"),),
        (image(0, "", url=""), completed(0)),
        (image(0, "not base64!", url="https://evil.example/x.jpg"), completed(0)),
        (image(0, b64(b"<html>"), url=""), completed(0)),
        (image(0, b64(b'{"error":1}'), url=""), completed(0)),
        (image(0, request_id="someone-else"), completed(0)),
        ({"type": "surprise"}, {"type": "json"}, {}),
    ],
)
def test_nothing_less_does(frames: tuple[dict[str, Any], ...]) -> None:
    assert not [event for event in play(decoder(), *frames) if isinstance(event, ImageReady)]


def test_an_address_alone_is_enough() -> None:
    events = play(decoder(), image(0, ""), completed(0))
    assert events == [ImageReady(0, f"{PUBLIC}/id-0.jpg")]


def test_bytes_with_a_foreign_address_come_without_it() -> None:
    events = play(decoder(), image(0, url="https://evil.example/a.jpg"), completed(0))
    assert events == [ImageReady(0, "", FINAL, "image/jpeg")]


def test_a_preview_without_bytes_has_an_address() -> None:
    events = play(decoder(), image(0, "", 20))
    assert events == [ImageProgress(0, 20, preview_url=f"{PUBLIC}/id-0.png")]


def test_a_picture_above_the_cap_is_not_taken() -> None:
    size = len(jpeg("final"))
    assert play(decoder(max_blob=size), image(0), completed(0)) == [ready()]
    decoding = decoder(max_blob=size - 3)
    assert play(decoding, image(0, url=""), completed(0)) == []
    with pytest.raises(ImagesIncomplete):
        decoding.finish()


def test_what_waits_for_completion_is_bounded() -> None:
    decoding = decoder(10, max_held=3 * len(FINAL))
    play(decoding, *(image(slot) for slot in range(3)), image(2))
    assert decoding.held == 3 * len(FINAL)
    play(decoding, completed(0))
    assert decoding.held == 2 * len(FINAL)
    play(decoding, image(3))
    with pytest.raises(UpstreamFailed):
        play(decoding, image(4))


def test_a_picture_is_given_out_once() -> None:
    frames = (image(0), completed(0), image(0), completed(0), image(0, PREVIEW, 50))
    assert play(decoder(2), *frames) == [ready()]


def test_slots_are_bounded() -> None:
    decoding = decoder(10)
    play(decoding, *(start(slot) for slot in range(1000)))
    assert len(decoding.slot_ids) == imagine_frames.MAX_SLOTS


def test_stragglers_of_an_earlier_round_are_not_this_rounds() -> None:
    decoding = decoder(past=("id-0",))
    assert play(decoding, image(0), completed(0), image(1), completed(1)) == [ready(1)]


def test_a_round_is_over_with_the_pictures_wanted() -> None:
    decoding = decoder(2)
    frames = [frame for slot in range(3) for frame in (image(slot), completed(slot))]
    assert play(decoding, *frames) == [ready(0), ready(1)]
    assert decoding.finish() == [Finished()]


def test_a_round_is_over_when_every_slot_is() -> None:
    decoding = decoder(3)
    over = []
    for frame in (image(0), completed(0), completed(1, moderated=True), image(2, "", url="")):
        play(decoding, frame)
        over.append(decoding.done)
    play(decoding, completed(2))
    assert [*over, decoding.done] == [False, False, False, False, True]
    assert decoding.finish() == [Finished(blocked=1, failed=1)]


def test_a_round_that_lacks_only_bytes_is_settled() -> None:
    decoding = decoder(3)
    settled = [decoding.settled]
    for frame in (start(0), completed(1), completed(0), start(2)):
        play(decoding, frame)
        settled.append(decoding.settled)
    assert settled == [False, False, False, True, False]
    assert not decoding.done


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((completed(0, moderated=True), completed(1, moderated=True)), ContentRefused),
        ((completed(0, moderated=True), image(1, "", url=""), completed(1)), ImagesIncomplete),
        ((completed(0),), ImagesIncomplete),
        ((), ImagesIncomplete),
    ],
)
def test_a_round_without_a_picture_is_an_error(
    frames: tuple[dict[str, Any], ...], expected: type[UpstreamError]
) -> None:
    decoding = decoder(2)
    play(decoding, *frames)
    with pytest.raises(expected) as caught:
        decoding.finish()
    assert caught.value.row in (7, 14)


@pytest.mark.parametrize(
    ("fields", "expected", "row"),
    [
        ({"err_code": "rate_limit_exceeded", "err_msg": "Image rate limit"}, QuotaExhausted, 5),
        ({"errCode": "rate_limit", "err_message": "x"}, QuotaExhausted, 5),
        ({"err_code": 8}, QuotaExhausted, 5),
        ({"err_code": "moderated"}, ContentRefused, 7),
        ({"err_code": "prompt_moderation_failed"}, ContentRefused, 7),
        ({"err_code": "blocked"}, ContentRefused, 7),
        ({"err_code": "usage_policy"}, ContentRefused, 7),
        ({"err_code": "x", "err_msg": "Content violates usage guidelines"}, ContentRefused, 7),
        ({"err_code": "x", "error": {"message": "content-moderated"}}, ContentRefused, 7),
        ({"err_code": 7, "err_msg": "[WKE=unauthorized:blocked-user]"}, CredentialRejected, 2),
        ({"err_code": "blocked-user"}, CredentialRejected, 2),
        ({"err_code": "anti_bot"}, SessionRejected, 10),
        ({"err_code": "invalid_argument"}, RequestRejected, 8),
        ({"err_code": "internal"}, UpstreamFailed, 12),
        ({"error": "failed"}, UpstreamFailed, 12),
        ({}, UpstreamFailed, 12),
        ({"err_code": ["odd"], "error": 3}, UpstreamFailed, 12),
    ],
)
@pytest.mark.parametrize("form", [{"type": "error"}, {"type": "json", "current_status": "error"}])
def test_an_error_frame_has_a_verdict(
    fields: dict[str, Any], expected: type[UpstreamError], row: int, form: dict[str, Any]
) -> None:
    with pytest.raises(expected) as caught:
        play(decoder(), {**form, **fields})
    assert caught.value.row == row


def test_the_error_of_another_request_is_not_ours() -> None:
    error = {"type": "error", "err_code": "internal", "request_id": "someone-else"}
    assert play(decoder(), error, image(0, request_id=OURS), completed(0, requestId=OURS))


@pytest.mark.parametrize("previewed", [False, True])
def test_pictures_begun_and_not_finished_are_nobodys_fault(previewed: bool) -> None:
    decoding = decoder()
    play(decoding, start(0), *([image(0, PREVIEW, 50)] if previewed else []))
    silence = decoding.silent(UpstreamTimeout(row=13))
    assert isinstance(silence, ImagesIncomplete if previewed else UpstreamTimeout)
    assert silence.retry is not previewed
    assert decoding.closed_early().retry is not previewed


FATES = ("good", "moderated", "no bytes", "no completion", "preview only", "unusable")


def frames_of(slot: int, fate: str) -> list[dict[str, Any]]:
    previews = [start(slot), image(slot, PREVIEW, 50)]
    match fate:
        case "good":
            return [*previews, image(slot, percent=None if slot % 2 else 100), completed(slot)]
        case "moderated":
            return [*previews, image(slot), completed(slot, moderated=True)]
        case "no bytes":
            return [*previews, completed(slot)]
        case "no completion":
            return [*previews, image(slot)]
        case "unusable":
            return [image(slot, "", url="https://evil.example/x.jpg"), completed(slot)]
        case _:
            return previews


OLD_NAMES = {
    "current_status": "currentStatus",
    "image_id": "imageId",
    "id": "imageId",
    "url": "imageUrl",
    "percentage_complete": "progress",
    "order": "side_by_side_index",
}


def respelled(frame: dict[str, Any], names: bool, status: str) -> dict[str, Any]:
    """The same frame with the older dialect's names, and one of its words for the end."""
    frame = {OLD_NAMES.get(key, key) if names else key: frame[key] for key in frame}
    return {key: status if value == "completed" else value for key, value in frame.items()}


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """The slots' fates, and their frames in any order at all: plain, and respelled."""
    fates = draw(st.lists(st.sampled_from(FATES), min_size=1, max_size=6))
    frames = [frame for slot, fate in enumerate(fates) for frame in frames_of(slot, fate)]
    frames = draw(st.permutations(frames))
    words = st.sampled_from(["completed", "done", "success", "COMPLETED"])
    sent = [respelled(frame, draw(st.booleans()), draw(words)) for frame in frames]
    return fates, frames, sent


@PROPERTY
@given(rounds())
def test_whatever_the_order_a_picture_is_given_out_if_it_has_bytes_and_leave(
    drawn: tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    fates, frames, sent = drawn
    decoding = decoder(wanted=10)
    events = play(decoding, *sent)
    pictures = [event for event in events if isinstance(event, ImageReady)]
    expected = []
    for slot, fate in enumerate(fates):
        ids = [frame for frame in frames if frame.get("image_id", frame.get("id")) == f"id-{slot}"]
        leave = [f for f in ids if f.get("current_status") == "completed" and not f["moderated"]]
        final = [
            frame
            for frame in ids
            if frame["type"] == "image"
            and frame.get("percentage_complete", 100) == 100
            and frame["blob"]
        ]
        if final and leave:
            expected.append(f"{PUBLIC}/id-{slot}.jpg")
            assert fate == "good"
    assert sorted(event.url for event in pictures) == expected
    assert len({event.index for event in pictures}) == len(pictures)
    blocked = fates.count("moderated")
    if pictures:
        (end,) = decoding.finish()
        assert isinstance(end, Finished)
        assert (end.blocked, end.failed) == (blocked, 10 - len(pictures) - blocked)
        return
    with pytest.raises(ContentRefused if blocked == len(fates) else ImagesIncomplete):
        decoding.finish()


NAMES = (
    *("type", "current_status", "image_id", "id", "order", "url", "blob", "moderated", "error"),
    *("percentage_complete", "err_code", "request_id", "grid_index"),
)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", FINAL]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=6,
)


@PROPERTY
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(NAMES),
            ODD | st.sampled_from(["image", "json", "completed", "error", f"{PUBLIC}/a.jpg"]),
        ),
        max_size=6,
    ),
    st.binary(max_size=20),
)
def test_no_frame_raises_anything_but_our_errors(frames: list[dict[str, Any]], raw: bytes) -> None:
    decoding = decoder()
    try:
        play(decoding, *frames)
        decoding.feed(raw)
        decoding.finish()
    except UpstreamError as error:
        assert error.row in range(1, 17)
