"""The simulated api.x.ai: chat, catalogue, key probe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.sandbox.answers import expected_text
from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller, chunks

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"city": {}}}}
OTHER = {"type": "function", "function": {"name": "clock"}}


async def complete(caller: Caller, prompt: str = "hi", **body: Any) -> dict[str, Any]:
    async with caller.completions("ok-1", prompt, **body) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def stream(caller: Caller, prompt: str = "hi", **body: Any) -> list[dict[str, Any]]:
    async with caller.completions("ok-1", prompt, stream=True, **body) as response:
        assert response.content_type == "text/event-stream"
        return chunks(await response.read())


def deltas(frames: list[dict[str, Any]], key: str) -> list[Any]:
    return [
        choice["delta"][key]
        for frame in frames
        for choice in frame["choices"]
        if choice["delta"].get(key)
    ]


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    body = await complete(caller)
    message = body["choices"][0]["message"]
    usage = body["usage"]
    assert message["content"] == expected_text("hi")
    assert message["reasoning_content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] + 100
    assert sandbox.state.violations == []


async def test_a_stream_says_the_same(caller: Caller) -> None:
    frames = await stream(caller)
    assert "".join(deltas(frames, "content")) == expected_text("hi")
    assert deltas(frames, "reasoning_content")
    assert frames[-1]["choices"][0]["finish_reason"] == "stop"
    assert len({frame["id"] for frame in frames}) == 1


async def test_usage_comes_when_it_is_asked_for(caller: Caller) -> None:
    frames = await stream(caller, stream_options={"include_usage": True})
    assert frames[-1]["choices"] == []
    assert frames[-1]["usage"]["total_tokens"] > 0


async def test_a_model_that_does_not_reason_has_no_reasoning(caller: Caller) -> None:
    model = "grok-4.20-0309-non-reasoning"
    body = await complete(caller, model=model)
    assert "reasoning_content" not in body["choices"][0]["message"]
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize(
    ("choice", "name", "arguments"),
    [
        (None, "weather", '{"city": "Paris"}'),
        ("auto", "weather", '{"city": "Paris"}'),
        ("required", "weather", '{"city": "Paris"}'),
        ({"type": "function", "function": {"name": "clock"}}, "clock", "{}"),
    ],
)
async def test_a_tool_is_called(caller: Caller, choice: Any, name: str, arguments: str) -> None:
    body: dict[str, Any] = {"tools": [TOOL, OTHER]}
    if choice is not None:
        body["tool_choice"] = choice
    whole = await complete(caller, **body)
    frames = await stream(caller, **body)
    expected = {"name": name, "arguments": arguments}
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    assert whole["choices"][0]["message"]["tool_calls"][0]["function"] == expected
    calls = deltas(frames, "tool_calls")
    assert len(calls) == 1
    assert calls[0][0]["function"] == expected


async def test_no_tool_is_called_when_none_is_chosen(caller: Caller) -> None:
    body = await complete(caller, tools=[TOOL], tool_choice="none")
    assert body["choices"][0]["message"]["content"]


async def test_a_tool_result_gets_a_text_answer(caller: Caller) -> None:
    messages = [
        {"role": "user", "content": "Paris?"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_1", "content": "20"},
    ]
    body = await complete(caller, messages=messages, tools=[TOOL])
    assert body["choices"][0]["message"]["content"].startswith("You said: Paris?")


async def test_counted_frames(caller: Caller) -> None:
    frames = await stream(caller, "FRAMES:60")
    assert deltas(frames, "content") == [f"w{number} " for number in range(60)]
    body = await complete(caller, "FRAMES:3")
    assert body["choices"][0]["message"]["content"] == "w0 w1 w2 "


async def test_several_choices_and_json(caller: Caller) -> None:
    body = await complete(caller, n=2, response_format={"type": "json_object"})
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert json.loads(body["choices"][0]["message"]["content"]) == {"said": "hi"}


async def test_a_retired_model_answers_as_its_target(caller: Caller) -> None:
    assert (await complete(caller, model="grok-4-0709"))["model"] == "grok-4.3"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt-4"}, 404),
        ({"model": 4}, 422),
        ({"messages": []}, 422),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 422),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, 422),
        ({"stop": ["x"]}, 400),
        ({"presence_penalty": 1}, 400),
        ({"model": "grok-4.20", "reasoning_effort": "low"}, 400),
        ({"temperature": 3}, 400),
        ({"tools": [TOOL] * 129}, 400),
        ({"search_parameters": {"mode": "on"}}, 410),
    ],
)
async def test_a_bad_request_is_refused(caller: Caller, body: dict[str, Any], status: int) -> None:
    async with caller.completions("ok-1", **body) as response:
        assert response.status == status
        assert set(await response.json()) == {"code", "error"}


async def test_no_key_is_401(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.session.get(sandbox.url + "/v1/models") as reply:
        assert reply.status == 401
        assert (await reply.json())["code"] == "unauthenticated:no-credentials"


async def test_the_catalogue(caller: Caller) -> None:
    async with caller.xai("GET", "xai-ok-1", "/v1/models") as reply:
        listed = await reply.json()
    assert listed["object"] == "list"
    assert {"grok-4.3", "grok-imagine-image"} <= {model["id"] for model in listed["data"]}
    async with caller.xai("GET", "xai-ok-1", "/v1/models/grok-latest") as reply:
        assert (await reply.json())["id"] == "grok-4.3"
    async with caller.xai("GET", "xai-ok-1", "/v1/language-models") as reply:
        assert (await reply.json())["models"][0]["prompt_text_token_price"] == 20000
    async with caller.xai("GET", "xai-ok-1", "/v1/image-generation-models/none") as reply:
        assert reply.status == 404


@pytest.mark.parametrize(("token", "blocked"), [("ok-1", False), ("blocked-1", True)])
async def test_the_key_probe(caller: Caller, token: str, blocked: bool) -> None:
    async with caller.xai("GET", f"xai-{token}-team-blue", "/v1/api-key") as reply:
        probe = await reply.json()
    assert probe["team_id"] == "t-blue"
    assert probe["api_key_blocked"] is blocked
    assert probe["api_key_disabled"] is False
