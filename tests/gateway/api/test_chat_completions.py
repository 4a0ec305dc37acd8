"""``POST /v1/chat/completions`` over real sockets, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.live import LiveGateway

WEB = {"grok.chat_protocol": "rest"}


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    with LiveGateway(sandbox, ["ok-1", "ok-super-2", "xai-ok-key-0000000001"]) as running:
        yield running


def test_it_works(gateway: LiveGateway) -> None:
    response = gateway.ask("grok-4", "FRAMES:3", stream=False)

    assert response.status_code == 200
    answer = response.json()
    assert answer["choices"][0]["message"]["content"] == "w0 w1 w2 "
    assert answer["usage"]["estimated"] is True
