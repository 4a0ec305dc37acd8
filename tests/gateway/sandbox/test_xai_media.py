"""Pictures and videos of the simulated api.x.ai."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller

KEY = "xai-ok-1"
IMAGE = {"model": "grok-imagine-image", "prompt": "a cat"}
VIDEO = {"model": "grok-imagine-video", "prompt": "waves", "duration": 6}
DATA_URI = "data:image/png;base64,AAAA"


async def generate(caller: Caller, token: str = KEY, **body: Any) -> dict[str, Any]:
    async with caller.xai_post(token, "/v1/images/generations", {**IMAGE, **body}) as reply:
        assert reply.status == 200, await reply.text()
        found: dict[str, Any] = await reply.json()
        return found


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    body = await generate(caller, n=2)
    assert "created" not in body
    async with caller.session.get(body["data"][1]["url"]) as reply:
        assert (await reply.read()).startswith(b"\xff\xd8")
    assert sandbox.state.violations == []


async def test_base64(caller: Caller) -> None:
    item = (await generate(caller, response_format="b64_json"))["data"][0]
    assert base64.b64decode(item["b64_json"]).startswith(b"\xff\xd8")


async def test_a_withheld_picture_is_a_200(caller: Caller) -> None:
    data = (await generate(caller, "xai-moderated-one-1", n=2))["data"]
    assert [item["respect_moderation"] for item in data] == [True, False]
    assert data[1]["url"] == ""


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("generations", {"size": "1024x1024"}, 400),
        ("generations", {"n": 11}, 400),
        ("generations", {"aspect_ratio": "7:1"}, 400),
        ("generations", {"model": "grok-4.3"}, 404),
        ("generations", {"prompt": ""}, 422),
        ("edits", {}, 400),
        ("edits", {"image": {"url": DATA_URI}, "images": [{"url": DATA_URI}]}, 400),
        ("edits", {"image": {"url": "ftp://x"}}, 400),
        ("edits", {"images": [{"url": DATA_URI}] * 4}, 400),
        ("edits", {"image": {"url": DATA_URI}}, 200),
        ("edits", {"images": [{"file_id": "f"}]}, 200),
    ],
)
async def test_image_requests_are_judged(
    caller: Caller, path: str, body: dict[str, Any], status: int
) -> None:
    async with caller.xai_post("xai-ok-1", f"/v1/images/{path}", {**IMAGE, **body}) as reply:
        assert reply.status == status


async def start(caller: Caller, token: str = KEY, **body: Any) -> str:
    async with caller.xai_post(token, "/v1/videos/generations", {**VIDEO, **body}) as reply:
        assert reply.status == 200, await reply.text()
        return str((await reply.json())["request_id"])


async def poll(caller: Caller, job: str, token: str = KEY) -> tuple[int, Any]:
    async with caller.xai("GET", token, f"/v1/videos/{job}") as reply:
        body = await reply.read()
        return reply.status, await reply.json() if body else None


async def test_a_video_is_done_after_some_polls(caller: Caller, sandbox: RunningSandbox) -> None:
    sandbox.state.options.video_polls = 2
    job = await start(caller)
    assert await poll(caller, job) == (202, None)
    assert await poll(caller, job) == (202, {"status": "pending", "progress": 37})
    status, body = await poll(caller, job)
    assert (status, body["status"], body["video"]["duration"]) == (200, "done", 6)
    async with caller.session.get(body["video"]["url"]) as reply:
        assert (await reply.read())[4:8] == b"ftyp"
    assert (await poll(caller, job, "xai-ok-2"))[0] == 404


async def test_a_failed_or_withheld_video_is_still_a_200(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    sandbox.state.options.video_polls = 0
    job = await start(caller, prompt="SANDBOX:moderated-one")
    status, body = await poll(caller, job)
    assert (status, body["video"]["url"]) == (200, "")
    job = await start(caller, prompt="SANDBOX:failed")
    status, body = await poll(caller, job)
    assert (status, body["status"]) == (200, "failed")


@pytest.mark.parametrize(
    "body", [{"duration": 16}, {"aspect_ratio": "9:1"}, {"resolution": "4k"}, {"duration": "x"}]
)
async def test_a_bad_video_request_is_refused(caller: Caller, body: dict[str, Any]) -> None:
    async with caller.xai_post("xai-ok-1", "/v1/videos/generations", {**VIDEO, **body}) as reply:
        assert reply.status == 400
