"""Videos of grok.com: payloads, the end, and never a second submission."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    Forbidden,
    NetworkFailed,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event, Finished, VideoProgress, VideoReady
from gateway.upstream.http import Http, open_transport
from gateway.upstream.requests import VideoRequest
from tests.gateway.upstream.media import (
    Rig,
    account,
    events_of,
    only,
    outcome,
    patience,
    running,
    scripted,
    stored,
    until,
)
from tests.gateway.upstream.streams import ASSETS, cut, wrap

CHAT = "/rest/app-chat/conversations/new"
POST = "/rest/media/post/create"
FORMS: dict[str, dict[str, Any]] = {
    "current": {"media_protocol": "current"},
    "gen1": {"media_protocol": "legacy", "upload_form": "json"},
    "gen2": {"media_protocol": "legacy", "upload_form": "json", "legacy_media": "gen2"},
}
WAVES = VideoRequest("waves", "16:9", 6, "720p")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def sent(rig: Rig) -> dict[str, Any]:
    (request,) = rig.state.requests_to(CHAT)
    assert request.headers["Referer"] == f"{rig.url}/imagine"
    body = request.json()
    assert isinstance(body, dict)
    return body


def config(body: dict[str, Any]) -> dict[str, Any]:
    found = body["responseMetadata"]["modelConfigOverride"]["modelMap"]["videoGenModelConfig"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("form", FORMS)
async def test_it_works(rig: Rig, form: str) -> None:
    web = rig.web(**FORMS[form])
    events = await events_of(web.video(WAVES, account("ok-1")))
    assert [event.percent for event in only(VideoProgress, events)] == [1, 50, 95]
    video, end = events[-2:]
    assert isinstance(video, VideoReady)
    assert end == Finished()
    assert video.resolution == "720p"
    assert video.url == f"{rig.url}/users/{video.url.split('/users/')[1]}"
    assert f"/generated/{video.video_id}/generated_video.mp4" in video.url
    assert video.poster_url.endswith("/preview_image.jpg")
    async with web.download(video.url, account("ok-1"), "video") as download:
        assert download.mime_type == "video/mp4"
    assert rig.rules_broken() == []


async def test_the_current_form_has_exactly_eight_keys(rig: Rig) -> None:
    await events_of(rig.web().video(WAVES, account("ok-1")))
    assert sent(rig) == {
        "modelName": "imagine-video-gen",
        "message": "waves --mode=custom",
        "enableImageStreaming": True,
        "enableSideBySide": True,
        "sendFinalMetadata": True,
        "responseMetadata": {"experiments": [], "modelConfigOverride": {"modelMap": {}}},
        "mediaGenInput": {
            "textToVideo": {
                "prompt": "waves",
                "aspectRatio": "16:9",
                "duration": 6,
                "resolutionName": "720p",
            }
        },
        "kind": "CONVERSATION_KIND_IMAGINE",
    }
    assert rig.state.requests_to(POST) == []


@pytest.mark.parametrize(
    ("preset", "flag"),
    [
        ("normal", "--mode=normal"),
        ("fun", "--mode=extremely-crazy"),
        ("spicy", "--mode=extremely-spicy-or-crazy"),
        ("custom", "--mode=custom"),
        ("other", "--mode=custom"),
    ],
)
async def test_a_preset_is_a_flag(rig: Rig, preset: str, flag: str) -> None:
    await events_of(rig.web().video(VideoRequest("waves", preset=preset), account("ok-1")))
    assert sent(rig)["message"] == f"waves {flag}"


@pytest.mark.parametrize(("resolution", "old"), [("480p", "SD"), ("720p", "HD")])
async def test_gen_1_takes_two_steps(rig: Rig, resolution: str, old: str) -> None:
    request = VideoRequest("waves", "3:2", 10, resolution)
    await events_of(rig.web(**FORMS["gen1"]).video(request, account("ok-1")))
    (post,) = rig.state.requests_to(POST)
    assert post.json() == {"mediaType": "MEDIA_POST_TYPE_VIDEO", "prompt": "waves"}
    body = sent(rig)
    assert config(body).pop("parentPostId").startswith("post-")
    assert body == {
        "temporary": True,
        "modelName": "grok-3",
        "message": "waves --mode=custom",
        "toolOverrides": {"videoGen": True},
        "enableSideBySide": True,
        "responseMetadata": {
            "experiments": [],
            "modelConfigOverride": {
                "modelMap": {
                    "videoGenModelConfig": {
                        "aspectRatio": "3:2",
                        "videoLength": 10,
                        "videoResolution": old,
                    }
                }
            },
        },
    }


async def test_gen_2_names_another_model_and_resolution(rig: Rig) -> None:
    await events_of(rig.web(**FORMS["gen2"]).video(WAVES, account("ok-1")))
    body = sent(rig)
    assert (body["modelName"], "toolOverrides" in body) == ("imagine-video-gen", False)
    keys = {"parentPostId", "aspectRatio", "videoLength", "resolutionName"}
    assert set(config(body)) == keys
    assert config(body)["resolutionName"] == "720p"


I2V = FORMS | {"current": {"media_protocol": "current", "legacy_image_to_video": True}}


@pytest.mark.parametrize("form", I2V)
async def test_a_picture_can_be_the_first_frame(rig: Rig, tmp_path: Path, form: str) -> None:
    request = VideoRequest("waves", image=stored(tmp_path))
    events = await events_of(rig.web(**I2V[form]).video(request, account("ok-1")))
    assert only(VideoReady, events)
    (post,) = rig.state.requests_to(POST)
    url = post.json()["mediaUrl"]
    assert post.json() == {"mediaType": "MEDIA_POST_TYPE_IMAGE", "mediaUrl": url}
    extra = {"isVideoEdit": False, "isReferenceToVideo": True, "imageReferences": [url]}
    found = config(sent(rig))
    assert {key: found[key] for key in extra if key in found} == ({} if form == "gen1" else extra)
    assert rig.rules_broken() == []


async def test_the_current_form_has_none_from_a_picture(rig: Rig, tmp_path: Path) -> None:
    request = VideoRequest("waves", image=stored(tmp_path))
    with pytest.raises(RequestRejected) as caught:
        await events_of(rig.web().video(request, account("ok-1")))
    assert not caught.value.maybe_accepted
    assert list(rig.state.requests) == []


@pytest.mark.parametrize(
    "request_",
    [
        VideoRequest("x", seconds=16),
        VideoRequest("x", seconds=0),
        VideoRequest("x", ratio="21:9"),
        VideoRequest("x", resolution="1080p"),
        VideoRequest("\ud800"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
async def test_what_upstream_does_not_make_is_not_asked_for(
    rig: Rig, form: str, request_: VideoRequest
) -> None:
    with pytest.raises(RequestRejected):
        await events_of(rig.web(**FORMS[form]).video(request_, account("ok-1")))
    assert list(rig.state.requests) == []


@pytest.mark.parametrize("behaviour", ["late-cut", "garbage", "wrap-sse", "split1-concat", "slow"])
async def test_what_does_no_harm_does_none(rig: Rig, behaviour: str) -> None:
    events = await events_of(rig.web().video(WAVES, account(f"{behaviour}-1")))
    assert len(only(VideoReady, events)) == 1


MATRIX: list[tuple[str, type[UpstreamError], int, bool]] = [
    ("expired", CredentialRejected, 1, False),
    ("blocked", CredentialRejected, 2, False),
    ("deadcred", CredentialRejected, 3, False),
    ("limited", QuotaExhausted, 5, False),
    ("inband-limit", QuotaExhausted, 5, False),
    ("midlimit", QuotaExhausted, 5, True),
    ("moderated", ContentRefused, 7, False),
    ("moderated-one", ContentRefused, 7, True),
    ("inband-moderated", ContentRefused, 7, False),
    ("badreq", RequestRejected, 8, False),
    ("challenge", SessionRejected, 9, False),
    ("empty403", SessionRejected, 9, False),
    ("html", SessionRejected, 9, False),
    ("inband-antibot", SessionRejected, 10, False),
    ("forbidden", Forbidden, 11, False),
    ("error500", UpstreamFailed, 12, True),
    ("error503-gzip", UpstreamFailed, 12, True),
    ("inband-error", UpstreamFailed, 12, True),
    ("miderror", UpstreamFailed, 12, True),
    ("failed", UpstreamFailed, 12, True),
    ("reset", NetworkFailed, 13, True),
    ("hang", UpstreamTimeout, 13, True),
    ("silent", UpstreamTimeout, 13, True),
    ("cut", UpstreamIncomplete, 14, True),
    ("cutclean", UpstreamIncomplete, 14, True),
    ("garbageonly", UpstreamIncomplete, 14, True),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("behaviour", "expected", "row", "open_"), MATRIX, ids=[case[0] for case in MATRIX]
)
async def test_a_failure_says_whether_the_video_may_be_in_the_making(
    rig: Rig, form: str, behaviour: str, expected: type[UpstreamError], row: int, open_: bool
) -> None:
    web = rig.web(**FORMS[form] | {"video_timeout": patience(behaviour)})
    # What holds for every route is the token's doing, not the prompt's.
    everywhere = behaviour in ("expired", "blocked", "challenge", "empty403", "deadcred")
    prompt = "waves" if everywhere else f"SANDBOX:{behaviour}"
    token = f"{behaviour}-1" if everywhere else "ok-1"
    request = VideoRequest(prompt, "16:9", 6, "720p")
    events, error = await outcome(web.video(request, account(token)))
    assert isinstance(error, expected)
    assert (error.row, error.maybe_accepted) == (row, open_)
    assert not (error.maybe_accepted and error.retry)
    assert not only(VideoReady, events)
    assert len(rig.state.requests_to(CHAT)) <= 1


@pytest.mark.parametrize(
    ("failure", "open_"),
    [
        (httpx.ConnectError("x"), False),
        (httpx.ConnectTimeout("x"), False),
        (httpx.PoolTimeout("x"), False),
        (httpx.ProxyError("x"), False),
        (httpx.WriteError("x"), True),
        (httpx.WriteTimeout("x"), True),
        (httpx.ReadError("x"), True),
        (httpx.ReadTimeout("x"), True),
        (httpx.RemoteProtocolError("x"), True),
        (httpx.Response(302, headers={"location": "/"}), True),
        (httpx.Response(408), False),
        (httpx.Response(429), False),
        (httpx.Response(499), False),
        (httpx.Response(500), True),
        (httpx.Response(200, content=b""), True),
    ],
    ids=str,
)
async def test_only_what_never_left_or_was_turned_away_may_be_sent_again(
    failure: httpx.Response | httpx.TransportError, open_: bool
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if isinstance(failure, httpx.Response):
            return failure
        raise failure

    _, error = await outcome(scripted(handler)[0].video(WAVES, account("ok")))
    assert error is not None
    assert error.maybe_accepted is open_


async def test_a_refused_connection_never_left() -> None:
    async with running() as rig:
        url = rig.url
    http = Http(open_transport())
    rig.url, rig.http = url, http
    _, error = await outcome(rig.web().video(WAVES, account("ok-1")))
    await http.aclose()
    assert isinstance(error, NetworkFailed)
    assert (error.sent, error.maybe_accepted, error.retry) == (False, False, True)


@pytest.mark.parametrize("form", ["gen1", "gen2"])
async def test_what_fails_before_the_submission_leaves_nothing_open(
    rig: Rig, form: str, tmp_path: Path
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == POST
        return httpx.Response(500)

    web, _ = scripted(handler, **FORMS[form])
    _, error = await outcome(web.video(WAVES, account("ok")))
    assert isinstance(error, UpstreamFailed)
    assert (error.maybe_accepted, error.retry) == (False, True)


def frame(**fields: Any) -> bytes:
    live = {"streamingVideoGenerationResponse": {"videoId": "v", **fields}}
    return json.dumps({"result": {"response": live}}).encode()


PATH = "users/u-1/generated/v/generated_video.mp4"


async def made(*frames: bytes) -> tuple[list[Event], UpstreamError | None]:
    body = wrap(frames, "lines")
    web, _ = scripted(lambda request: httpx.Response(200, content=body), assets_url=ASSETS)
    return await outcome(web.video(WAVES, account("ok")))


@pytest.mark.parametrize(
    "frames",
    [
        (frame(progress=100, videoUrl=PATH, moderated=True),),
        (frame(progress=100, moderated=True), frame(progress=100, videoUrl=PATH)),
        (
            frame(progress=100, moderated=True),
            json.dumps(
                {"result": {"response": {"modelResponse": {"fileAttachments": [PATH]}}}}
            ).encode(),
        ),
    ],
)
async def test_a_moderated_video_never_has_an_address(frames: tuple[bytes, ...]) -> None:
    events, error = await made(*frames)
    assert isinstance(error, ContentRefused)
    assert PATH not in repr(events)


async def test_another_video_of_the_same_turn_may_pass() -> None:
    other = PATH.replace("/v/", "/w/")
    events, error = await made(
        frame(progress=100, moderated=True), frame(videoId="w", progress=100, videoUrl=other)
    )
    assert error is None
    assert only(VideoReady, events) == [VideoReady(f"{ASSETS}/{other}", video_id="w")]


async def test_full_progress_is_not_yet_a_video() -> None:
    _, error = await made(frame(progress=100))
    assert isinstance(error, UpstreamIncomplete)
    assert error.maybe_accepted


class Pieces(httpx.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@pytest.mark.parametrize("wrapping", ["lines", "sse", "joined"])
async def test_a_stream_cut_at_every_byte_gives_the_same_events(wrapping: str) -> None:
    frames = (
        frame(progress=1, resolutionName="480p"),
        frame(progress=95, note='é"{'),
        frame(progress=100, videoUrl=PATH, thumbnailImageUrl="users/u-1/generated/v/p.jpg"),
    )
    body = wrap(frames, wrapping)
    expected = (await made(*frames))[0]
    assert isinstance(expected[-2], VideoReady)
    pieces: list[bytes] = []
    web, _ = scripted(
        lambda request: httpx.Response(200, stream=Pieces(*pieces)), assets_url=ASSETS
    )
    for place in range(len(body)):
        pieces[:] = [piece for piece in cut(body, [place]) if piece]
        assert await events_of(web.video(WAVES, account("ok"))) == expected


async def test_reading_stops_once_the_address_is_known(rig: Rig) -> None:
    async for batch in rig.web().video(WAVES, account("slow-1")):
        if only(VideoReady, batch):
            break
    await until(lambda: rig.state.open_streams == 0)


async def test_a_cancelled_video_closes_its_connection(rig: Rig) -> None:
    waiting = asyncio.ensure_future(anext(rig.web().video(WAVES, account("hang-1"))))
    await until(lambda: len(rig.state.requests_to(CHAT)) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await rig.left(CHAT)


async def test_a_video_is_upscaled_by_its_owner(rig: Rig) -> None:
    web = rig.web()
    (video,) = only(VideoReady, await events_of(web.video(WAVES, account("ok-1"))))
    url = await web.upscale(video.video_id, account("ok-1"))
    assert url.endswith("generated_video_hd.mp4")
    (request,) = rig.state.requests_to("/rest/media/video/upscale")
    assert request.json() == {"videoId": video.video_id}
    async with web.download(url, account("ok-1"), "video") as download:
        assert download.size
    with pytest.raises(RequestRejected):
        await web.upscale(video.video_id, account("ok-2"))
    assert rig.rules_broken() == []


@pytest.mark.parametrize("reply", [{}, {"hdMediaUrl": ""}, {"hdMediaUrl": "https://evil.example/"}])
async def test_an_upscale_without_an_address_of_ours_fails(reply: Any) -> None:
    web, _ = scripted(lambda request: httpx.Response(200, json=reply))
    with pytest.raises(UpstreamFailed):
        await web.upscale("v", account("ok"))
