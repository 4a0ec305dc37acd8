"""Pictures and videos of api.x.ai, against the sandbox and against scripted answers."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.media_bytes import jpeg, png
from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    Forbidden,
    ImagesIncomplete,
    NetworkFailed,
    NotEntitled,
    PostprocessingFailed,
    QuotaExhausted,
    RequestRejected,
    TeamBalanceExhausted,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Finished, ImageReady, VideoProgress, VideoReady
from gateway.upstream.http import Http
from gateway.upstream.requests import EditRequest, ImageRequest, VideoRequest
from gateway.upstream.taxonomy import NotFound
from gateway.upstream.xai.client import XaiUpstream
from gateway.upstream.xai.images import MAX_INPUT_BYTES, read_images
from gateway.upstream.xai.settings import XaiSettings
from gateway.upstream.xai.videos import VideoJob, read_job
from tests.gateway.upstream.media import (
    Rig,
    account,
    events_of,
    only,
    outcome,
    patience,
    running,
    stored,
    until,
)
from tests.gateway.upstream.streams import PROPERTY

IMAGE_MODEL = "grok-imagine-image"
VIDEO_MODEL = "grok-imagine-video"
GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
START = "/v1/videos/generations"
OK = account("xai-ok-1")
CAT = ImageRequest("a cat", 2)
WAVES = VideoRequest("waves", "16:9", 6, "720p")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def scripted(handler: Any, **settings: Any) -> tuple[XaiUpstream, list[float]]:
    http = Http(httpx.MockTransport(handler))
    chosen = XaiSettings(**settings)
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    return XaiUpstream(lambda: http, lambda: chosen, sleep=nap), naps


def saying(status: int, body: Any) -> XaiUpstream:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return scripted(lambda request: httpx.Response(status, content=content))[0]


async def test_it_works(rig: Rig) -> None:
    xai = rig.xai()
    events = await events_of(xai.images(ImageRequest("a cat", 10), IMAGE_MODEL, OK))
    pictures = only(ImageReady, events)
    assert [picture.index for picture in pictures] == list(range(10))
    assert events[-1] == Finished(extra={"cost_in_usd_ticks": "7000000000"})
    async with xai.download(pictures[3].url, "image") as download:
        assert download.mime_type == "image/jpeg"
        assert (b"".join([chunk async for chunk in download.chunks])).startswith(b"\xff\xd8")
    assert rig.rules_broken() == []


async def test_base64_in_place_of_links(rig: Rig) -> None:
    request = ImageRequest("a cat", 1, inline=True)
    (picture, _) = await events_of(rig.xai().images(request, IMAGE_MODEL, OK))
    assert isinstance(picture, ImageReady)
    assert (picture.url, picture.mime_type) == ("", "image/jpeg")
    assert base64.b64decode(picture.data).startswith(b"\xff\xd8")


async def test_the_fields_are_those_of_the_document(rig: Rig) -> None:
    request = ImageRequest("a cat", 3, "3:2", True, True, "2k", "low", True, "u-1")
    await events_of(rig.xai().images(request, IMAGE_MODEL, OK))
    (sent,) = rig.state.requests_to(GENERATIONS)
    assert sent.json() == {
        "model": IMAGE_MODEL,
        "prompt": "a cat",
        "n": 3,
        "response_format": "b64_json",
        "aspect_ratio": "3:2",
        "resolution": "2k",
        "quality": "low",
        "user": "u-1",
    }
    rig.state.reset()
    await events_of(rig.xai().images(ImageRequest("a cat"), IMAGE_MODEL, OK))
    (sent,) = rig.state.requests_to(GENERATIONS)
    assert set(sent.json()) == {"model", "prompt", "n", "response_format"}


@pytest.mark.parametrize(("count", "name"), [(1, "image"), (2, "images"), (3, "images")])
async def test_pictures_to_edit_go_as_data_uris(
    rig: Rig, tmp_path: Path, count: int, name: str
) -> None:
    files = tuple(stored(tmp_path, f"{number}.png") for number in range(count))
    request = EditRequest("make it blue", files, 2, "1:1")
    events = await events_of(rig.xai().edit_images(request, IMAGE_MODEL, OK))
    assert len(only(ImageReady, events)) == 2
    (sent,) = rig.state.requests_to(EDITS)
    body = sent.json()
    uris = [
        {"url": f"data:image/png;base64,{base64.b64encode(png(f'{number}.png')).decode()}"}
        for number in range(count)
    ]
    assert body.pop(name) == (uris[0] if count == 1 else uris)
    keys = {"model", "prompt", "n", "response_format"} | ({"aspect_ratio"} if count > 1 else set())
    assert set(body) == keys
    assert rig.rules_broken() == []


async def test_pictures_to_edit_are_not_read_into_memory(rig: Rig, tmp_path: Path) -> None:
    size = 8 * 1024 * 1024
    files = tuple(stored(tmp_path, content=bytes(size)) for _ in range(3))
    request = EditRequest("make it blue", files)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while left:
            left -= len(await reader.read(65536))
        body = b'{"data":[{"url":"https://imgen.x.ai/a.jpg"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gc.collect()
        tracemalloc.start()
        events = await events_of(rig.xai(base_url=url).edit_images(request, IMAGE_MODEL, OK))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert only(ImageReady, events)
    assert peak < size


async def test_what_cannot_be_edited_is_not_sent(rig: Rig, tmp_path: Path) -> None:
    small = stored(tmp_path)
    large = stored(tmp_path, content=bytes(MAX_INPUT_BYTES + 1))
    for files in ((), (small,) * 4, (large,)):
        with pytest.raises(RequestRejected):
            request = EditRequest("x", files)
            await events_of(rig.xai().edit_images(request, IMAGE_MODEL, OK))
    with pytest.raises(RequestRejected):
        await events_of(rig.xai().images(ImageRequest("x", ratio="7:1"), IMAGE_MODEL, OK))
    with pytest.raises(RequestRejected):
        await events_of(rig.xai().images(ImageRequest("\ud800"), IMAGE_MODEL, OK))
    assert list(rig.state.requests) == []


async def test_a_blocked_picture_comes_with_status_200_and_is_counted(rig: Rig) -> None:
    token = account("xai-moderated-one-1")
    events = await events_of(rig.xai().images(CAT, IMAGE_MODEL, token))
    assert len(only(ImageReady, events)) == 1
    (end,) = only(Finished, events)
    assert (end.blocked, end.failed) == (1, 0)


FAILURES: list[tuple[str, type[UpstreamError]]] = [
    ("expired", CredentialRejected),
    ("deadcred", CredentialRejected),
    ("limited", QuotaExhausted),
    ("limited-noretry", QuotaExhausted),
    ("limited-credit", TeamBalanceExhausted),
    ("broke", TeamBalanceExhausted),
    ("moderated", ContentRefused),
    ("badreq", RequestRejected),
    ("challenge", Forbidden),
    ("forbidden", NotEntitled),
    ("blocked", NotEntitled),
    ("error500", UpstreamFailed),
    ("error503-gzip", UpstreamFailed),
    ("html", UpstreamFailed),
    ("inband-limit", QuotaExhausted),
    ("inband-error", UpstreamFailed),
    ("reset", NetworkFailed),
    ("hang", UpstreamTimeout),
    ("silent", UpstreamTimeout),
    ("cut", UpstreamIncomplete),
]
REFUSALS = {
    *("expired", "deadcred", "limited", "limited-noretry", "limited-credit", "broke"),
    *("moderated", "badreq", "challenge", "forbidden", "blocked", "inband-limit"),
}


@pytest.mark.parametrize(("behaviour", "expected"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_every_failure_of_pictures(
    rig: Rig, behaviour: str, expected: type[UpstreamError]
) -> None:
    xai = rig.xai(timeout=patience(behaviour))
    token = account(f"xai-{behaviour}-1")
    _, error = await outcome(xai.images(CAT, IMAGE_MODEL, token))
    assert isinstance(error, expected)
    assert not error.maybe_accepted


@pytest.mark.parametrize(("behaviour", "expected"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_every_failure_to_start_a_video_says_whether_it_was_taken(
    rig: Rig, behaviour: str, expected: type[UpstreamError]
) -> None:
    xai = rig.xai(timeout=patience(behaviour))
    with pytest.raises(expected) as caught:
        await xai.start_video(WAVES, VIDEO_MODEL, account(f"xai-{behaviour}-1"))
    error = caught.value
    assert error.maybe_accepted is (behaviour not in REFUSALS)
    assert not (error.maybe_accepted and error.retry)


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b"{}", b'{"request_id":"../x"}'])
async def test_a_ticket_that_cannot_be_read_may_have_been_one(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await saying(200, body).start_video(WAVES, VIDEO_MODEL, OK)
    assert caught.value.maybe_accepted


async def test_a_connection_that_was_never_made_may_be_tried_again() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("x")

    with pytest.raises(NetworkFailed) as caught:
        await scripted(refuse)[0].start_video(WAVES, VIDEO_MODEL, OK)
    assert (caught.value.maybe_accepted, caught.value.retry) == (False, True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": []}, ImagesIncomplete),
        ({"data": [{"url": "https://evil.example/a.jpg"}]}, ImagesIncomplete),
        ({"data": [{"url": "http://imgen.x.ai/a.jpg"}]}, ImagesIncomplete),
        ({"data": [{"b64_json": "not base64!"}, {"b64_json": ""}, 7]}, ImagesIncomplete),
        (
            {"data": [{"url": "https://imgen.x.ai/a.jpg", "respect_moderation": False}]},
            ContentRefused,
        ),
        ({}, UpstreamIncomplete),
        ({"error": "odd"}, UpstreamFailed),
        (b"", UpstreamFailed),
        (b"[", UpstreamFailed),
    ],
)
async def test_an_answer_without_a_picture_is_an_error(
    body: Any, expected: type[UpstreamError]
) -> None:
    _, error = await outcome(saying(200, body).images(CAT, IMAGE_MODEL, OK))
    assert isinstance(error, expected)


async def test_an_item_is_read_with_what_it_says_of_itself() -> None:
    data = base64.b64encode(jpeg("x")).decode()
    items = [
        {"url": "https://imgen.x.ai/a.png", "mime_type": "image/png", "revised_prompt": "two cats"},
        {"b64_json": data, "mime_type": "image/png"},
        {"url": "https://imgen.x.ai/a.png", "mime_type": "text/html"},
    ]
    events = await events_of(saying(200, {"data": items}).images(CAT, IMAGE_MODEL, OK))
    assert events == [
        ImageReady(0, "https://imgen.x.ai/a.png", "", "image/png", "two cats"),
        ImageReady(1, "", data, "image/jpeg"),
        ImageReady(2, "https://imgen.x.ai/a.png"),
        Finished(),
    ]


ITEM = st.fixed_dictionaries(
    {},
    optional={
        "url": st.sampled_from(["https://imgen.x.ai/a.jpg", "https://evil.example/", "", None]),
        "b64_json": st.sampled_from([base64.b64encode(b"x").decode(), "%", None]),
        "respect_moderation": st.sampled_from([True, False, None]),
    },
)


@PROPERTY
@given(items=st.lists(ITEM, max_size=12), wanted=st.integers(1, 10))
def test_a_picture_is_given_out_if_it_has_content_and_leave(
    items: list[dict[str, Any]], wanted: int
) -> None:
    good = [
        index
        for index, item in enumerate(items[:10])
        if item.get("respect_moderation") is not False
        and (item.get("url") == "https://imgen.x.ai/a.jpg" or item.get("b64_json") == "eA==")
    ]
    allowed = {"https://imgen.x.ai/a.jpg"}
    try:
        events = read_images(
            {"data": items}, wanted, lambda url: str(url) if url in allowed else ""
        )
    except (ContentRefused, ImagesIncomplete):
        assert good == []
        return
    assert [event.index for event in only(ImageReady, events)] == good
    (end,) = only(Finished, events)
    assert end.blocked + end.failed == max(0, wanted - len(good))


async def test_a_video_is_a_job_to_be_asked_after(rig: Rig) -> None:
    rig.state.options.video_polls = 2
    xai = rig.xai()
    job_id = await xai.start_video(WAVES, VIDEO_MODEL, OK)
    assert await xai.poll_video(job_id, OK) == VideoJob("pending", 0)
    assert await xai.poll_video(job_id, OK) == VideoJob("pending", 37)
    job = await xai.poll_video(job_id, OK)
    assert (job.status, job.percent, job.seconds, job.error) == ("done", 100, 6.0, None)
    assert job.extra == {"cost_in_usd_ticks": "8400000000"}
    async with xai.download(job.url, "video") as download:
        assert download.mime_type == "video/mp4"
        assert b"".join([chunk async for chunk in download.chunks])[4:8] == b"ftyp"
    assert rig.rules_broken() == []


async def test_a_video_is_started_with_the_fields_of_the_document(rig: Rig, tmp_path: Path) -> None:
    picture = stored(tmp_path)
    request = VideoRequest("waves", "16:9", 10, "1080p", "spicy", picture, "u-1")
    await rig.xai().start_video(request, VIDEO_MODEL, OK)
    (sent,) = rig.state.requests_to(START)
    data = base64.b64encode(png("cat.png")).decode()
    assert sent.json() == {
        "model": VIDEO_MODEL,
        "prompt": "waves",
        "duration": 10,
        "aspect_ratio": "16:9",
        "resolution": "1080p",
        "user": "u-1",
        "image": {"url": f"data:image/png;base64,{data}"},
    }
    rig.state.reset()
    await rig.xai().start_video(VideoRequest("", "", image=picture), VIDEO_MODEL, OK)
    (sent,) = rig.state.requests_to(START)
    assert set(sent.json()) == {"model", "duration", "resolution", "image"}


@pytest.mark.parametrize(
    "request_",
    [
        VideoRequest("x", seconds=16),
        VideoRequest("x", seconds=0),
        VideoRequest("x", "21:9"),
        VideoRequest("x", resolution="SD"),
    ],
)
async def test_a_video_nobody_makes_is_not_asked_for(rig: Rig, request_: VideoRequest) -> None:
    with pytest.raises(RequestRejected) as caught:
        await rig.xai().start_video(request_, VIDEO_MODEL, OK)
    assert not caught.value.maybe_accepted
    assert list(rig.state.requests) == []


async def test_another_key_does_not_know_the_job(rig: Rig) -> None:
    job_id = await rig.xai().start_video(WAVES, VIDEO_MODEL, OK)
    with pytest.raises(NotFound):
        await rig.xai().poll_video(job_id, account("xai-ok-2"))
    for odd in ("../models", "..", "a/b", "", "x" * 300):
        with pytest.raises(RequestRejected):
            await rig.xai().poll_video(odd, OK)


def failed(code: str, message: str = "x") -> dict[str, Any]:
    return {"status": "failed", "progress": 0, "error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (failed("invalid_argument", "Prompt was refused."), "failed", RequestRejected),
        (failed("failed_precondition"), "failed", RequestRejected),
        (failed("permission_denied"), "failed", NotEntitled),
        (failed("internal_error"), "failed", UpstreamFailed),
        (failed("service_unavailable"), "failed", UpstreamFailed),
        (failed("new_code"), "failed", UpstreamFailed),
        (
            failed("invalid_argument", "Content violates usage guidelines"),
            "failed",
            ContentRefused,
        ),
        ({"status": "failed"}, "failed", UpstreamFailed),
        ({"status": "failed", "error": "odd"}, "failed", UpstreamFailed),
        ({"status": "expired"}, "expired", UpstreamIncomplete),
        (
            {"status": "done", "video": {"url": "", "respect_moderation": False}},
            "failed",
            ContentRefused,
        ),
        (
            {
                "status": "done",
                "video": {"url": "https://vidgen.x.ai/a.mp4", "respect_moderation": False},
            },
            "failed",
            ContentRefused,
        ),
        ({"status": "done"}, "failed", UpstreamIncomplete),
        (
            {"status": "done", "video": {"url": "https://evil.example/a.mp4"}},
            "failed",
            UpstreamIncomplete,
        ),
        ({}, "failed", UpstreamFailed),
    ],
)
async def test_a_job_that_came_to_nothing_was_accepted_all_the_same(
    body: Any, status: str, expected: type[UpstreamError]
) -> None:
    job = await saying(200, body).poll_video("job-1", OK)
    assert (job.status, job.url) == (status, "")
    assert isinstance(job.error, expected)
    assert (job.error.maybe_accepted, job.error.retry) == (True, False)


@pytest.mark.parametrize("body", [b"", b'{"status":"pending"}', b"{}"])
async def test_a_202_is_pending_whatever_it_says(body: bytes) -> None:
    assert (await saying(202, body).poll_video("job-1", OK)).status == "pending"


async def test_a_word_we_do_not_know_is_pending() -> None:
    assert (await saying(200, {"status": "queued"}).poll_video("job-1", OK)).status == "pending"


async def test_an_error_under_http_200_is_the_polls_own() -> None:
    limit = {"code": "resource-exhausted", "error": "Too many requests"}
    with pytest.raises(QuotaExhausted):
        await saying(200, limit).poll_video("job-1", OK)


async def test_a_job_is_followed_to_its_end(rig: Rig) -> None:
    rig.state.options.video_polls = 3
    xai = rig.xai()
    job_id = await xai.start_video(WAVES, VIDEO_MODEL, OK)
    events = await events_of(xai.follow_video(job_id, OK, every=2.0))
    assert [type(event) for event in events] == [
        VideoProgress,
        VideoProgress,
        VideoReady,
        Finished,
    ]
    assert rig.naps == [2.0] * 3


@pytest.mark.parametrize(
    ("behaviour", "expected"), [("failed", UpstreamFailed), ("moderated-one", ContentRefused)]
)
async def test_following_raises_what_ended_the_job(
    rig: Rig, behaviour: str, expected: type[UpstreamError]
) -> None:
    token = account(f"xai-{behaviour}-1")
    job_id = await rig.xai().start_video(WAVES, VIDEO_MODEL, token)
    _, error = await outcome(rig.xai().follow_video(job_id, token))
    assert isinstance(error, expected)
    assert error.maybe_accepted


async def test_a_few_polls_may_fail() -> None:
    answers: list[httpx.Response | httpx.TransportError] = [
        httpx.Response(503),
        httpx.ReadError("x"),
        httpx.Response(202),
        httpx.Response(503),
        httpx.Response(200, json={"status": "done", "video": {"url": "https://vidgen.x.ai/a"}}),
    ]

    def handler(request: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    xai, naps = scripted(handler)
    events = await events_of(xai.follow_video("job-1", OK, every=1.0))
    assert only(VideoReady, events) == [VideoReady("https://vidgen.x.ai/a")]
    assert len(naps) == 4


async def test_polls_that_go_on_failing_end_it() -> None:
    xai, naps = scripted(lambda request: httpx.Response(503))
    _, error = await outcome(xai.follow_video("job-1", OK, every=1.0))
    assert isinstance(error, UpstreamFailed)
    assert error.maybe_accepted
    assert len(naps) == 2


async def test_a_job_is_not_followed_for_ever() -> None:
    xai, naps = scripted(lambda request: httpx.Response(202))
    _, error = await outcome(xai.follow_video("job-1", OK, every=5.0, give_up_after=60.0))
    assert isinstance(error, UpstreamTimeout)
    assert error.maybe_accepted
    assert sum(naps) == 60.0


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.jpg",
        "http://imgen.x.ai/a.jpg",
        "https://imgen.x.ai:444/a.jpg",
        "https://imgen.x.ai@evil.example/a.jpg",
        "https://x.imgen.x.ai/a.jpg",
        "imgen.x.ai/a.jpg",
        "",
    ],
)
async def test_only_known_hosts_are_asked_for_media(url: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    with pytest.raises(PostprocessingFailed):
        async with scripted(refuse)[0].download(url, "image"):
            pass


async def test_media_are_fetched_without_a_credential() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=jpeg("x"), headers={"content-type": "image/jpeg"})

    async with scripted(handler)[0].download("https://imgen.x.ai/a.jpg", "image") as download:
        assert b"".join([chunk async for chunk in download.chunks]) == jpeg("x")
    assert {"authorization", "cookie"}.isdisjoint(seen[0].headers)


async def test_a_cancelled_call_closes_its_connection(rig: Rig) -> None:
    token = account("xai-hang-1")
    waiting = asyncio.ensure_future(anext(rig.xai().images(CAT, IMAGE_MODEL, token)))
    await until(lambda: len(rig.state.requests_to(GENERATIONS)) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await rig.left(GENERATIONS)


JOB = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from(["done", "failed", "pending", ""]),
    lambda inner: st.dictionaries(
        st.sampled_from(["status", "video", "url", "error", "code", "progress", "duration"]), inner
    ),
)


@PROPERTY
@given(reply=st.dictionaries(st.sampled_from(["status", "video", "error", "progress"]), JOB))
def test_no_job_is_read_as_an_exception(reply: dict[str, Any]) -> None:
    job = read_job(200, reply, lambda url: "")
    assert (job.error is None) is (job.status == "pending")
