"""A key in an address, a header or a subprotocol is in no log, at any level."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
from websockets.exceptions import InvalidStatus

from gateway.sandbox.serve import SandboxThread
from tests.gateway.consumers.live import LiveSockets, is_error, is_image, is_stopped
from tests.gateway.live import record
from tests.gateway.test_no_secrets_in_logs import Recorder, recorder

__all__ = ["recorder"]
PLANTED = "pLaNtEdSeCrEt"
KEY = f"sk-{PLANTED}-client-key-00000000000000000000"
WAYS: tuple[tuple[str, dict[str, str], tuple[str, ...]], ...] = (
    (f"?api_key={KEY}", {}, ()),
    (f"?a=b&api_key={KEY}&c=d", {}, ()),
    ("", {"Authorization": f"Bearer {KEY}"}, ()),
    ("", {}, ("grok2api.imagine", f"key.{KEY}")),
)


@pytest.mark.parametrize("level", [logging.DEBUG, 5, logging.INFO])
def test_no_record_holds_the_key(sandbox: SandboxThread, recorder: Recorder, level: int) -> None:
    for name in ("uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        logging.getLogger(name).setLevel(level)
    with LiveSockets(sandbox, keys={KEY: record()}) as gateway:
        for query, headers, offer in WAYS:
            with gateway.connect(query, headers=headers, offer=offer) as client:
                client.start(f"{PLANTED} in a prompt")
                client.hear_until(is_image)
                client.say("stop")
                client.hear_until(is_stopped)
                client.socket.send(f"{PLANTED} is no command")
                client.hear_until(is_error)
                client.socket.send("x" * 70_000)
        for path in ("/nowhere", ""):
            refused = gateway.connect(f"?api_key={KEY}-wrong")
            refused.url += path
            with suppress(InvalidStatus), refused:
                raise AssertionError("it was let in")

    texts = [text for text in recorder.texts if "WebSocket /api" in text]
    assert len(texts) >= len(WAYS) + 2, "the handshakes were not logged at all"
    assert [text for text in recorder.texts if PLANTED in text] == []


def test_an_unforeseen_error_is_logged_without_the_key(
    sandbox: SandboxThread, recorder: Recorder
) -> None:
    with LiveSockets(sandbox, keys={KEY: record()}) as gateway:

        def broken(*args: object) -> None:
            raise KeyError("a bug")

        gateway.inside(lambda: setattr(gateway.sockets, "enter", broken))
        with suppress(InvalidStatus), gateway.connect(f"?api_key={KEY}"):
            raise AssertionError("it was let in")
    assert any("a bug" in text for text in recorder.texts)
    assert [text for text in recorder.texts if PLANTED in text] == []
