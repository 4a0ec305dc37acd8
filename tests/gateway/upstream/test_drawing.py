"""Pictures by way of chat, over REST (Gen 1, Gen 2) and over the chat socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    Forbidden,
    ImagesIncomplete,
    NetworkFailed,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady
from gateway.upstream.requests import ImageRequest
from gateway.upstream.web.client import WebUpstream
from tests.gateway.upstream.media import (
    Rig,
    account,
    events_of,
    only,
    outcome,
    patience,
    running,
    scripted,
)
from tests.gateway.upstream.streams import ASSETS, cut, wrap

FORMS: dict[str, dict[str, Any]] = {
    "gen1": {"chat_protocol": "rest", "rest_form": "model_name"},
    "gen2": {"chat_protocol": "rest", "rest_form": "mode_id"},
    "gen3": {"chat_protocol": "mgw"},
}
TWO = ImageRequest("a lighthouse", 2)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


@pytest.mark.parametrize("form", FORMS)
async def test_it_works(rig: Rig, form: str) -> None:
    web = rig.web(**FORMS[form])
    events = await events_of(web.draw(TWO, account("ok-1")))
    pictures = only(ImageReady, events)
    assert len(pictures) == 2
    assert len({picture.index for picture in pictures}) == 2
    assert all("-part-" not in picture.url for picture in pictures)
    assert all("-part-0/" in item.preview_url for item in only(ImageProgress, events))
    (end,) = only(Finished, events)
    assert (end.blocked, end.failed) == (0, 0)
    assert {type(event) for event in events} == {ImageProgress, ImageReady, Finished}
    for picture in pictures:
        async with web.download(picture.url, account("ok-1"), "image") as download:
            assert b"".join([chunk async for chunk in download.chunks])
    assert rig.rules_broken() == []


@pytest.mark.parametrize(
    ("form", "message"),
    [("gen1", "Image Generation: a lighthouse"), ("gen2", "Drawing: a lighthouse")],
)
async def test_each_generation_has_its_words(rig: Rig, form: str, message: str) -> None:
    await events_of(rig.web(**FORMS[form]).draw(TWO, account("ok-1")))
    (request,) = rig.state.requests_to("/rest/app-chat/conversations/new")
    assert request.json()["message"] == message


@pytest.mark.parametrize("form", FORMS)
async def test_it_leaves_with_the_pictures_wanted(rig: Rig, form: str) -> None:
    events = await events_of(rig.web(**FORMS[form]).draw(ImageRequest("x", 1), account("ok-1")))
    assert len(only(ImageReady, events)) == 1
    assert isinstance(events[-1], Finished)
    assert events[-1].failed == 0


@pytest.mark.parametrize("form", FORMS)
async def test_a_moderated_picture_is_counted_and_not_named(rig: Rig, form: str) -> None:
    token = "moderated-one-1"
    events = await events_of(rig.web(**FORMS[form]).draw(TWO, account(token)))
    (picture,) = only(ImageReady, events)
    (end,) = only(Finished, events)
    assert (end.blocked, end.failed) == (1, 0)
    kept = [path for path in rig.state.assets if "/generated/" in path and "-part-" not in path]
    assert len(kept) == 2
    assert picture.url.removeprefix(f"{rig.url}/") in kept


FAILURES: list[tuple[str, type[UpstreamError], int]] = [
    ("expired", CredentialRejected, 1),
    ("blocked", CredentialRejected, 2),
    ("deadcred", CredentialRejected, 3),
    ("limited", QuotaExhausted, 5),
    ("inband-limit", QuotaExhausted, 5),
    ("midlimit", QuotaExhausted, 5),
    ("moderated", ContentRefused, 7),
    ("inband-moderated", ContentRefused, 7),
    ("badreq", RequestRejected, 8),
    ("challenge", SessionRejected, 9),
    ("html", SessionRejected, 9),
    ("inband-antibot", SessionRejected, 10),
    ("forbidden", Forbidden, 11),
    ("error500", UpstreamFailed, 12),
    ("error503-gzip", UpstreamFailed, 12),
    ("inband-error", UpstreamFailed, 12),
    ("failed", UpstreamFailed, 12),
    ("reset", NetworkFailed, 13),
    ("hang", UpstreamTimeout, 13),
    ("silent", UpstreamTimeout, 13),
    ("cut", ImagesIncomplete, 14),
    ("cutclean", ImagesIncomplete, 14),
    ("garbageonly", ImagesIncomplete, 14),
]


# On the socket both pictures are finished before the answer fails.
CASES = [
    (form, *case) for form in FORMS for case in FAILURES if (form, case[0]) != ("gen3", "failed")
]


@pytest.mark.parametrize(("form", "behaviour", "expected", "row"), CASES)
async def test_every_failure_has_its_row(
    rig: Rig, form: str, behaviour: str, expected: type[UpstreamError], row: int
) -> None:
    web = rig.web(**FORMS[form] | {"timeout": patience(behaviour)})
    _, error = await outcome(web.draw(TWO, account(f"{behaviour}-1")))
    assert isinstance(error, expected)
    assert error.row == row


async def test_no_picture_at_the_end_has_a_code_of_its_own(rig: Rig) -> None:
    web, _ = talking(frame(token="I cannot draw."), frame(isSoftStop=True, token=""))
    _, error = await outcome(web.draw(TWO, account("ok")))
    assert isinstance(error, ImagesIncomplete)
    assert (error.row, error.status, error.code) == (14, 502, "image_generation_incomplete")


def frame(**response: Any) -> bytes:
    return json.dumps({"result": {"response": {"responseId": "r", **response}}}).encode()


def live(**fields: Any) -> bytes:
    return frame(streamingImageGenerationResponse=fields)


def talking(*frames: bytes, wrapping: str = "lines") -> tuple[WebUpstream, list[float]]:
    body = wrap(frames, wrapping)
    return scripted(lambda request: httpx.Response(200, content=body), assets_url=ASSETS)


def path(image_id: str) -> str:
    return f"users/u-1/generated/{image_id}/image.jpg"


async def drawn(*frames: bytes) -> list[Event]:
    web, _ = talking(*frames, frame(token="Here.", isSoftStop=True))
    return await events_of(web.draw(TWO, account("ok")))


@pytest.mark.parametrize(
    "moderated",
    [
        live(imageIndex=0, imageId="a", progress=100, imageUrl=path("a"), moderated=True),
        live(imageIndex=0, imageId="a", progress=100, moderated=True),
        live(imageIndex=0, assetId="a", progress=50, moderated=True),
        live(imageIndex=0, progress=50, imageUrl=path("a-part-0"), moderated=True),
        frame(
            cardAttachment={
                "jsonData": {"id": "c", "image_chunk": {"imageUuid": "a", "moderated": True}}
            }
        ),
    ],
)
async def test_moderation_takes_a_picture_off_every_later_list(moderated: bytes) -> None:
    listed = frame(modelResponse={"generatedImageUrls": [path("a"), path("b")]})
    again = live(imageIndex=0, progress=100, imageUrl=path("a"))
    events = await drawn(moderated, live(imageIndex=0, imageUrl=path("a-part-1")), listed, again)
    assert [event.url for event in only(ImageReady, events)] == [f"{ASSETS}/{path('b')}"]
    assert path("a") not in repr(events)
    assert only(Finished, events)[0].blocked == 1


async def test_words_do_not_make_up_for_moderated_pictures() -> None:
    frames = [
        live(imageIndex=index, imageId=str(index), progress=100, moderated=True)
        for index in range(2)
    ]
    web, _ = talking(*frames, frame(token="Here.", isSoftStop=True))
    _, error = await outcome(web.draw(TWO, account("ok")))
    assert isinstance(error, ContentRefused)


async def test_nothing_is_waited_for_once_the_pictures_are_there() -> None:
    class Endless(httpx.AsyncByteStream):
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield live(imageIndex=0, progress=100, imageUrl=path("a"))
            yield live(imageIndex=1, progress=50)
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            self.closed = True

    body = Endless()
    web, _ = scripted(lambda request: httpx.Response(200, stream=body))
    async with asyncio.timeout(2):
        events = await events_of(web.draw(ImageRequest("x", 1), account("ok")))
    assert [type(event) for event in events] == [ImageReady, Finished]
    assert body.closed


async def test_a_preview_is_never_a_picture() -> None:
    listed = frame(modelResponse={"generatedImageUrls": [path("a-part-0"), path("b")]})
    events = await drawn(live(imageIndex=0, progress=100, imageUrl=path("a-part-0")), listed)
    assert [event.url for event in only(ImageReady, events)] == [f"{ASSETS}/{path('b')}"]
    assert only(Finished, events)[0].failed == 1


SCRIPT = (
    json.dumps({"result": {"conversation": {"conversationId": "conv-2"}}}).encode(),
    frame(imageAttachmentInfo={}),
    live(imageIndex=0, imageId="ä", progress=50, imageUrl=path("a-part-0")),
    live(imageIndex=1, imageId="b", progress=100, imageUrl=path("b"), moderated=True),
    live(imageIndex=0, imageId="a", progress=100, imageUrl=path("a")),
    frame(token='Here "it" is {}.', isSoftStop=True),
    frame(modelResponse={"message": "x", "generatedImageUrls": [path("a"), path("b")]}),
)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@pytest.mark.parametrize("wrapping", ["lines", "sse", "joined"])
async def test_a_stream_cut_at_every_byte_gives_the_same_events(wrapping: str) -> None:
    body = wrap(SCRIPT, wrapping)
    expected = await events_of(talking(*SCRIPT)[0].draw(TWO, account("ok")))
    assert [event.url for event in only(ImageReady, expected)] == [f"{ASSETS}/{path('a')}"]
    pieces: list[bytes] = []
    web, _ = scripted(
        lambda request: httpx.Response(200, stream=Pieces(*pieces)), assets_url=ASSETS
    )
    for place in range(len(body)):
        pieces[:] = [piece for piece in cut(body, [place]) if piece]
        assert await events_of(web.draw(TWO, account("ok"))) == expected
