"""How sockets end, how many there may be, and what a slow or a gone client costs."""

from __future__ import annotations

import gc
import json
import statistics
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from gateway.exchange import End
from gateway.relay.imagine_round import Order
from gateway.relay.imagine_run import ImagineRun, Picture
from gateway.sandbox.serve import SandboxThread
from pool.keys import KeyLimits
from tests.gateway.consumers.live import (
    Client,
    LiveSockets,
    at_rest,
    is_error,
    is_image,
    is_stopped,
    wait_for,
)
from tests.gateway.consumers.upstream import PictureServer
from tests.gateway.live import KEY, record

WITHIN = 1.0
"""Seconds in which upstream has to see that a client is gone."""
PHASES = {
    "idle": ("ok-1", False),
    "dialling": ("hang-1", True),
    "silent": ("silent-1", True),
    "drawing": ("slow-1", True),
    "waiting": ("error500-1", False),
}


@pytest.fixture(autouse=True)
def undisturbed(sandbox: SandboxThread) -> Iterator[None]:
    assert wait_for(lambda: sandbox.state.open_streams == 0, 2)
    yield


def reach(phase: str, gateway: LiveSockets, client: Client) -> None:
    """Bring a run to that phase."""
    if phase == "idle":
        return
    client.start()
    if phase == "waiting":
        assert wait_for(lambda: gateway.naps, 5)
    elif phase == "drawing":
        client.hear_until(is_image)
    else:
        assert wait_for(lambda: gateway.sandbox.state.open_streams == 1, 5)


@pytest.mark.parametrize("farewell", ["close", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_when_the_client_goes_upstream_is_closed_and_the_lease_is_back(
    sandbox: SandboxThread, phase: str, farewell: str
) -> None:
    credential, busy = PHASES[phase]
    settings = {"grok.timeout": 60}
    with LiveSockets(sandbox, (credential,), settings=settings, hold=True) as gateway:
        with gateway.connect() as client:
            reach(phase, gateway, client)
            assert gateway.runtime.pool.open_leases == int(busy)
            if farewell == "reset":
                client.leave()
            else:
                client.socket.close()
            gone = time.monotonic()
            assert wait_for(lambda: at_rest(gateway) and gateway.sockets.open == 0, WITHIN)
            assert time.monotonic() - gone < WITHIN
        assert all(found.end is not End.COMPLETED for found in gateway.rounds[-1:])
        assert gateway.used() == (0, 0)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "idle"])
def test_a_stop_closes_upstream_in_every_phase(sandbox: SandboxThread, phase: str) -> None:
    settings = {"grok.timeout": 60}
    with (
        LiveSockets(sandbox, (PHASES[phase][0],), settings=settings, hold=True) as gateway,
        gateway.connect() as client,
    ):
        reach(phase, gateway, client)
        client.say("stop")
        assert is_stopped(client.hear_until(is_stopped)[-1])
        assert wait_for(lambda: at_rest(gateway), WITHIN)


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_that_stops_says_so_and_closes(sandbox: SandboxThread, phase: str) -> None:
    credential, busy = PHASES[phase]
    settings = {"grok.timeout": 60}
    with (
        LiveSockets(sandbox, (credential,), settings=settings, hold=True) as gateway,
        gateway.connect() as client,
    ):
        reach(phase, gateway, client)
        asked = time.monotonic()
        gateway.inside(gateway.sockets.drain)
        heard, code = rest_of(client)
        assert time.monotonic() - asked < 1
        assert code == 1001
        assert [event for event in heard if event["type"] == "status"] == (
            [] if phase == "idle" else [heard[-1]]
        )
        assert phase == "idle" or is_stopped(heard[-1])
        assert wait_for(lambda: at_rest(gateway) and gateway.sockets.open == 0, WITHIN)
        if busy:
            assert (gateway.rounds[-1].end, gateway.rounds[-1].status) == (End.STOPPED, 503)
        assert refusal_of(gateway) == 503


