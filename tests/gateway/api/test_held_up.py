"""Requests held up at awkward moments: the head that cannot be sent, the body that is not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from gateway.api.application import Pulse, _send_stream
from gateway.api.lifetime import Lifetime
from gateway.api.streams import EventStream
from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.test_disconnects import wait_for
from tests.gateway.api.test_draining import STOPPING
from tests.gateway.live import KEY
from tests.gateway.protocols import serve


async def test_a_stream_whose_head_cannot_be_sent_still_runs_its_end() -> None:
    ended = False

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        try:
            yield b"data: {}\n\n"
        finally:
            ended = True

    async def send(message: MutableMapping[str, Any]) -> None:
        await asyncio.Event().wait()

    async def respond() -> None:
        task = asyncio.current_task()
        assert task is not None
        await _send_stream(send, EventStream(chunks()), [], 15.0, Lifetime(task))

    task = asyncio.create_task(respond())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_a_reader_that_takes_nothing_is_sent_one_keep_alive_only() -> None:
    started = 0

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    pulse = Pulse(send, 0.001)
    await asyncio.sleep(0.2)
    pulse.stop()

    assert started == 1


def test_a_stop_while_the_body_arrives_is_a_503_in_the_envelope(sandbox: SandboxThread) -> None:
    with serve(sandbox, "rest-mode", ["ok"]) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n"
                + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
                + b'{"model'
            )
            assert wait_for(lambda: gateway.application.running == 1, 5)

            gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))

            answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"service_stopping" in answer
