"""Pictures that fail, clients that leave, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.media.part_file import PartFile
from gateway.media.store import MediaStore
from gateway.sandbox.serve import SandboxThread
from pool.entries import Quota
from tests.gateway.api.drawing import (
    EDIT,
    GENERATE,
    PICTURE,
    WAYS,
    Drawing,
    answer_of,
    drawing,
    drawing_by,
    events_of,
    generate,
)
from tests.gateway.api.reading import error_of
from tests.gateway.api.test_disconnects import wait_for
from tests.gateway.live import KEY, LiveGateway
from tests.gateway.media import samples

DATA_URI = "data:image/png;base64," + base64.b64encode(samples.PNG).decode()
EXPERIMENTAL = {"grok.image_generation_method": "imagine_ws_experimental"}
Field = dict[str, Any]


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_what_is_wholly_moderated_is_refused_and_refunded(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way, "moderated", images=3) as gateway:
        for _ in range(2):
            error = error_of(generate(gateway, n=2), 400)
            assert error["code"] == "content_policy_violation"
            streamed = generate(gateway, n=2, stream=True)
            if streamed.status_code == 200:  # It had begun, with previews.
                error = events_of(streamed)[-1][1]["error"]
            else:
                error = error_of(streamed, 400)
            assert error["code"] == "content_policy_violation"
        assert gateway.penalised() == []
        assert gateway.gives_all_back()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "imagine-legacy"])
def test_only_what_is_delivered_is_charged(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way, "moderated-one", images=3) as gateway:
        for _ in range(2):
            answer = answer_of(generate(gateway, n=2))
            assert (len(answer["data"]), answer["blocked"], answer["failed"]) == (1, 1, 0)
        error = error_of(generate(gateway, n=2), 429)
        assert error["code"] == "image_daily_quota_exceeded"


@pytest.mark.parametrize("stream", [True, False])
def test_all_pictures_are_charged(sandbox: SandboxThread, tmp_path: Path, stream: bool) -> None:
    with drawing_by(sandbox, tmp_path, "chat", images=4) as gateway:
        for _ in range(2):
            assert generate(gateway, n=2, stream=stream).status_code == 200
        assert error_of(generate(gateway, stream=stream), 429)["type"] == "rate_limit_error"


@pytest.mark.parametrize(("behaviour", "status", "code"), [
    ("limited", 429, "rate_limit_exceeded"),
    ("expired", 503, "upstream_unavailable"),
    ("error500", 502, "upstream_error"),
    ("challenge", 502, "upstream_session_rejected"),
    ("badreq", 400, "invalid_request"),
])  # fmt: skip
def test_upstreams_failures_have_their_codes(
    sandbox: SandboxThread, tmp_path: Path, way: str, behaviour: str, status: int, code: str
) -> None:
    if (way, behaviour) == ("xai", "challenge"):
        code = "upstream_forbidden"  # There is no browser session there.
    with drawing_by(sandbox, tmp_path, way, behaviour, images=2) as gateway:
        for stream in (False, True):
            if not stream or behaviour not in ("expired", "limited", "error500"):
                error = error_of(generate(gateway, n=2, stream=stream), status)
                assert error["code"] == code
        assert gateway.gives_all_back()


def test_an_answer_without_a_picture_is_incomplete(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing_by(sandbox, tmp_path, "chat-rest", "garbageonly") as gateway:
        error = error_of(generate(gateway, n=2), 502)
    assert error["code"] == "image_generation_incomplete"


@pytest.mark.parametrize("behaviour", ["asset-denied", "asset-html", "asset-cut", "asset-huge"])
def test_pictures_that_cannot_be_fetched_are_nobodys_fault(
    sandbox: SandboxThread, tmp_path: Path, behaviour: str
) -> None:
    with drawing_by(sandbox, tmp_path, "chat", behaviour, images=2) as gateway:
        error = error_of(generate(gateway, n=2), 502)
        assert error["code"] == "media_postprocessing_failed"
        events = events_of(generate(gateway, n=2, stream=True))
        assert events[-1][1]["error"]["code"] == "media_postprocessing_failed"
        assert error_of(generate(gateway, n=2), 502)
        assert gateway.penalised() == []
        assert gateway.gives_all_back()


def test_the_pictures_there_are_come_although_a_later_call_fails(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    with drawing_by(sandbox, tmp_path, "chat", images=6) as gateway:
        sandbox.state.options.enforce_quota = True
        try:
            sandbox.state.account("ok-1").spend("fast", 0, 0)
            answer = answer_of(generate(gateway, n=6))
        finally:
            sandbox.state.options.enforce_quota = False
    assert len(answer["data"]) + answer["failed"] == 6


def test_one_request_penalises_one_credential(sandbox: SandboxThread, tmp_path: Path) -> None:
    names = ["limited-1", "limited-2", "limited-3", "ok-4"]
    with drawing(sandbox, tmp_path, names) as gateway:
        answer = answer_of(generate(gateway, n=10, concurrency=3))
        assert len(answer["data"]) == 10
        assert len(gateway.penalised()) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("policy", ["web_only", "web_first", "api_first"])
def test_a_socket_that_cannot_begin_gives_way_to_the_older_method(
    sandbox: SandboxThread, tmp_path: Path, policy: str, stream: bool
) -> None:
    settings_ = EXPERIMENTAL | {"pool.policy": policy}
    with drawing(sandbox, tmp_path, ["ok-1"], settings_) as gateway:

        def cool(running: LiveGateway = gateway) -> None:
            running.entry(1).quotas["image_pro"] = Quota(0)

        gateway.inside(cool)
        answer = generate(gateway, n=2 if stream else 5, stream=stream)
        assert answer.status_code == 200, answer.text
        assert stream or len(answer.json()["data"]) == 5
        assert gateway.penalised() == []
    assert not sandbox.state.counters["/ws/imagine/listen"]
    assert sandbox.state.counters["/ws/mgw/"]


def test_nothing_gives_way_once_a_picture_has_begun(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing_by(sandbox, tmp_path, "imagine", "cut") as gateway:
        assert generate(gateway, n=2).status_code == 502
    assert sandbox.state.counters["/ws/imagine/listen"] == 1
    assert not sandbox.state.counters["/ws/mgw/"]


def test_a_refusal_of_the_content_is_final(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing(sandbox, tmp_path, ["moderated-1"], EXPERIMENTAL) as gateway:
        assert error_of(generate(gateway), 400)["code"] == "content_policy_violation"
    assert sandbox.state.counters["/ws/mgw/"] == 0


def test_nor_does_another_credential_get_what_was_refused(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    with drawing(sandbox, tmp_path, ["moderated-1", "ok-2"]) as gateway:
        assert error_of(generate(gateway, n=4), 400)["code"] == "content_policy_violation"
    assert sandbox.state.counters["/ws/mgw/"] == 1


class Leaver:
    """A client that can leave without a word."""

    def __init__(self, gateway: Drawing, path: str, body: bytes, content_type: str) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    @classmethod
    def generating(cls, gateway: Drawing, **fields: Any) -> Leaver:
        body = json.dumps({"prompt": "a cat", **fields}).encode()
        return cls(gateway, GENERATE, body, "application/json")

    @classmethod
    def editing(cls, gateway: Drawing, **fields: str) -> Leaver:
        request = httpx.Request(
            "POST", gateway.url, data={"prompt": "x", **fields}, files=[PICTURE]
        )
        return cls(gateway, EDIT, request.read(), request.headers["Content-Type"])

    def leave(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", ["hang", "silent"])
def test_leaving_before_the_first_event_frees_everything(
    sandbox: SandboxThread, tmp_path: Path, way: str, behaviour: str, stream: bool
) -> None:
    patient = {"grok.timeout": 60, "xai.timeout": 60}
    with drawing_by(sandbox, tmp_path, way, behaviour, patient, images=2) as gateway:
        client = Leaver.generating(gateway, n=2, stream=stream)
        assert wait_for(lambda: sandbox.state.open_streams > 0, 5)

        client.leave()

        assert gateway.gives_all_back()
        assert gateway.penalised() == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", ["chat", "imagine"])
def test_leaving_in_the_middle_frees_everything_and_is_charged(
    sandbox: SandboxThread, tmp_path: Path, way: str, stream: bool
) -> None:
    sandbox.state.options.slow_ms, before = 300, sandbox.state.options.slow_ms
    try:
        with drawing_by(sandbox, tmp_path, way, "slow", images=2) as gateway:
            client = Leaver.generating(gateway, n=2, stream=stream)
            assert wait_for(gateway.has_begun, 5)

            client.leave()

            assert gateway.gives_all_back()
            assert error_of(generate(gateway), 429)["code"] == "image_daily_quota_exceeded"
    finally:
        sandbox.state.options.slow_ms = before


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("behaviour", ["hang", "silent"])
def test_leaving_an_edit_removes_its_files(
    sandbox: SandboxThread, tmp_path: Path, behaviour: str, stream: str
) -> None:
    patient = {"grok.timeout": 60, "xai.timeout": 60}
    with drawing_by(sandbox, tmp_path, "xai", behaviour, patient) as gateway:
        client = Leaver.editing(gateway, stream=stream)
        assert wait_for(lambda: sandbox.state.open_streams > 0, 5)
        assert gateway.temporary()

        client.leave()

        assert gateway.gives_all_back()


class SlowStore(MediaStore):
    """Removing what is left of a form takes it long."""

    async def discard(self, *parts: PartFile) -> None:
        try:
            if parts:
                self.busy.set()
                await asyncio.sleep(10)
        finally:
            await super().discard(*parts)

    def __init__(self, root: Path) -> None:
        super().__init__(root, reserve=0)
        self.busy = threading.Event()


def test_leaving_while_the_form_is_removed_frees_the_answer_that_has_begun(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    with drawing_by(sandbox, tmp_path, "chat", images=1) as gateway:
        store = gateway.runtime.hosting.store = SlowStore(tmp_path)
        client = Leaver.editing(gateway, stream="true")
        assert store.busy.wait(5)

        client.leave()

        assert gateway.gives_all_back()
