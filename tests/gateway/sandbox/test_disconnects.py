"""A client that leaves early is seen to leave, in every phase."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller, ask_mgw, open_mgw, read_events


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(1):
        while not condition():  # noqa: ASYNC110  # nothing to wait on across the socket
            await asyncio.sleep(0.005)


async def test_leaving_while_waiting_for_headers(caller: Caller, sandbox: RunningSandbox) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), caller.chat("hang-1"):
            pass
    await until(lambda: sandbox.state.disconnects)
    seen = sandbox.state.disconnects[0]
    assert seen.path == "/rest/app-chat/conversations/new"
    assert seen.token == "hang-1"
    assert 0 <= seen.at - seen.started_at < 1
    assert sandbox.state.open_streams == 0


@pytest.mark.parametrize("prompt", ["SANDBOX:silent", "FRAMES:5000x1"])
async def test_leaving_amid_a_stream(caller: Caller, sandbox: RunningSandbox, prompt: str) -> None:
    for opened in (caller.chat("ok-1", prompt), caller.completions("ok-1", prompt, stream=True)):
        response = await opened
        assert sandbox.state.open_streams == 1
        response.close()
        await until(lambda: sandbox.state.open_streams == 0)
    assert len(sandbox.state.disconnects) == 2


async def test_leaving_a_chat_socket_amid_the_answer(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    async with caller.mgw("ok-1") as ws:
        session, _ = await open_mgw(ws)
        await ask_mgw(ws, session, "FRAMES:5000x1")
        await ws.receive()
    await until(lambda: sandbox.state.disconnects)
    assert sandbox.state.open_streams == 0


async def test_leaving_a_silent_picture_socket(caller: Caller, sandbox: RunningSandbox) -> None:
    content = {
        "type": "input_text",
        "text": "SANDBOX:silent",
        "requestId": "img_1",
        "properties": {"aspect_ratio": "2:3"},
    }
    frame = {"type": "conversation.item.create", "item": {"content": [content]}}
    async with caller.imagine("ok-1") as ws:
        await ws.send_json(frame)
        await until(lambda: sandbox.state.requests[0].frames)
    await until(lambda: sandbox.state.disconnects)


async def test_a_finished_answer_leaves_nothing_to_note(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    async with caller.chat("ok-1") as response:
        await response.read()
    for token in ("ok-1", "inband-limit-1"):
        async with caller.mgw(token) as ws:
            session, _ = await open_mgw(ws)
            await ask_mgw(ws, session, "hi")
            await read_events(ws)
    for token in ("cut-1", "reset-1"):
        with pytest.raises(aiohttp.ClientError):
            async with caller.chat(token) as response:
                await response.read()
    await until(lambda: sandbox.state.open_streams == 0)
    assert sandbox.state.disconnects == []


async def test_the_state_can_be_read_and_reset_from_outside(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    async with caller.chat("ok-1", "remember me") as response:
        await response.read()
    async with caller.session.get(sandbox.url + "/__sandbox__/state") as reply:
        state = json.loads(await reply.read())
    assert state["counters"] == {"/rest/app-chat/conversations/new": 1}
    assert state["requests"][0]["token"] == "ok-1"
    assert state["requests"][0]["status"] == 200
    assert "remember me" in state["requests"][0]["body"]
    async with caller.session.post(sandbox.url + "/__sandbox__/reset"):
        pass
    assert not sandbox.state.requests
    assert not sandbox.state.counters
