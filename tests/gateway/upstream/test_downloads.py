"""Finished media as a stream: what is checked, what is tried again, whose cookie goes where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.sandbox.media_bytes import jpeg, mp4
from gateway.sandbox.state import Asset
from gateway.upstream.downloads import MAX_BYTES, WAITS, Download, MediaKind, Origin, open_download
from gateway.upstream.errors import Effect, PostprocessingFailed
from gateway.upstream.http import Http, Timeouts
from gateway.upstream.requests import Account
from gateway.upstream.web.client import WebUpstream
from tests.gateway.upstream.media import Rig, account, patience, running, scripted, until

PATH = "users/u-1/generated/i-1/image.jpg"
PICTURE = jpeg("x")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def keep(
    rig: Rig, token: str, content: bytes = PICTURE, kind: str = "image/jpeg", path: str = PATH
) -> None:
    rig.state.put_asset(path, Asset("a-1", token, content, kind, "image.jpg"))


async def read(download: Download) -> bytes:
    return b"".join([chunk async for chunk in download.chunks])


async def fetch(
    web: WebUpstream, url: str = PATH, kind: MediaKind = "image", owner: Account | None = None
) -> bytes:
    async with web.download(url, owner or account("ok-1"), kind) as download:
        return await read(download)


async def test_it_works(rig: Rig) -> None:
    keep(rig, "ok-1")
    async with rig.web().download(PATH, account("ok-1"), "image") as download:
        assert (download.mime_type, download.size) == ("image/jpeg", len(PICTURE))
        assert await read(download) == PICTURE
    assert rig.rules_broken() == []
    (request,) = rig.state.requests_to(f"/{PATH}")
    assert "Content-Type" not in request.headers
    assert request.headers["Referer"] == f"{rig.url}/"


async def test_a_public_picture_is_fetched_without_a_cookie(rig: Rig) -> None:
    url = f"{rig.url}/imagine-public/images/abc.jpg"
    assert (await fetch(rig.web(), url)).startswith(b"\xff\xd8")
    assert rig.rules_broken() == []


async def test_a_video_of_no_particular_type_is_mp4(rig: Rig) -> None:
    keep(rig, "ok-1", mp4("x"), "application/octet-stream")
    async with rig.web().download(PATH, account("ok-1"), "video") as download:
        assert download.mime_type == "video/mp4"
        assert await read(download) == mp4("x")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/users/u/generated/i/image.jpg",
        "http://assets.grok.com/users/u/generated/i/image.jpg",
        "https://assets.grok.com@evil.example/image.jpg",
        "https://assets.grok.com.evil.example/image.jpg",
        "https://imagine-public.x.ai:444/a.jpg",
        "//evil.example/a.jpg",
        "file:///etc/passwd",
        "users/../../etc/passwd",
        "",
        "/",
    ],
)
async def test_only_our_hosts_are_asked(url: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    web, _ = scripted(handler)
    with pytest.raises(PostprocessingFailed) as caught:
        await fetch(web, url)
    assert caught.value.row == 15


@pytest.mark.parametrize(
    ("url", "cookie"),
    [
        (PATH, True),
        ("https://assets.grok.com/users/u/i/content", True),
        ("https://imagine-public.x.ai/imagine-public/images/a.jpg", False),
        ("https://imgen.x.ai/a.jpg", False),
    ],
)
async def test_the_cookie_goes_to_the_private_host_alone(url: str, cookie: bool) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=PICTURE, headers={"content-type": "image/jpeg"})

    web, _ = scripted(handler, user_agent="test", cf_clearance="secret")
    await fetch(web, url)
    (request,) = seen
    assert ("cookie" in request.headers) is cookie
    assert request.headers["accept-encoding"] == "identity"


async def test_a_redirect_is_not_followed() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(302, headers={"location": "https://evil.example/"})

    web, naps = scripted(handler)
    with pytest.raises(PostprocessingFailed):
        await fetch(web)
    assert seen == [f"https://assets.grok.com/{PATH}"]
    assert naps == []


@dataclass(frozen=True)
class Reply:
    """An answer of a host of assets."""

    status: int = 200
    content: bytes = PICTURE
    headers: tuple[tuple[str, str], ...] = (("content-type", "image/jpeg"),)

    def response(self) -> httpx.Response:
        return httpx.Response(self.status, headers=list(self.headers), stream=Stream(self.content))


def typed(name: str, content: bytes = PICTURE) -> Reply:
    return Reply(content=content, headers=(("content-type", name),))


def with_header(name: str, value: str) -> Reply:
    return Reply(headers=(*Reply().headers, (name, value)))


Answer = Reply | httpx.TransportError
AGAIN: list[Answer] = [
    *(Reply(status) for status in (403, 408, 425, 429, 500, 502, 503, 599)),
    httpx.ConnectError("x"),
    httpx.ReadTimeout("x"),
]
NOT_AGAIN = {
    **{f"status {status}": Reply(status) for status in (204, 206, 302, 400, 401, 404, 410, 416)},
    "html": Reply(content=b"<html>"),
    "json": Reply(content=b' \n{"e":1}'),
    "said to be html": typed("text/html"),
    "said to be a video": typed("video/mp4"),
    "nothing": Reply(content=b""),
    "too large": with_header("content-length", str(MAX_BYTES["image"] + 1)),
    "compressed": with_header("content-encoding", "gzip"),
}


def answering(*answers: Answer) -> tuple[WebUpstream, list[float], list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer.response()

    return *scripted(handler), asked


class Stream(httpx.AsyncByteStream):
    """One read per piece; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("answer", AGAIN, ids=str)
