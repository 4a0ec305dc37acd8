"""REST chat: what a good answer holds, in each generation and wrapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.sandbox.answers import RENDER_TAG, expected_text
from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import GEN1, Caller, answer_text, json_lines, responses


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.chat("ok-1", "[user]\nWhat is a tide?") as response:
        objects = json_lines(await response.read())
    raw = answer_text(objects)
    assert response.status == 200
    assert raw.replace(RENDER_TAG, "") == expected_text("What is a tide?")
    assert RENDER_TAG in raw
    assert sandbox.state.violations == []


async def test_a_good_answer_holds_every_kind_of_frame(caller: Caller) -> None:
    async with caller.chat("ok-1") as response:
        objects = json_lines(await response.read())
    parts = responses(objects)
    keys = {key for part in parts for key in part}
    assert objects[0]["result"]["conversation"]["conversationId"]
    assert objects[-1]["result"]["title"]
    assert {
        "userResponse",
        "llmInfo",
        "toolUsageCard",
        "webSearchResults",
        "xSearchResults",
        "cardAttachment",
        "isSoftStop",
        "finalMetadata",
        "modelResponse",
    } <= keys
    assert any(part.get("isThinking") for part in parts)


async def test_the_model_response_repeats_the_answer_without_markup(caller: Caller) -> None:
    async with caller.chat("ok-1", "hi") as response:
        parts = responses(json_lines(await response.read()))
    final = next(part["modelResponse"] for part in parts if "modelResponse" in part)
    assert final["message"] == expected_text("hi")


async def test_the_older_generation_is_answered_too(caller: Caller) -> None:
    async with caller.chat("ok-1", "user: a\n\nassistant: b\n\nlast one", **GEN1) as response:
        assert "You said: last one" in answer_text(json_lines(await response.read()))


@pytest.mark.parametrize(
    "body",
    [
        {"temporary": True},
        {"modeId": "warp"},
        {"modeId": "fast", "modelName": "grok-3"},
        {**GEN1, "modelMode": "MODEL_MODE_NONE"},
        {**GEN1, "imageAttachments": ["a"]},
    ],
)
async def test_a_body_of_no_generation_is_refused(caller: Caller, body: dict[str, Any]) -> None:
    async with caller.chat("ok-1", **body) as response:
        assert response.status == 400
        assert (await response.json())["code"] == 3


async def test_declared_tools_are_called_in_xml(caller: Caller) -> None:
    message = '[system]\n<tool name="weather">\n{"city": {}}\n</tool>\n\n[user]\nParis?'
    async with caller.chat("ok-1", message) as response:
        text = answer_text(json_lines(await response.read()))
    assert text == (
        "<tool_calls><tool_call><tool_name>weather</tool_name>"
        '<parameters>{"city": "Paris"}</parameters></tool_call></tool_calls>'
    )


async def test_a_tool_result_gets_a_text_answer(caller: Caller) -> None:
    message = '[system]\n<tool name="weather">\n\n[user]\nTool result (call_1): 20 degrees'
    async with caller.chat("ok-1", message) as response:
        text = answer_text(json_lines(await response.read()))
    assert text.startswith("You said: Tool result (call_1): 20 degrees")


async def test_counted_frames_are_exact(caller: Caller) -> None:
    async with caller.chat("ok-1", "FRAMES:60") as response:
        objects = json_lines(await response.read())
    tokens = [part["token"] for part in responses(objects) if part.get("token")]
    assert tokens == [f"w{number} " for number in range(60)]


async def test_counted_frames_can_be_paced(caller: Caller) -> None:
    async with caller.chat("ok-1", "FRAMES:3x1") as response:
        pieces = [piece async for piece in response.content.iter_any()]
    assert len(pieces) > 3
    assert answer_text(json_lines(b"".join(pieces))) == "w0 w1 w2 "


async def test_quota_falls_with_each_call(caller: Caller) -> None:
    async def remaining() -> int:
        async with caller.web_post("ok-1", "/rest/rate-limits", {"modelName": "fast"}) as reply:
            return int((await reply.json())["remainingQueries"])

    before = await remaining()
    async with caller.chat("ok-1") as response:
        await response.read()
    assert await remaining() == before - 1


async def test_a_prompt_for_pictures_gets_pictures(caller: Caller) -> None:
    async with caller.chat("ok-1", "Drawing: a cat") as response:
        parts = responses(json_lines(await response.read()))
    urls = parts[-1]["modelResponse"]["generatedImageUrls"]
    assert len(urls) == 2
    assert all("/generated/" in url and "-part-" not in url for url in urls)
    assert any("cardAttachment" in part for part in parts)
    async with caller.web_get("ok-1", "/" + urls[0]) as picture:
        assert (await picture.read()).startswith(b"\xff\xd8")


async def test_a_body_that_is_no_json_is_the_requests_own_fault(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    path = sandbox.url + "/rest/app-chat/conversations/new"
    headers = caller.web_headers("ok-1", **{"Content-Type": "application/json"})
    async with caller.session.post(path, data=b"{", headers=headers) as response:
        assert response.status == 400
        assert json.loads(await response.read())["code"] == 3
