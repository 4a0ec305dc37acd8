"""The simulated Responses API."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from gateway.sandbox.answers import expected_text
from tests.gateway.sandbox.calling import Caller, chunks

KEY = "xai-ok-1-team-a"
TOOL = {"type": "function", "name": "weather", "parameters": {"city": {}}}


async def respond(caller: Caller, **body: Any) -> dict[str, Any]:
    whole = {"model": "grok-4.7", "input": "hi", **body}
    async with caller.xai_post(KEY, "/v1/responses", whole) as reply:
        assert reply.status == 200, await reply.text()
        found: dict[str, Any] = await reply.json()
        return found


async def events(caller: Caller, key: str = KEY, **body: Any) -> list[dict[str, Any]]:
    whole = {"model": "grok-4.7", "input": "hi", "stream": True, **body}
    async with caller.xai_post(key, "/v1/responses", whole) as reply:
        return chunks(await reply.read())


async def test_it_works(caller: Caller) -> None:
    body = await respond(caller)
    assert [item["type"] for item in body["output"]] == ["reasoning", "message"]
    assert body["output"][1]["content"][0]["text"] == expected_text("hi")
    assert (
        body["usage"]["output_tokens"] > body["usage"]["output_tokens_details"]["reasoning_tokens"]
    )


async def test_a_stream_says_the_same(caller: Caller) -> None:
    seen = await events(caller)
    text = "".join(e["delta"] for e in seen if e["type"] == "response.output_text.delta")
    assert text == expected_text("hi")
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["type"] == "response.created"
    assert seen[-1]["type"] == "response.completed"
    assert seen[-1]["response"]["output"][1]["content"][0]["text"] == text


async def test_a_function_is_called_until_it_has_answered(caller: Caller) -> None:
    body = await respond(caller, tools=[TOOL])
    call = body["output"][-1]
    assert (call["type"], call["arguments"]) == ("function_call", '{"city": "Paris"}')
    kinds = {event["type"] for event in await events(caller, tools=[TOOL])}
    assert "response.function_call_arguments.done" in kinds
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "20"}
    given = [{"role": "user", "content": "Paris?"}, call, output]
    body = await respond(caller, tools=[TOOL], input=given)
    assert body["output"][-1]["type"] == "message"


async def test_a_stored_response_belongs_to_its_team(caller: Caller) -> None:
    path = f"/v1/responses/{(await respond(caller))['id']}"
    async with caller.xai("GET", "xai-ok-2-team-b", path) as reply:
        assert reply.status == 404
    async with caller.xai("GET", "xai-ok-2-team-a", path) as reply:
        assert (await reply.json())["status"] == "completed"
    async with caller.xai("DELETE", KEY, path) as reply:
        assert (await reply.json())["deleted"] is True
    async with caller.xai("GET", KEY, path) as reply:
        assert reply.status == 404


async def test_a_response_that_is_not_stored_is_gone(caller: Caller) -> None:
    body = await respond(caller, store=False)
    async with caller.xai("GET", KEY, f"/v1/responses/{body['id']}") as reply:
        assert reply.status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": ""}, 422),
        ({"previous_response_id": "x"}, 404),
        ({"previous_response_id": "x", "instructions": "y"}, 400),
        ({"tools": [{"type": "web_search", "search_context_size": "low"}]}, 400),
        ({"input": "SANDBOX:limited"}, 429),
    ],
)
async def test_a_bad_request_is_refused(caller: Caller, body: dict[str, Any], status: int) -> None:
    whole = {"model": "grok-4.7", "input": "hi", **body}
    async with caller.xai_post(KEY, "/v1/responses", whole) as reply:
        assert reply.status == status


async def test_failures_amid_a_stream(caller: Caller) -> None:
    assert (await events(caller, "xai-midlimit-1"))[-1]["type"] == "error"
    assert (await events(caller, "xai-failed-1"))[-1]["type"] == "response.failed"
    with pytest.raises(aiohttp.ClientError):
        await events(caller, "xai-cut-1")