async def test_what_passes_is_tried_three_times(answer: Answer) -> None:
    web, naps, asked = answering(answer)
    with pytest.raises(PostprocessingFailed) as caught:
        await fetch(web)
    error = caught.value
    assert (len(asked), naps) == (3, list(WAITS))
    assert (error.row, error.effect, error.retry, error.status) == (15, Effect.NONE, False, 502)
    assert error.code == "media_postprocessing_failed"
    if isinstance(answer, Reply):
        assert error.upstream_status == answer.status


@pytest.mark.parametrize("answer", AGAIN, ids=str)
async def test_a_later_attempt_may_do(answer: Answer) -> None:
    web, naps, _ = answering(answer, answer, Reply())
    assert await fetch(web) == PICTURE
    assert naps == list(WAITS)


@pytest.mark.parametrize("name", NOT_AGAIN)
async def test_what_will_not_pass_is_tried_once(name: str) -> None:
    web, naps, asked = answering(NOT_AGAIN[name])
    with pytest.raises(PostprocessingFailed):
        await fetch(web)
    assert (len(asked), naps) == (1, [])


async def test_an_unusable_secret_is_not_the_credentials_fault() -> None:
    web, _, asked = answering(Reply())
    with pytest.raises(PostprocessingFailed) as caught:
        await fetch(web, owner=Account("\n"))
    assert caught.value.effect is Effect.NONE
    assert asked == []


def origin(**changes: Any) -> Origin:
    values: dict[str, Any] = {
        "url": "https://assets.grok.com/a",
        "headers": {},
        "kind": "image",
        "timeouts": Timeouts(),
        "max_bytes": 100,
        "total_timeout": 5.0,
    }
    return Origin(**values | changes)


async def pull(stream: Stream, **changes: Any) -> bytes:
    headers = changes.pop("headers", {})
    head = {"content-type": "image/png"} | headers
    http = Http(httpx.MockTransport(lambda _: httpx.Response(200, headers=head, stream=stream)))
    try:
        async with open_download(http, origin(**changes), asyncio.sleep) as download:
            return await read(download)
    finally:
        assert stream.closed


async def test_it_stops_at_the_cap_whatever_was_announced() -> None:
    assert len(await pull(Stream(*[b"x" * 10] * 10))) == 100
    with pytest.raises(PostprocessingFailed):
        await pull(Stream(*[b"x" * 10] * 11))


async def test_fewer_bytes_than_announced_are_an_error() -> None:
    with pytest.raises(PostprocessingFailed):
        await pull(Stream(b"x" * 10), headers={"content-length": "11"})


async def test_a_break_after_the_first_bytes_is_not_tried_again() -> None:
    with pytest.raises(PostprocessingFailed):
        await pull(Stream(b"x" * 10, httpx.ReadError("x")))


class Drip(Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)


async def test_a_trickle_does_not_go_on_for_ever() -> None:
    with pytest.raises(PostprocessingFailed) as caught:
        await pull(Drip(), total_timeout=0.05, max_bytes=10_000)
    assert caught.value.evidence == "too slow"


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    stream = Stream(*[b"x"] * 50)
    http = Http(
        httpx.MockTransport(
            lambda _: httpx.Response(200, headers={"content-type": "image/png"}, stream=stream)
        )
    )
    async with open_download(http, origin(), asyncio.sleep) as download:
        assert await anext(aiter(download.chunks)) == b"x"
        assert not stream.closed
    assert stream.closed


@pytest.mark.parametrize("behaviour", ["denied", "html", "wrongtype", "cut", "reset", "hang"])
async def test_every_misfortune_of_a_real_download(rig: Rig, behaviour: str) -> None:
    token = f"asset-{behaviour}-1"
    keep(rig, token)
    with pytest.raises(PostprocessingFailed) as caught:
        await fetch(rig.web(timeout=patience(behaviour)), owner=account(token))
    assert caught.value.row == 15
    await until(lambda: rig.state.open_streams == 0)


async def test_a_flaky_download_gets_there(rig: Rig) -> None:
    keep(rig, "asset-flaky-1")
    assert await fetch(rig.web(), owner=account("asset-flaky-1")) == PICTURE
    assert rig.naps == list(WAITS)


async def test_a_download_without_end_is_cut_off(rig: Rig) -> None:
    keep(rig, "asset-huge-1")
    received = 0
    with pytest.raises(PostprocessingFailed):
        async with rig.web().download(PATH, account("asset-huge-1"), "image") as download:
            async for chunk in download.chunks:
                received += len(chunk)
    assert MAX_BYTES["image"] - 65536 < received <= MAX_BYTES["image"]
    await until(lambda: rig.state.open_streams == 0)


async def test_a_cancelled_download_closes_its_connection(rig: Rig) -> None:
    keep(rig, "asset-hang-1")
    task = asyncio.create_task(fetch(rig.web(), owner=account("asset-hang-1")))
    await until(lambda: rig.state.open_streams == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: rig.state.open_streams == 0)
