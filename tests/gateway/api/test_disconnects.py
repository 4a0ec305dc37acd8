"""Clients that leave: upstream is closed within a second and the lease is back, in every phase."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable

import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.live import KEY, LiveGateway
from tests.gateway.protocols import PROTOCOLS, WEB, serve

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
WITHIN = 1.0
"""Seconds in which upstream has to see that the client is gone."""


class RawClient:
    """A client that can leave without a word."""

    def __init__(self, gateway: LiveGateway, *, stream: bool, content: object = "Hello") -> None:
        body = json.dumps(
            {
                "model": "grok-4",
                "stream": stream,
                "messages": [{"role": "user", "content": content}],
            }
        ).encode()
        host, port = gateway.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\n"
            + f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def read_until(self, marker: bytes) -> bytes:
        data = b""
        while marker not in data:
            piece = self.socket.recv(65536)
            assert piece, data
            data += piece
        return data

    def leave(self) -> float:
        self.socket.close()
        return time.monotonic()


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


CHATS = ("/ws/mgw/", "/rest/app-chat/conversations/new", "/v1/chat/completions")


def upstream_busy(sandbox: SandboxThread) -> Callable[[], bool]:
    """Whether upstream is at work on the chat itself, not on a call before it."""

    def busy() -> bool:
        asked = any(sandbox.state.counters[path] for path in CHATS)
        return asked and sandbox.state.open_streams > 0

    return busy


def assert_all_is_given_back(gateway: LiveGateway, sandbox: SandboxThread) -> None:
    left = time.monotonic()
    assert wait_for(lambda: sandbox.state.open_streams == 0, WITHIN)
    assert wait_for(lambda: gateway.runtime.pool.open_leases == 0, WITHIN)
    assert time.monotonic() - left <= 2 * WITHIN
    assert len(sandbox.state.disconnects) == 1
    assert gateway.penalised() == []
    assert [entry.in_flight for entry in gateway.runtime.pool.entries] == [0]
    assert wait_for(lambda: gateway.application.running == 0, WITHIN)


@pytest.fixture(autouse=True)
def fresh_sandbox(sandbox: SandboxThread) -> None:
    sandbox.state.reset()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("behaviour", ["hang", "silent"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_frees_upstream_when_the_client_leaves_before_the_first_event(
    sandbox: SandboxThread, protocol: str, behaviour: str, stream: bool
) -> None:
    settings = {"grok.timeout": 60, "xai.timeout": 60}
    with serve(sandbox, protocol, [behaviour], settings) as gateway:
        client = RawClient(gateway, stream=stream)
        assert wait_for(upstream_busy(sandbox), 5)

        client.leave()

        assert_all_is_given_back(gateway, sandbox)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_frees_upstream_when_the_client_leaves_in_mid_stream(
    sandbox: SandboxThread, protocol: str
) -> None:
    with serve(sandbox, protocol, ["ok"]) as gateway:
        client = RawClient(gateway, stream=True, content="FRAMES:400x50")
        client.read_until(b'"content":"w1 "')

        client.leave()

        assert_all_is_given_back(gateway, sandbox)
        assert gateway.entry(1).pending_uses == 1


@pytest.mark.parametrize("protocol", WEB)
def test_it_frees_upstream_when_a_whole_answer_is_no_longer_wanted(
    sandbox: SandboxThread, protocol: str
) -> None:
    with serve(sandbox, protocol, ["ok"]) as gateway:
        client = RawClient(gateway, stream=False, content="FRAMES:400x50")
        assert wait_for(upstream_busy(sandbox), 5)

        client.leave()

        assert_all_is_given_back(gateway, sandbox)


def test_it_counts_nothing_when_the_client_leaves_before_its_request_is_whole(
    sandbox: SandboxThread,
) -> None:
    with serve(sandbox, "rest-mode", ["ok"]) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nContent-Length: 900\r\n"
                + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
                + b'{"model'
            )
            assert wait_for(lambda: gateway.application.running == 1, 5)
        assert wait_for(lambda: gateway.application.running == 0, WITHIN)
        assert gateway.ask(prompt="FRAMES:1").status_code == 200


def test_a_slow_reader_holds_upstream_back_instead_of_filling_memory(
    sandbox: SandboxThread,
) -> None:
    with serve(sandbox, "rest-mode", ["ok"]) as gateway:
        client = RawClient(gateway, stream=True, content="FRAMES:200000")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.read_until(b'"content":"w1 "')
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)
        # The answer is about 40 MB of frames; unread, it must not be taken in as a whole.
        assert not wait_for(lambda: gateway.runtime.pool.open_leases == 0, 0.7)

        client.leave()

        assert wait_for(lambda: gateway.runtime.pool.open_leases == 0, WITHIN)
        assert gateway.penalised() == []


def test_it_frees_upstream_after_uploads_too(sandbox: SandboxThread) -> None:
    image = {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}
    content = [{"type": "text", "text": "SANDBOX:hang"}, {"type": "image_url", "image_url": image}]
    with serve(sandbox, "rest-mode", ["ok"], {"grok.timeout": 60}) as gateway:
        client = RawClient(gateway, stream=True, content=content)
        assert wait_for(upstream_busy(sandbox), 5)

        client.leave()

        assert_all_is_given_back(gateway, sandbox)
