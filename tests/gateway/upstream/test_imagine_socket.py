"""The picture socket against the sandbox, in both dialects, in good days and bad."""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

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
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Finished, ImageProgress, ImageReady
from gateway.upstream.requests import ImageRequest
from tests.gateway.upstream.media import (
    Rig,
    account,
    events_of,
    only,
    outcome,
    patience,
    running,
    until,
)
from tests.gateway.upstream.test_imagine_frames import FINAL, completed, image, start

PATH = "/ws/imagine/listen"
PROTOCOLS = ("current", "legacy")
LIGHTHOUSE = ImageRequest("a lighthouse", 2, "2:3")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def asked(rig: Rig) -> list[dict[str, Any]]:
    return [
        content
        for request in rig.state.requests_to(PATH)
        for frame in request.frames
        for content in frame["item"]["content"]
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_it_works(rig: Rig, protocol: str) -> None:
    web = rig.web(media_protocol=protocol)
    events = await events_of(web.imagine(LIGHTHOUSE, account("ok-1")))
    pictures = only(ImageReady, events)
    assert len(pictures) == 2
    for picture in pictures:
        assert base64.b64decode(picture.data).startswith(b"\xff\xd8")
        assert picture.mime_type == "image/jpeg"
        assert picture.url.startswith(f"{rig.url}/imagine-public/images/")
    previews = only(ImageProgress, events)
    assert {base64.b64decode(item.preview)[:4] for item in previews} == {b"\x89PNG"}
    assert events[-1] == Finished()
    assert rig.rules_broken() == []


async def test_the_current_dialect_resets_first_and_says_how_many(rig: Rig) -> None:
    request = ImageRequest("a lighthouse", 3, nsfw=True, pro=True)
    await events_of(rig.web().imagine(request, account("ok-1")))
    reset, prompt = asked(rig)
    assert reset == {"type": "reset"}
    assert prompt.pop("requestId").startswith("img_")
    assert prompt == {
        "text": "a lighthouse",
        "type": "input_text",
        "properties": {
            "section_count": 0,
            "is_kids_mode": False,
            "enable_nsfw": True,
            "skip_upsampler": False,
            "enable_side_by_side": True,
            "is_initial": False,
            "aspect_ratio": "auto",
            "enable_pro": True,
            "num_generations": 3,
        },
    }


async def test_the_older_dialect_asks_for_a_round(rig: Rig) -> None:
    web = rig.web(media_protocol="legacy")
    events = await events_of(web.imagine(ImageRequest("a lighthouse", 9), account("ok-1")))
    (prompt,) = asked(rig)
    assert len(prompt.pop("requestId")) == 36
    assert prompt == {
        "text": "a lighthouse",
        "type": "input_scroll",
        "properties": {
            "section_count": 0,
            "is_kids_mode": False,
            "enable_nsfw": False,
            "skip_upsampler": False,
            "is_initial": False,
            "aspect_ratio": "2:3",
        },
    }
    assert len(only(ImageReady, events)) == 6
    (request,) = rig.state.requests_to(PATH)
    assert request.headers["Referer"] == f"{rig.url}/imagine"


@pytest.mark.parametrize(
    ("protocol", "ratio"), [("current", "7:1"), ("legacy", "4:3"), ("legacy", "auto")]
)
async def test_a_ratio_the_dialect_does_not_know_is_refused(
    rig: Rig, protocol: str, ratio: str
) -> None:
    web = rig.web(media_protocol=protocol)
    with pytest.raises(RequestRejected):
        await events_of(web.imagine(ImageRequest("x", ratio=ratio), account("ok-1")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_half_a_character_is_refused(rig: Rig, protocol: str) -> None:
    with pytest.raises(RequestRejected):
        request = ImageRequest("\ud800", ratio="2:3")
        await events_of(rig.web(media_protocol=protocol).imagine(request, account("ok-1")))


async def test_a_moderated_slot_is_counted_and_says_nothing(rig: Rig) -> None:
    events = await events_of(rig.web().imagine(LIGHTHOUSE, account("moderated-one-1")))
    assert len(only(ImageReady, events)) == 1
    assert events[-1] == Finished(blocked=1)


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
    ("empty403", SessionRejected, 9),
    ("html", SessionRejected, 9),
    ("forbidden", Forbidden, 11),
    ("error500", UpstreamFailed, 12),
    ("error503-gzip", UpstreamFailed, 12),
    ("inband-error", UpstreamFailed, 12),
    ("miderror", UpstreamFailed, 12),
    ("failed", UpstreamFailed, 12),
    ("reset", NetworkFailed, 13),
    ("hang", UpstreamTimeout, 13),
    ("silent", UpstreamTimeout, 13),
    ("cut", ImagesIncomplete, 14),
    ("cutclean", ImagesIncomplete, 14),
    ("garbageonly", ImagesIncomplete, 14),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("behaviour", "expected", "row"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_every_failure_has_its_row(
    rig: Rig, protocol: str, behaviour: str, expected: type[UpstreamError], row: int
) -> None:
    web = rig.web(media_protocol=protocol, timeout=patience(behaviour))
    events, error = await outcome(web.imagine(LIGHTHOUSE, account(f"{behaviour}-1")))
    assert isinstance(error, expected)
    assert error.row == row
    assert not only(ImageReady, events)


@pytest.mark.parametrize("behaviour", ["garbage", "slow", "late-cut"])
async def test_what_does_no_harm_does_none(rig: Rig, behaviour: str) -> None:
    events = await events_of(rig.web().imagine(LIGHTHOUSE, account(f"{behaviour}-1")))
    assert len(only(ImageReady, events)) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_one_socket_serves_round_after_round(rig: Rig, protocol: str) -> None:
    web = rig.web(media_protocol=protocol)
    seen: list[str] = []
    async with web.imagine_session(account("ok-unlimited-1")) as session:
        for number in range(5):
            request = ImageRequest(f"round {number}", 3, "2:3")
            pictures = only(ImageReady, await events_of(session.round(request)))
            assert len(pictures) == 3
            seen += [picture.url for picture in pictures]
    assert len(set(seen)) == 15
    assert rig.state.counters[PATH] == 1
    assert rig.rules_broken() == []


async def test_a_refused_round_leaves_the_socket_alive(rig: Rig) -> None:
    async with rig.web().imagine_session(account("ok-1")) as session:
        for refused in (
            ImageRequest("SANDBOX:moderated-one", 1, "2:3"),
            ImageRequest("x", ratio="7:1"),
        ):
            with pytest.raises((ContentRefused, RequestRejected)):
                await events_of(session.round(refused))
            assert session.alive
        assert only(ImageReady, await events_of(session.round(ImageRequest("SANDBOX:ok"))))


@pytest.mark.parametrize("behaviour", ["inband-limit", "cut", "silent"])
async def test_a_broken_round_ends_the_session(rig: Rig, behaviour: str) -> None:
    web = rig.web(timeout=patience(behaviour))
    async with web.imagine_session(account("ok-1")) as session:
        with pytest.raises(UpstreamError):
            await events_of(session.round(ImageRequest(f"SANDBOX:{behaviour}")))
        assert not session.alive
        with pytest.raises(UpstreamIncomplete):
            await events_of(session.round(LIGHTHOUSE))
    assert len(asked(rig)) == 2


async def test_a_round_that_was_left_early_ends_the_session(rig: Rig) -> None:
    async with rig.web().imagine_session(account("slow-1")) as session:
        async with aclosing(session.round(LIGHTHOUSE)) as batches:
            await anext(batches)
        assert not session.alive


async def test_a_cancelled_run_closes_the_socket_at_once(rig: Rig) -> None:
    begun = asyncio.Event()

    async def run() -> None:
        async with rig.web().imagine_session(account("slow-1")) as session:
            async for _ in session.round(ImageRequest("a lighthouse", 10)):
                begun.set()

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await rig.left(PATH)
    await until(lambda: rig.state.open_streams == 0)


@pytest.mark.parametrize("behaviour", ["hang", "silent"])
async def test_a_stream_closed_while_upstream_is_silent_goes_at_once(
    rig: Rig, behaviour: str
) -> None:
    batches = rig.web().imagine(LIGHTHOUSE, account(f"{behaviour}-1"))
    waiting = asyncio.ensure_future(anext(batches))
    await until(lambda: bool(rig.state.requests_to(PATH)))
    if behaviour == "silent":
        await until(lambda: len(asked(rig)) == 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await rig.left(PATH)


Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def playing(script: Script) -> AsyncIterator[Rig]:
    """A server of the test's own that reads the prompt and plays a script."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.recv()
        await script(connection)
        await connection.wait_closed()

    async with serve(handler, "127.0.0.1", 0, ping_interval=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        async with running() as rig:
            rig.url = f"http://127.0.0.1:{port}"
            yield rig


async def test_pictures_before_an_early_close_are_given_out(rig: Rig) -> None:
    async def script(connection: ServerConnection) -> None:
        for frame in (image(0), completed(0), image(1)):
            await connection.send(json.dumps(frame))
        await connection.close()

    async with playing(script) as played:
        events, error = await outcome(played.web().imagine(LIGHTHOUSE, account("ok-1")))
    assert len(only(ImageReady, events)) == 1
    assert isinstance(error, ImagesIncomplete)
    assert (error.code, error.row) == ("image_generation_incomplete", 14)


async def test_what_an_earlier_round_left_over_is_not_the_next_ones(rig: Rig) -> None:
    rounds = (
        (start(0), start(1), image(0), completed(0)),
        (image(1), completed(1), image(2), completed(2)),
    )

    async def script(connection: ServerConnection) -> None:
        for frames in rounds:
            for frame in frames:
                await connection.send(json.dumps(frame))
            await connection.recv()
            await connection.recv()

    async with (
        playing(script) as played,
        played.web().imagine_session(account("ok-1")) as session,
    ):
        indexes = []
        for _ in rounds:
            events = await events_of(session.round(ImageRequest("x", 1)))
            indexes += [event.index for event in only(ImageReady, events)]
    assert indexes == [0, 2]


async def test_bytes_that_never_come_are_waited_for_a_little(rig: Rig) -> None:
    async def script(connection: ServerConnection) -> None:
        for frame in (image(0), completed(0), completed(1)):
            await connection.send(json.dumps(frame))

    async with playing(script) as played:
        web = played.web(picture_grace=0.05)
        async with web.imagine_session(account("ok-1")) as session:
            events = await events_of(session.round(LIGHTHOUSE))
            assert session.alive
    assert events[-1] == Finished(failed=1)


async def test_pictures_begun_and_never_finished_blame_nobody(rig: Rig) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(json.dumps(image(0, percent=50)))

    async with playing(script) as played:
        web = played.web(timeout=0.1)
        events, error = await outcome(web.imagine(LIGHTHOUSE, account("ok-1")))
    assert len(events) == 1
    assert isinstance(error, ImagesIncomplete)
    assert not error.retry


async def test_a_message_cut_at_every_byte_is_the_same_message(rig: Rig) -> None:
    places = range(1, len(json.dumps(image(0, url="", id="n-000"))))

    async def script(connection: ServerConnection) -> None:
        for place in places:
            whole = json.dumps(image(0, url="", id=f"n-{place:03}"))
            await connection.send([whole[:place], whole[place:]])
            await connection.send(json.dumps(completed(0, image_id=f"n-{place:03}")))
            await connection.recv()
            await connection.recv()

    async with (
        playing(script) as played,
        played.web().imagine_session(account("ok-1")) as session,
    ):
        for _ in places:
            events = await events_of(session.round(ImageRequest("x", 1)))
            assert [event.data for event in only(ImageReady, events)] == [FINAL]


async def test_a_frame_above_the_cap_ends_the_round(rig: Rig) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send("x" * (65 * 1024 * 1024))

    async with playing(script) as played:
        events, error = await outcome(played.web().imagine(LIGHTHOUSE, account("ok-1")))
    assert events == []
    assert isinstance(error, ImagesIncomplete)


async def test_memory_stays_flat_over_a_thousand_pictures(rig: Rig) -> None:
    blob = base64.b64encode(b"\xff\xd8\xff" + bytes(30_000)).decode()
    numbers = itertools.count()

    async def script(connection: ServerConnection) -> None:
        while True:
            for number in itertools.islice(numbers, 10):
                frame = image(number % 64, blob) | {"id": f"n-{number}"}
                done = completed(number % 64) | {"image_id": f"n-{number}"}
                await connection.send(json.dumps(frame))
                await connection.send(json.dumps(done))
            await connection.recv()
            await connection.recv()

    request, sizes = ImageRequest("x", 10), []
    async with (
        playing(script) as played,
        played.web().imagine_session(account("ok-1")) as session,
    ):
        tracemalloc.start()
        for number in range(100):
            count = 0
            async for batch in session.round(request):
                count += len(only(ImageReady, batch))
            assert count == 10
            if number in (40, 99):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 10 * len(blob)
