"""Requests that the server ends early, and streams that are kept alive."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from gateway.api.application import Pulse
from gateway.sandbox.serve import SandboxThread
from gateway.wire.errors import ApiError
from tests.gateway.api.test_disconnects import RawClient, wait_for
from tests.gateway.protocols import PROTOCOLS, serve

STOPPING = ApiError(503, "The service is stopping.", type_="server_error", code="service_stopping")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_running_stream_gets_its_error_and_terminal_event(
    sandbox: SandboxThread, protocol: str
) -> None:
    with serve(sandbox, protocol, ["ok"]) as gateway:
        client = RawClient(gateway, stream=True, content="FRAMES:400x50")
        head = client.read_until(b'"content":"w1 "')

        gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))

        rest = head + client.read_until(b"data: [DONE]")
        assert b"service_stopping" in rest
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 0, 1)
        assert gateway.penalised() == []
        client.leave()


@pytest.mark.parametrize("behaviour", ["hang", "silent"])
def test_a_waiting_request_gets_a_503_in_the_envelope(
    sandbox: SandboxThread, behaviour: str
) -> None:
    with serve(sandbox, "rest-mode", [behaviour], {"grok.timeout": 60}) as gateway:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(gateway.ask(stream=True)))
        thread.start()
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)

        gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))

        thread.join(5)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "service_stopping"
        assert gateway.runtime.pool.open_leases == 0
        assert gateway.penalised() == []


def test_a_stream_held_up_by_its_reader_ends_too(sandbox: SandboxThread) -> None:
    with serve(sandbox, "rest-mode", ["ok"]) as gateway:
        client = RawClient(gateway, stream=True, content="FRAMES:100000")
        client.read_until(b'"content":"w1 "')
        assert not wait_for(lambda: gateway.runtime.pool.open_leases == 0, 0.3)

        gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))

        tail = client.read_until(b"data: [DONE]")
        assert b"service_stopping" in tail
        client.leave()


def test_silence_before_the_first_event_is_a_504(sandbox: SandboxThread) -> None:
    with serve(sandbox, "rest-mode", ["silent"]) as gateway:
        response = gateway.ask(stream=True)

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"


def test_a_silent_upstream_is_bridged_with_comments(sandbox: SandboxThread) -> None:
    settings = {"server.keepalive_sec": 1, "grok.timeout": 5}
    with serve(sandbox, "rest-mode", ["ok"], settings) as gateway:
        text = gateway.ask(prompt="FRAMES:2x1300", stream=True).text

    assert ": keep-alive\n\n" in text
    assert text.rstrip().endswith("data: [DONE]")
    assert all(json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {"))


async def test_a_pulse_beats_only_in_silence() -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    pulse = Pulse(send, 0.02)
    for _ in range(8):
        await asyncio.sleep(0.005)
        pulse.touch()
    assert sent == []
    await asyncio.sleep(0.05)
    assert sent
    pulse.stop()
    count = len(sent)
    await asyncio.sleep(0.04)
    assert len(sent) == count
