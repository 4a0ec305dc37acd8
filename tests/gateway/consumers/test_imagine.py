"""Conversations on the picture socket: every command, every event, every quirk."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from gateway.exchange import End
from gateway.relay.hosting import MediaSource
from gateway.sandbox.serve import SandboxThread
from gateway.upstream.errors import PostprocessingFailed
from gateway.upstream.events import ImageReady
from tests.gateway.consumers.live import (
    Client,
    LiveSockets,
    at_rest,
    is_error,
    is_image,
    is_pong,
    is_running,
    is_stopped,
    wait_for,
)
from tests.gateway.consumers.upstream import PictureServer
from tests.gateway.live import KEY, record


def test_a_run_tells_its_beginning_its_pictures_and_its_end(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        client.say("start", prompt="  a lighthouse ", aspect_ratio="1280x720")
        begun = client.hear()
        pictures = [client.hear() for _ in range(8)]
        client.say("stop")
        ended = client.hear_until(is_stopped)[-1]

    run_id = begun["run_id"]
    assert begun == {
        "type": "status",
        "status": "running",
        "prompt": "a lighthouse",
        "aspect_ratio": "16:9",
        "run_id": run_id,
    }
    assert ended == {"type": "status", "status": "stopped", "run_id": run_id}
    assert [picture["sequence"] for picture in pictures] == list(range(1, 9))
    for picture in pictures:
        assert picture.keys() == {
            *("type", "b64_json", "sequence", "created_at", "elapsed_ms", "aspect_ratio"),
            "run_id",
        }
        assert base64.b64decode(picture["b64_json"]).startswith(b"\xff\xd8")
        assert abs(picture["created_at"] - time.time() * 1000) < 60_000
        assert 0 <= picture["elapsed_ms"] < 10_000
        assert (picture["aspect_ratio"], picture["run_id"]) == ("16:9", run_id)


def test_a_ping_gets_a_pong_idle_or_not(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox, ("silent-1",)) as gateway, gateway.connect() as client:
        client.say("ping")
        assert client.hear() == {"type": "pong"}
        client.start()
        client.say("ping")
        assert client.hear() == {"type": "pong"}


def test_a_stop_ends_the_run_once_and_says_nothing_when_idle(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox, ("slow-1",)) as gateway, gateway.connect() as client:
        client.say("stop")
        client.say("ping")
        assert client.hear() == {"type": "pong"}
        run_id = client.start()
        client.say("stop")
        client.say("stop")
        client.say("ping")
        heard = client.hear_until(lambda event: event["type"] == "pong")
        assert [event for event in heard if event["type"] == "status"] == [
            {"type": "status", "status": "stopped", "run_id": run_id}
        ]
        client.start()


def test_a_start_ends_the_run_before_it(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        first = client.start("one")
        client.hear_until(lambda event: is_image(event) and event["sequence"] == 7)
        client.say("start", prompt="two")
        before = client.hear_until(is_stopped)
        begun = client.hear()
        after = [client.hear() for _ in range(3)]

    assert {event["run_id"] for event in before} == {first}
    assert (begun["status"], begun["prompt"]) == ("running", "two")
    assert begun["run_id"] != first
    assert [(event["run_id"], event["sequence"]) for event in after] == [
        (begun["run_id"], number) for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("command", ["stop", "start"])
def test_a_run_that_waits_after_an_error_ends_like_any_other(
    sandbox: SandboxThread, command: str
) -> None:
    with (
        LiveSockets(sandbox, ("error500-1",), hold=True) as gateway,
        gateway.connect() as client,
    ):
        run_id = client.start()
        assert client.hear()["code"] == "internal_error"
        assert wait_for(lambda: gateway.naps, 2)
        client.say(command, prompt="another")
        assert client.hear() == {"type": "status", "status": "stopped", "run_id": run_id}
        if command == "start":
            assert is_running(client.hear())


@pytest.mark.parametrize("prompt", [{}, {"prompt": " \n"}, {"prompt": 7}, {"prompt": None}])
def test_a_start_without_a_prompt_leaves_a_run_alone(
    sandbox: SandboxThread, prompt: dict[str, Any]
) -> None:
    with LiveSockets(sandbox, ("silent-1",)) as gateway, gateway.connect() as client:
        client.start()
        client.say("start", **prompt)
        error = client.hear()
        client.say("ping")
        assert client.hear() == {"type": "pong"}
        assert gateway.runtime.pool.open_leases == 1
    assert error.keys() == {"type", "message", "code"}
    assert (error["type"], error["code"]) == ("error", "empty_prompt")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", "invalid_payload"),
        ("start", "invalid_payload"),
        ('{"type":"ping"', "invalid_payload"),
        ("[1]", "invalid_payload"),
        ('"ping"', "invalid_payload"),
        ("1", "invalid_payload"),
        ("null", "invalid_payload"),
        ('{"type":"start","prompt":"\\ud800"}', "invalid_payload"),
        ("[" * 60_000, "invalid_payload"),
        (b'{"type":"ping"}', "invalid_payload"),
        (b"", "invalid_payload"),
        (b"\xff\x00", "invalid_payload"),
        ("{}", "unknown_command"),
        ('{"type":"draw"}', "unknown_command"),
        ('{"type":["ping"]}', "unknown_command"),
        ('{"Type":"ping"}', "unknown_command"),
    ],
)
def test_what_is_no_command_is_said_to_be_none_and_the_socket_stays(
    sandbox: SandboxThread, frame: str | bytes, code: str
) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        client.socket.send(frame)
        error = client.hear()
        assert (error["type"], error["code"]) == ("error", code)
        client.say("ping")
        assert client.hear() == {"type": "pong"}


@pytest.mark.parametrize("frame", ["x" * (64 * 1024 + 1), "é" * 40_000, b"x" * (64 * 1024 + 1)])
def test_an_oversized_frame_ends_the_connection_and_its_run(
    sandbox: SandboxThread, frame: str | bytes
) -> None:
    with LiveSockets(sandbox, ("silent-1",)) as gateway, gateway.connect() as client:
        client.start()
        client.socket.send(frame)
        assert closing_code(client) == 1009
        assert wait_for(lambda: at_rest(gateway), 1)


def test_the_largest_frame_is_taken(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        text = json.dumps({"type": "ping", "more": "x" * 65_536})
        client.socket.send(text[: 65_536 - 2] + '"}')
        assert client.hear() == {"type": "pong"}


@pytest.mark.parametrize(
    ("given", "ratio"),
    [
        ({}, "2:3"),
        ({"aspect_ratio": "1:1"}, "1:1"),
        ({"aspect_ratio": "1792x1024"}, "3:2"),
        ({"aspect_ratio": "576x1024"}, "9:16"),
        ({"aspect_ratio": "17:3"}, "2:3"),
        ({"aspect_ratio": 1}, "2:3"),
        ({"aspect_ratio": None}, "2:3"),
    ],
)
def test_the_ratio_goes_through_the_table(
    sandbox: SandboxThread, given: dict[str, Any], ratio: str
) -> None:
    prompt = f"a lighthouse {time.monotonic()}"
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        client.say("start", prompt=prompt, **given)
        assert client.hear()["aspect_ratio"] == ratio
        assert client.hear()["aspect_ratio"] == ratio
    assert {asked["properties"]["aspect_ratio"] for asked in asked_of(sandbox, prompt)} == {ratio}


@pytest.mark.parametrize(
    ("credential", "code", "pauses"),
    [
        ("limited-1", "rate_limit_exceeded", [(2, 2.4)] * 4),
        ("expired-1", "internal_error", [(1.5, 1.8), (2, 2.4), (2, 2.4)]),
        ("cutclean-1", "empty_image", [(0, 0), (1.5, 1.8), (3, 3.6), (6, 7.2), (12, 14.4)]),
        ("challenge-1", "internal_error", [(1.5, 1.8), (3, 3.6), (6, 7.2), (12, 14.4), (24, 28.8),
                                           (30, 36), (30, 36)]),
        ("inband-error-1", "internal_error", [(1.5, 1.8), (2, 2.4)]),
    ],
)  # fmt: skip
def test_a_round_that_fails_is_told_and_tried_again_ever_more_slowly(
    sandbox: SandboxThread, credential: str, code: str, pauses: list[tuple[float, float]]
) -> None:
    with LiveSockets(sandbox, (credential,)) as gateway, gateway.connect() as client:
        run_id = client.start()
        errors = [client.hear() for _ in range(len(pauses) + 1)]
        naps = gateway.naps[: len(pauses)]
    for error in errors:
        assert error.keys() == {"type", "message", "code", "run_id"}
        assert (error["type"], error["run_id"]) == ("error", run_id)
    assert errors[0]["code"] == code
    for nap, (least, most) in zip(naps, pauses, strict=True):
        assert least <= nap <= most


def test_a_run_goes_on_once_a_credential_is_there(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox, ()) as gateway, gateway.connect() as client:
        client.start()
        errors = [client.hear() for _ in range(5)]
        assert {error["code"] for error in errors} == {"rate_limit_exceeded"}
        assert len(gateway.rounds) == 1, "a refusal that repeats itself is recorded once"
        gateway.add("ok-9")
        assert client.hear_until(is_image)[-1]["sequence"] == 1


@pytest.mark.parametrize(
    ("credential", "code"),
    [("moderated-1", "content_policy_violation"), ("badreq-1", "invalid_request")],
)
def test_what_upstream_refuses_to_draw_is_asked_for_once(
    sandbox: SandboxThread, credential: str, code: str
) -> None:
    prompt = f"a lighthouse {time.monotonic()}"
    with LiveSockets(sandbox, (credential, "ok-2")) as gateway, gateway.connect() as client:
        run_id = client.start(prompt)
        error, end = client.hear(), client.hear()
        assert (error["code"], error["run_id"]) == (code, run_id)
        assert end == {"type": "status", "status": "stopped", "run_id": run_id}
        client.say("stop")
        client.say("ping")
        assert client.hear() == {"type": "pong"}
        assert gateway.naps == []
        assert client.start() != run_id
    assert len(asked_of(sandbox, prompt)) == 1


def test_a_picture_that_is_withheld_takes_none_of_the_others_away(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox, ("moderated-one-1",)) as gateway, gateway.connect() as client:
        client.start()
        assert [client.hear()["sequence"] for _ in range(9)] == list(range(1, 10))


def test_a_key_without_the_model_is_told(sandbox: SandboxThread) -> None:
    keys = {KEY: record(allowed_models=frozenset({"grok-4"}))}
    with LiveSockets(sandbox, keys=keys) as gateway, gateway.connect() as client:
        run_id = client.start()
        error = client.hear()
        assert (error["code"], error["run_id"]) == ("model_not_supported", run_id)
        assert is_stopped(client.hear())


def test_a_bug_ends_the_run_and_not_the_connection(
    sandbox: SandboxThread, caplog: pytest.LogCaptureFixture
) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:

        def broken(*args: object) -> None:
            raise KeyError("a bug")

        gateway.inside(lambda: setattr(gateway.runtime.pool, "lease", broken))
        run_id = client.start()
        error = client.hear()
        assert (error["code"], error["run_id"]) == ("internal_error", run_id)
        assert "bug" not in error["message"]
        assert is_stopped(client.hear())
        client.say("ping")
        assert client.hear() == {"type": "pong"}
        assert (gateway.rounds[-1].status, gateway.rounds[-1].end) == (500, End.REFUSED)
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "counts"), [("current", [4, 2, 4, 2]), ("legacy", [None, None])]
)
def test_a_round_of_six_takes_as_few_calls_as_upstream_allows(
    sandbox: SandboxThread, protocol: str, counts: list[int | None]
) -> None:
    prompt = f"a lighthouse {time.monotonic()}"
    settings = {"grok.media_protocol": protocol}
    with LiveSockets(sandbox, settings=settings) as gateway, gateway.connect() as client:
        client.start(prompt)
        client.hear_until(lambda event: event.get("sequence") == 12)
    asked = [one["properties"].get("num_generations") for one in asked_of(sandbox, prompt)]
    assert asked[: len(counts)] == counts


@pytest.mark.parametrize("enabled", [False, True])
def test_the_operator_decides_about_nsfw(sandbox: SandboxThread, enabled: bool) -> None:
    prompt = f"a lighthouse {time.monotonic()}"
    settings = {"grok.nsfw_enabled": enabled}
    with LiveSockets(sandbox, settings=settings) as gateway, gateway.connect() as client:
        client.start(prompt)
        client.hear_until(is_image)
    assert {one["properties"]["enable_nsfw"] for one in asked_of(sandbox, prompt)} == {enabled}


def test_api_keys_draw_where_the_operator_prefers_them(sandbox: SandboxThread) -> None:
    settings = {"pool.policy": "api_only"}
    names = ("ok-1", "xai-ok-0000000000000001")
    with LiveSockets(sandbox, names, settings=settings) as gateway, gateway.connect() as client:
        client.start()
        pictures = [client.hear() for _ in range(7)]
        assert [picture["sequence"] for picture in pictures] == list(range(1, 8))
        assert base64.b64decode(pictures[0]["b64_json"])
        assert gateway.rounds[0].attempts[0].upstream == "api"


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveSockets]:
    with LiveSockets(sandbox) as running:
        yield running


COMMANDS = {
    "start": '{"type":"start","prompt":"a lighthouse"}',
    "blank": '{"type":"start","prompt":""}',
    "stop": '{"type":"stop"}',
    "ping": '{"type":"ping"}',
    "noise": "noise",
}


@given(commands=st.lists(st.sampled_from(sorted(COMMANDS)), max_size=12), paced=st.booleans())
@settings(max_examples=25, deadline=None)
def test_whatever_is_said_every_run_has_one_beginning_and_one_end(
    gateway: LiveSockets, commands: list[str], paced: bool
) -> None:
    with gateway.connect() as client:
        heard: list[dict[str, Any]] = []
        for command in commands:
            client.socket.send(COMMANDS[command])
            if paced:
                client.say("ping")
                heard += client.hear_until(is_pong)
        client.say("stop")
        client.socket.send("the end")
        while noises(heard) <= commands.count("noise"):
            heard.append(client.hear())
    current = None
    for event in heard:
        if is_running(event):
            assert current is None
            current = event["run_id"]
        elif is_stopped(event):
            assert event["run_id"] == current
            current = None
        elif "run_id" in event:
            assert event["run_id"] == current
    assert current is None
    assert sum(map(is_running, heard)) == commands.count("start")
    assert wait_for(lambda: at_rest(gateway), 1)


def noises(heard: list[dict[str, Any]]) -> int:
    return sum(event.get("code") == "invalid_payload" for event in heard)


class Shelf:
    """A keeper of pictures; with ``stuck`` it never comes to an end."""

    def __init__(self, *, stuck: bool = False, full: bool = False) -> None:
        self.kept: list[tuple[str, str]] = []
        self._stuck = stuck
        self._full = full

    async def encoded(self, ready: ImageReady, source: MediaSource) -> str:
        if self._full:
            raise PostprocessingFailed(row=15)
        return f"bytes-of-{ready.url.rpartition('/')[2]}"

    async def keep_image(self, ready: ImageReady, source: MediaSource) -> None:
        self.kept.append((source.upstream, ready.data))
        if self._full:
            raise PostprocessingFailed(row=15)
        if self._stuck:
            await asyncio.sleep(1000)


def test_pictures_are_kept_but_nobody_waits_for_that(sandbox: SandboxThread) -> None:
    shelf = Shelf(stuck=True)
    with LiveSockets(sandbox, keeper=shelf) as gateway, gateway.connect() as client:
        client.start()
        picture = client.hear()
        assert wait_for(lambda: shelf.kept, 2)
        assert shelf.kept == [("web", picture["b64_json"])]
        client.say("stop")
        client.hear_until(is_stopped)


@pytest.mark.parametrize("keep", [True, False])
def test_the_operator_decides_whether_pictures_are_kept(sandbox: SandboxThread, keep: bool) -> None:
    shelf = Shelf(full=True)
    settings = {"cache.keep_base64_cache": keep}
    with (
        LiveSockets(sandbox, keeper=shelf, settings=settings) as gateway,
        gateway.connect() as client,
    ):
        client.start()
        pictures = [client.hear() for _ in range(13)]
        assert [one["sequence"] for one in pictures] == list(range(1, 14))
    kept = [("web", one["b64_json"]) for one in pictures[:6]]
    assert sorted(shelf.kept[:6]) == (sorted(kept) if keep else [])


@pytest.mark.parametrize("there", [True, False])
def test_a_picture_that_comes_as_an_address_is_fetched(sandbox: SandboxThread, there: bool) -> None:
    address = "https://imagine-public.x.ai/imagine-public/images/a-1.jpg"
    with PictureServer(url=address) as upstream:
        settings = {"grok.base_url": upstream.url}
        with (
            LiveSockets(sandbox, keeper=Shelf(full=not there), settings=settings) as gateway,
            gateway.connect() as client,
        ):
            client.start()
            heard = client.hear()
            if there:
                assert heard["b64_json"] == "bytes-of-a-1.jpg"
            else:
                assert heard["code"] == "empty_image"
                client.hear_until(is_error)
                assert wait_for(lambda: len(gateway.naps) >= 2, 5)
                assert gateway.naps[1] >= 1.5


def closing_code(client: Client) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.hear()
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def asked_of(sandbox: SandboxThread, prompt: str) -> list[dict[str, Any]]:
    """What the picture socket was asked about that prompt."""
    contents = [
        content
        for request in sandbox.state.requests_to("/ws/imagine/listen")
        for frame in request.frames
        for content in frame["item"]["content"]
    ]
    return [content for content in contents if content.get("text") == prompt]
