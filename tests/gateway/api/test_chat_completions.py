"""``POST /v1/chat/completions`` over real sockets, against the sandbox."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.sandbox.answers import expected_text
from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.reading import (
    PATH,
    ask,
    configured,
    error_of,
    read_stream,
    streamed,
    whole,
)
from tests.gateway.live import LiveGateway
from tests.gateway.protocols import PROTOCOLS, WEB


@pytest.fixture(autouse=True)
def fresh_sandbox(sandbox: SandboxThread) -> Iterator[None]:
    sandbox.state.reset()
    yield
    assert sandbox.state.violations == []


def refused(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    return error_of(ask(client, **fields), 400)


def asked_upstream(sandbox: SandboxThread) -> int:
    counters = sandbox.state.counters
    paths = ("/ws/mgw/", "/rest/app-chat/conversations/new", PATH)
    return sum(counters[path] for path in paths)


# The shape of an answer


def test_it_answers_in_the_shape_of_a_chat_completion(client: httpx.Client, protocol: str) -> None:
    before = int(time.time())

    answer = whole(client)

    assert set(answer) == {
        "id", "object", "created", "model", "system_fingerprint", "choices", "usage",
    }  # fmt: skip
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert before <= answer["created"] <= time.time()
    assert answer["model"] == "grok-4"
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant", "content": "w0 w1 w2 ", "refusal": None, "annotations": [],
        },
        "logprobs": None,
        "finish_reason": "stop",
    }  # fmt: skip


def test_it_streams_in_the_shape_of_chat_completion_chunks(
    client: httpx.Client, protocol: str
) -> None:
    response = ask(client, stream=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    answer = read_stream(response.content)
    assert len({chunk["id"] for chunk in answer.chunks}) == 1
    assert {chunk["object"] for chunk in answer.chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in answer.chunks} == {"grok-4"}
    assert all("usage" not in chunk for chunk in answer.chunks)
    assert answer.deltas[0] == {"role": "assistant", "content": ""}
    assert answer.deltas[1:] == [{"content": "w0 "}, {"content": "w1 "}, {"content": "w2 "}, {}]
    assert answer.finish == "stop"


def test_streamed_and_whole_answers_say_the_same(client: httpx.Client, protocol: str) -> None:
    answer, message = streamed(client, "Hello"), whole(client, "Hello")["choices"][0]["message"]

    assert answer.content == message["content"]
    assert answer.annotations == message["annotations"]
    assert answer.reasoning == message["reasoning_content"]
    assert re.sub(r"\[\[1\]\]\(.*?\)", "", answer.content) == expected_text("Hello")


@pytest.mark.parametrize("style", ["reasoning_content", "think_tags"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_citations_offsets_point_at_it_in_the_content(
    client: httpx.Client, style: str, stream: bool
) -> None:
    with configured({"grok.thinking_format": style}):
        if stream:
            answer = streamed(client, "Hello")
            content, notes = answer.content, answer.annotations
        else:
            message = whole(client, "Hello")["choices"][0]["message"]
            content, notes = message["content"], message["annotations"]

    cited = next(n["url_citation"] for n in notes if n["url_citation"]["title"] == "Tides")
    link = content[cited["start_index"] : cited["end_index"]]
    assert link == f"[[1]]({cited['url']})"


# Streaming by default, and usage


@pytest.mark.parametrize("fields", [{}, {"stream": None}])
@pytest.mark.parametrize("default", [True, False])
def test_without_a_wish_the_operators_setting_decides_about_streaming(
    client: httpx.Client, default: bool, fields: dict[str, Any]
) -> None:
    with configured({"grok.stream": default}):
        response = ask(client, **fields)

    streams = response.headers["content-type"].startswith("text/event-stream")
    assert streams is default


@pytest.mark.parametrize("protocol", ["mgw", "xai"], indirect=True)
def test_include_usage_adds_one_last_chunk_without_choices(
    client: httpx.Client, protocol: str
) -> None:
    answer = streamed(client, "Hello", stream_options={"include_usage": True})

    assert [chunk["usage"] for chunk in answer.chunks[:-1]] == [None] * (len(answer.chunks) - 1)
    assert answer.chunks[-1]["choices"] == []
    assert answer.usage is not None
    counted = answer.usage["prompt_tokens"] + answer.usage["completion_tokens"]
    assert answer.usage["total_tokens"] == counted
    assert answer.usage["prompt_tokens"] > 0
    assert answer.usage["completion_tokens_details"]["reasoning_tokens"] > 0
    assert answer.usage.get("estimated", False) is (protocol != "xai")


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_without_include_usage_there_is_no_usage_in_a_stream(
    client: httpx.Client, options: dict[str, Any] | None
) -> None:
    answer = streamed(client, stream_options=options)

    assert all("usage" not in chunk for chunk in answer.chunks)


def test_whole_and_streamed_usage_agree(client: httpx.Client, protocol: str) -> None:
    answer = streamed(client, "Hello", stream_options={"include_usage": True})
    usage = whole(client, "Hello")["usage"]

    assert answer.usage is not None
    keys = ("completion_tokens", "completion_tokens_details")
    assert [usage[key] for key in keys] == [answer.usage[key] for key in keys]
    assert usage["prompt_tokens"] > 0


# What reaches upstream

ACCEPTED: dict[str, Any] = {
    "max_tokens": 10,
    "max_completion_tokens": 10,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "service_tier": "default",
    "prompt_cache_key": "k",
    "user": "somebody",
}


def test_sampling_fields_reach_the_official_api_under_their_names(
    client: httpx.Client, sandbox: SandboxThread
) -> None:
    with configured(PROTOCOLS["xai"]):
        whole(client, **ACCEPTED)

    sent = sandbox.state.requests_to(PATH)[-1].json()
    assert {name: sent[name] for name in ACCEPTED} == ACCEPTED
    assert sent["model"] == "grok-4.3"


@pytest.mark.parametrize("name", [*ACCEPTED, "stop", "presence_penalty", "frequency_penalty"])
def test_the_web_takes_and_passes_over_every_sampling_field(
    client: httpx.Client, name: str
) -> None:
    value = {"stop": ["x"], "presence_penalty": 0.1, "frequency_penalty": 0.1}.get(name)
    assert whole(client, **{name: ACCEPTED.get(name, value)})["choices"]


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_null_is_as_good_as_absent(client: httpx.Client, sandbox: SandboxThread, name: str) -> None:
    with configured(PROTOCOLS["xai"]):
        whole(client, **{name: None})

    assert name not in sandbox.state.requests_to(PATH)[-1].json()


def test_unknown_fields_are_ignored_everywhere(client: httpx.Client) -> None:
    block = {"type": "text", "text": "FRAMES:3", "cache_control": {"type": "ephemeral"}}
    message = {"role": "user", "content": [block], "refusal": None, "x": {"y": [1]}}
    response = client.post(
        PATH,
        json={
            "model": "grok-4",
            "messages": [message],
            "stream": False,
            "store": True,
            "metadata": {"a": "b"},
            "video_config": {"surprise": 1},
            "stream_options": {"include_obfuscation": True},
            "logit_bias": {"50256": -100},
            "": [],
        },
    )

    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "w0 w1 w2 "


CONVERSATION = [
    {"role": "developer", "content": "Be brief."},
    {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    {"role": "user", "content": "Look it up.", "name": "ann"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "It is high."},
    {"role": "assistant", "content": "High.", "reasoning_content": "Looked."},
    {"role": "user", "content": [{"type": "text", "text": "FRAMES:2"}]},
]


def test_every_role_reaches_the_official_api(client: httpx.Client, sandbox: SandboxThread) -> None:
    with configured(PROTOCOLS["xai"]):
        response = client.post(
            PATH, json={"model": "grok-4", "messages": CONVERSATION, "stream": False}
        )

    assert response.status_code == 200, response.text
    sent = sandbox.state.requests_to(PATH)[-1].json()["messages"]
    assert [message["role"] for message in sent] == [
        "system", "system", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert sent[3]["tool_calls"][0]["function"]["name"] == "f"
    assert sent[4] == {"role": "tool", "tool_call_id": "call_1", "content": "It is high."}
    assert sent[2]["name"] == "ann"


def test_every_role_reaches_the_web_in_one_prompt(
    client: httpx.Client, sandbox: SandboxThread
) -> None:
    with configured(PROTOCOLS["rest-mode"]):
        response = client.post(
            PATH, json={"model": "grok-4", "messages": CONVERSATION, "stream": False}
        )

    assert response.status_code == 200, response.text
    prompt = sandbox.state.requests_to("/rest/app-chat/conversations/new")[-1].json()["message"]
    texts = ("Be brief.", "Be kind.", "Look it up.", "call_1", "It is high.", "High.", "FRAMES:2")
    places = [prompt.index(text) for text in texts]
    assert places == sorted(places)
    assert "Looked." not in prompt


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"aspect_ratio": "", "preset": "", "resolution": ""},
        {"aspect_ratio": None, "video_length": None, "resolution": None, "preset": None},
        {"aspect_ratio": "16:9", "video_length": 15, "resolution": "HD", "preset": "fun"},
        {"aspect_ratio": "2:3", "video_length": 5, "resolution": "SD", "preset": "custom"},
    ],
)
def test_good_video_settings_do_no_harm(
    client: httpx.Client, config: dict[str, Any] | None
) -> None:
    assert whole(client, video_config=config)["choices"]


@pytest.mark.parametrize("n", [1, None])
def test_one_choice_may_be_asked_for(client: httpx.Client, n: int | None) -> None:
    assert len(whole(client, n=n)["choices"]) == 1


@pytest.mark.parametrize("choice", ["none", "auto", None])
def test_a_choice_without_tools_is_harmless(client: httpx.Client, choice: str | None) -> None:
    assert whole(client, tool_choice=choice)["choices"][0]["finish_reason"] == "stop"


def test_a_super_model_goes_to_the_super_session(
    client: httpx.Client, sandbox: SandboxThread
) -> None:
    with configured(PROTOCOLS["rest-mode"]):
        assert whole(client, model="grok-4-heavy")["model"] == "grok-4-heavy"

    (request,) = sandbox.state.requests_to("/rest/app-chat/conversations/new")
    assert request.token == "ok-super-2"
    assert request.json()["modeId"] == "heavy"


def test_an_empty_pool_is_a_rate_limit(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, []) as gateway:
        error = error_of(gateway.ask(), 429)

    assert (error["type"], error["code"], error["param"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
        None,
    )


@pytest.mark.parametrize("protocol", WEB, indirect=True)
def test_function_calls_in_an_answer_without_tools_stay_text(
    client: httpx.Client, protocol: str
) -> None:
    text = "<tool_calls><tool_call><tool_name>f</tool_name><parameters>{}</parameters></tool_call>"

    answer = streamed(client, text, thinking="disabled")

    assert text in answer.content
    assert answer.finish == "stop"
