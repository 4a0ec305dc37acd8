"""The picture socket, in both dialects."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller


def item(content: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "message", "content": [content]}
    return {"type": "conversation.item.create", "timestamp": 1, "item": message}


def prompt(text: str = "a lighthouse", kind: str = "input_text", **properties: Any) -> Any:
    properties = {"aspect_ratio": "2:3", **properties}
    return item({"requestId": "img_1", "text": text, "type": kind, "properties": properties})


async def draw(caller: Caller, token: str, request: Any, frames: int) -> list[dict[str, Any]]:
    async with caller.imagine(token) as ws:
        await ws.send_json(item({"type": "reset"}))
        await ws.send_json(request)
        return [await ws.receive_json() for _ in range(frames)]


def frames_of(count: int) -> int:
    return 4 * count


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    frames = await draw(caller, "ok-1", prompt(num_generations=4), frames_of(4))
    completed = [f for f in frames if f.get("current_status") == "completed"]
    finals = [
        f for f in frames if f["type"] == "image" and f.get("percentage_complete", 100) == 100
    ]
    assert {f["order"] for f in completed} == {f["order"] for f in finals} == {0, 1, 2, 3}
    assert all(base64.b64decode(f["blob"]).startswith(b"\xff\xd8") for f in finals)
    assert sum("percentage_complete" not in f for f in finals) == 1
    assert sandbox.state.violations == []


async def test_completed_and_final_come_in_either_order(caller: Caller) -> None:
    frames = await draw(caller, "ok-1", prompt(num_generations=2), frames_of(2))
    endings: dict[int, list[str]] = {0: [], 1: []}
    for frame in frames[4:]:
        endings[frame["order"]].append(frame["type"])
    assert endings == {0: ["image", "json"], 1: ["json", "image"]}


@pytest.mark.parametrize(("pro", "count"), [(False, 6), (True, 4)])
async def test_the_older_dialect_draws_a_round(caller: Caller, pro: bool, count: int) -> None:
    request = prompt(kind="input_scroll", enable_pro=pro)
    frames = await draw(caller, "ok-1", request, frames_of(count))
    assert {frame["order"] for frame in frames} == set(range(count))


async def test_the_picture_is_public(caller: Caller, sandbox: RunningSandbox) -> None:
    frames = await draw(caller, "ok-1", prompt(num_generations=1), frames_of(1))
    url = frames[2]["url"]
    async with caller.session.get(url) as reply:
        assert await reply.read() == base64.b64decode(frames[2]["blob"])
    async with caller.session.get(url, headers={"Cookie": "sso=ok-1"}):
        assert [violation.rule for violation in sandbox.state.violations] == ["cookie-leak"]


@pytest.mark.parametrize(("token", "withheld"), [("moderated-1", {0, 1}), ("moderated-one-1", {1})])
async def test_moderated_slots(caller: Caller, token: str, withheld: set[int]) -> None:
    count = frames_of(2) - len(withheld)
    frames = await draw(caller, token, prompt(num_generations=2), count)
    assert {frame["order"] for frame in frames if frame.get("moderated")} == withheld


async def test_errors(caller: Caller) -> None:
    frames = await draw(caller, "inband-limit-1", prompt(), 1)
    assert frames[0]["err_code"] == "rate_limit_exceeded"
    frames = await draw(caller, "ok-1", prompt("SANDBOX:limited"), 1)
    assert frames[0]["err_code"] == "rate_limit_exceeded"
    frames = await draw(caller, "ok-1", prompt(aspect_ratio="7:1"), 1)
    assert frames[0]["type"] == "error"
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await draw(caller, "limited-1", prompt(), 1)


@pytest.mark.parametrize("token", ["cut-1", "cutclean-1"])
async def test_early_close(caller: Caller, token: str) -> None:
    async with caller.imagine(token) as ws:
        await ws.send_json(prompt(num_generations=2))
        frames = [json.loads(message.data) async for message in ws]
    assert len(frames) == 5


async def test_the_socket_can_be_used_again(caller: Caller) -> None:
    async with caller.imagine("ok-1") as ws:
        for _ in range(2):
            await ws.send_json(prompt(num_generations=1))
            frames = [await ws.receive_json() for _ in range(frames_of(1))]
            assert frames[-1]["current_status"] == "completed"