def test_fifty_runs_at_the_same_time(sandbox: SandboxThread) -> None:
    names = tuple(f"ok-{number}" for number in range(20))
    with LiveSockets(sandbox, names, sockets={"per_visitor": 100}) as gateway:
        results: list[list[int]] = []

        def run() -> None:
            with gateway.connect() as client:
                client.start()
                pictures = client.hear_until(lambda event: event.get("sequence") == 12)
                client.say("stop")
                client.hear_until(is_stopped)
                results.append([one["sequence"] for one in pictures if is_image(one)])

        threads = [threading.Thread(target=run) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [list(range(1, 13))] * 50
        assert wait_for(lambda: at_rest(gateway) and gateway.sockets.open == 0, 2)


def test_a_key_and_the_worker_have_only_so_many_sockets(sandbox: SandboxThread) -> None:
    keys = {KEY: record(), "sk-other": record(id=2), "sk-third": record(id=3)}
    limits = {"per_visitor": 2, "in_all": 3}
    with (
        LiveSockets(sandbox, keys=keys, sockets=limits) as gateway,
        gateway.connect(),
        gateway.connect("?api_key=sk-other"),
    ):
        with gateway.connect():
            assert refusal_of(gateway) == 503
            assert gateway.sockets.turned_away == 1
        assert wait_for(lambda: gateway.sockets.open == 2, 1)
        with gateway.connect("?api_key=sk-other"):
            assert wait_for(lambda: gateway.sockets.open == 3, 1)
        assert wait_for(lambda: gateway.sockets.open == 2, 1)
        with gateway.connect():
            pass
        assert wait_for(lambda: gateway.sockets.open == 2, 1)
    with LiveSockets(sandbox, keys=keys, sockets={"per_visitor": 1}) as gateway, gateway.connect():
        assert refusal_of(gateway) == 429
        with gateway.connect("?api_key=sk-other") as other:
            other.say("ping")
            assert other.hear() == {"type": "pong"}


def test_a_key_switched_off_meanwhile_ends_the_connection(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox, ("silent-1",), sockets={"check_every": 1.0}) as gateway:
        with gateway.connect() as client:
            run_id = client.start()
            gateway.inside(lambda: gateway.runtime.keys.install({}))
            off = time.monotonic()
            heard, code = rest_of(client)
            assert time.monotonic() - off < 2
        assert code == 1008
        assert [event["type"] for event in heard] == ["error", "status"]
        assert heard[0]["code"] == "invalid_api_key"
        assert heard[1] == {"type": "status", "status": "stopped", "run_id": run_id}
        assert wait_for(lambda: at_rest(gateway), WITHIN)


def test_pictures_are_counted_exactly_to_the_last_of_the_day(sandbox: SandboxThread) -> None:
    keys = {KEY: record(limits=KeyLimits(image=9))}
    with LiveSockets(sandbox, keys=keys) as gateway, gateway.connect() as client:
        client.start()
        heard = client.hear_until(is_stopped)
        assert [event["sequence"] for event in heard if is_image(event)] == list(range(1, 10))
        assert heard[-2]["code"] == "image_daily_quota_exceeded"
        assert heard[-2]["run_id"] == heard[-1]["run_id"]
        assert gateway.used() == (9, 0)
        last = gateway.rounds[-1]
        assert (last.end, last.status) == (End.REFUSED, 429)
        client.start()
        assert client.hear()["code"] == "image_daily_quota_exceeded"
        assert is_stopped(client.hear())


def test_runs_of_one_key_share_its_day(sandbox: SandboxThread) -> None:
    keys = {KEY: record(limits=KeyLimits(image=40))}
    names = ("ok-1", "ok-2", "ok-3")
    with LiveSockets(sandbox, names, keys=keys) as gateway:
        counts: list[int] = []

        def run() -> None:
            with gateway.connect() as client:
                client.start()
                heard = client.hear_until(is_stopped)
                counts.append(sum(map(is_image, heard)))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sum(counts) <= 40
        assert gateway.used() == (sum(counts), 0)


def test_a_stopped_round_costs_what_was_delivered(sandbox: SandboxThread) -> None:
    keys = {KEY: record(limits=KeyLimits(image=100))}
    with LiveSockets(sandbox, ("slow-1",), keys=keys) as gateway, gateway.connect() as client:
        client.start()
        client.hear_until(is_image)
        client.say("stop")
        late = sum(map(is_image, client.hear_until(is_stopped)))
        assert wait_for(lambda: gateway.used()[1] == 0, 1)
        assert gateway.used() == (1 + late, 0)


def test_a_picture_that_could_not_be_sent_is_not_charged(sandbox: SandboxThread) -> None:
    """Whoever asks for the next one has sent the one before."""
    key = record(limits=KeyLimits(image=100))
    with LiveSockets(sandbox, keys={KEY: key}) as gateway:

        async def send_two_of_three() -> None:
            run = ImagineRun(gateway.relay, Order("a lighthouse", "2:3", lambda: key))
            async with aclosing(run.happenings()) as happenings:
                for _ in range(3):
                    assert isinstance(await anext(happenings), Picture)

        gateway.inside_async(send_two_of_three)
        assert gateway.used() == (2, 0)
        assert gateway.runtime.pool.open_leases == 0


@pytest.mark.parametrize("credential", ["error500-1", "moderated-1", "cutclean-1"])
def test_a_round_without_pictures_costs_nothing(sandbox: SandboxThread, credential: str) -> None:
    keys = {KEY: record(limits=KeyLimits(image=100))}
    with LiveSockets(sandbox, (credential,), keys=keys) as gateway, gateway.connect() as client:
        client.start()
        client.hear_until(is_error)
        client.say("stop")
        client.hear_until(is_stopped)
        assert gateway.used() == (0, 0)


def test_requests_per_minute_hold_a_run_up(sandbox: SandboxThread) -> None:
    keys = {KEY: record(limits=KeyLimits(rpm=2))}
    with LiveSockets(sandbox, keys=keys, hold=True) as gateway, gateway.connect() as client:
        client.start()
        heard = client.hear_until(is_error)
        assert sum(map(is_image, heard)) == 12
        assert heard[-1]["code"] == "requests_per_minute_exceeded"
        assert wait_for(lambda: gateway.naps, 1)
        assert 2 <= gateway.naps[0] <= 72


def test_every_round_is_recorded(sandbox: SandboxThread) -> None:
    with LiveSockets(sandbox) as gateway, gateway.connect() as client:
        client.start()
        client.hear_until(lambda event: event.get("sequence") == 7)
        client.say("stop")
        client.hear_until(is_stopped)
        first = gateway.rounds[0]
        assert (first.operation, first.model, first.end) == (
            *("imagine", "grok-imagine-1.0"),
            End.COMPLETED,
        )
        assert (first.key_id, first.status, first.streaming) == (1, 200, True)
        assert [attempt.credential_id for attempt in first.attempts] == [1]
        assert first.bytes_out > 0
        assert first.first_event is not None
        assert gateway.rounds[-1].end is End.CLIENT_GONE
        assert wait_for(lambda: gateway.inside(lambda: gateway.runtime.pool.open_leases) == 0, 1)


def test_a_thousand_pictures_leave_nothing_behind(sandbox: SandboxThread) -> None:
    with (
        PictureServer(size=30_000) as upstream,
        LiveSockets(sandbox, settings={"grok.base_url": upstream.url}) as gateway,
        gateway.connect() as client,
    ):
        client.start()
        hear_pictures(client, 100)
        tracemalloc.start()
        try:
            hear_pictures(client, 100)
            gc.collect()
            early = tracemalloc.get_traced_memory()[0]
            hear_pictures(client, 900)
            gc.collect()
            late, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert late - early < 3_000_000
    assert peak < 12_000_000


def hear_pictures(client: Client, count: int) -> None:
    for _ in range(count):
        text = client.socket.recv(10)
        assert text[:15] == '{"type":"image"'


def test_a_picture_passes_through_within_twenty_milliseconds(sandbox: SandboxThread) -> None:
    """At the median, and beside what the way costs without the gateway."""
    with (
        PictureServer(size=400_000, pause=0.03) as upstream,
        LiveSockets(sandbox, settings={"grok.base_url": upstream.url}) as gateway,
    ):
        added = min(delay_through(gateway, upstream) - direct_delay(upstream) for _ in range(5))
    assert added <= 0.020


def delay_through(gateway: LiveSockets, upstream: PictureServer) -> float:
    del upstream.sent_at[:]
    with gateway.connect() as client:
        client.start()
        heard_at = [heard for _ in range(20) if (heard := time_of(client.socket))]
        client.say("stop")
        client.hear_until(is_stopped)
    return median_delay(heard_at, upstream)


def direct_delay(upstream: PictureServer) -> float:
    del upstream.sent_at[:]
    url = upstream.url.replace("http", "ws", 1)
    with Client(url) as client:
        content = {"properties": {"num_generations": 20}}
        client.socket.send(json.dumps({"item": {"content": [content]}}))
        heard_at = [heard for _ in range(40) if (heard := time_of(client.socket))]
    return median_delay(heard_at, upstream)


def time_of(socket: ClientConnection) -> float | None:
    """When the next frame came, if it is a picture."""
    text = str(socket.recv(10))
    return time.monotonic() if len(text) > 100_000 else None


def median_delay(heard_at: list[float], upstream: PictureServer) -> float:
    delays = [heard - sent for heard, sent in zip(heard_at, upstream.sent_at, strict=False)]
    return statistics.median(delays)


def test_a_slow_reader_holds_upstream_up_and_not_memory(sandbox: SandboxThread) -> None:
    settings = {"grok.base_url": "", "grok.timeout": 60}
    with PictureServer(size=1_500_000) as upstream:
        settings["grok.base_url"] = upstream.url
        with (
            LiveSockets(sandbox, settings=settings, sockets={"patience": 1.0}) as gateway,
            gateway.connect(max_queue=1) as client,
        ):
            tracemalloc.start()
            client.say("start", prompt="a lighthouse")
            assert wait_for(lambda: gateway.sockets.open == 0, 10)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            sent = len(upstream.sent_at)
            assert gateway.runtime.pool.open_leases == 0
        assert peak < 60_000_000
        assert sent < 40


def test_a_reader_that_takes_nothing_cannot_hold_the_server_up(sandbox: SandboxThread) -> None:
    with PictureServer(size=1_500_000) as upstream:
        settings = {"grok.base_url": upstream.url, "grok.timeout": 60}
        with (
            LiveSockets(sandbox, settings=settings) as gateway,
            gateway.connect(max_queue=1) as client,
        ):
            client.say("start", prompt="a lighthouse")
            before = -1
            while before != (before := len(upstream.sent_at)) or before < 3:
                time.sleep(0.3)
            asked = time.monotonic()
            gateway.inside_async(gateway.sockets.aclose)
            assert time.monotonic() - asked < 2


def rest_of(client: Client) -> tuple[list[dict[str, object]], int]:
    """Everything until the server closes, and its code."""
    heard = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            heard.append(client.hear())
    assert closed.value.rcvd is not None
    return heard, int(closed.value.rcvd.code)


def refusal_of(gateway: LiveSockets, query: str | None = None) -> int:
    """The HTTP status of a handshake that must not succeed."""
    client = gateway.connect() if query is None else gateway.connect(query)
    with pytest.raises(InvalidStatus) as refused, client:
        pass
    return refused.value.response.status_code
