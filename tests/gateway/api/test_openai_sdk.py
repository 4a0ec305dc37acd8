"""The official SDK, sync and async, against a running gateway."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.sandbox.answers import expected_text
from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.test_disconnects import PNG
from tests.gateway.live import KEY, LiveGateway
from tests.gateway.protocols import PROTOCOLS, serve

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
PICTURE = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture(scope="module", params=PROTOCOLS)
def gateway(sandbox: SandboxThread, request: pytest.FixtureRequest) -> Iterator[LiveGateway]:
    with serve(sandbox, request.param, ["ok"], {"grok.timeout": 5, "xai.timeout": 5}) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def is_xai(gateway: LiveGateway) -> bool:
    return next(iter(gateway.runtime.pool.entries)).kind == "api"


def said(text: str | None) -> str:
    """The answer without the citation that the web puts in."""
    return (text or "").replace("[[1]](https://example.org/tide)", "")


def test_it_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="grok-4", messages=HELLO, stream=False)

    message = answer.choices[0].message
    assert said(message.content) == expected_text("Hello")
    assert message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert answer.usage.completion_tokens > 0


def test_it_streams(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="grok-4", messages=HELLO, stream=True))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said(text) == expected_text("Hello")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_it_streams_usage_in_a_last_chunk_without_choices(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="grok-4", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )

    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_it_works_asynchronously(gateway: LiveGateway) -> None:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = await client.chat.completions.create(model="grok-4", messages=HELLO, stream=False)
        stream = await client.chat.completions.create(model="grok-4", messages=HELLO, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(parts) == answer.choices[0].message.content


def test_reasoning_is_kept_apart(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="grok-4", messages=HELLO, stream=False)

    message = answer.choices[0].message
    assert "thinking" in str(getattr(message, "reasoning_content", "")).lower()
    assert "thinking" not in (message.content or "").lower()


def test_a_tool_is_called_and_its_result_used(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather, city by city?"}]
    answer = client.chat.completions.create(
        model="grok-4", messages=messages, tools=TOOLS, stream=False
    )

    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call: Any = choice.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)

    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny"},
    ]
    final = client.chat.completions.create(
        model="grok-4", messages=messages, tools=TOOLS, stream=False
    )
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content


def test_a_tool_call_streams_as_deltas(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="grok-4",
            messages=[{"role": "user", "content": "Weather in a city?"}],
            tools=TOOLS,
            tool_choice="required",
            stream=True,
        )
    )

    deltas = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
    assert {call.index for call in deltas} == {0}
    assert deltas[0].id
    assert deltas[0].function is not None
    assert deltas[0].function.name == "get_weather"
    arguments = "".join(c.function.arguments or "" for c in deltas if c.function)
    assert isinstance(json.loads(arguments), dict)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any("<tool_call" in (c.choices[0].delta.content or "") for c in chunks)


def test_a_picture_goes_along(client: OpenAI, gateway: LiveGateway) -> None:
    gateway.sandbox.state.reset()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    messages: list[Any] = [{"role": "user", "content": content}]

    answer = client.chat.completions.create(model="grok-4", messages=messages, stream=False)

    assert answer.choices[0].message.content
    state = gateway.sandbox.state
    assert state.violations == []
    if is_xai(gateway):
        sent = state.requests_to("/v1/chat/completions")[0].json()
        assert sent["messages"][0]["content"][1]["image_url"]["url"] == PICTURE
    else:
        uploads = state.requests_to("/http/upload-file-v2/direct")
        assert len(uploads) == 1
        assert PNG in uploads[0].body


def test_models_are_listed(client: OpenAI) -> None:
    ids = [model.id for model in client.models.list()]

    assert ids[0] == "grok-3"
    assert "grok-4-heavy" in ids
    assert client.models.retrieve("grok-4").id == "grok-4"


def failing(gateway: LiveGateway, prompt: str, **fields: Any) -> openai.APIStatusError:
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(
            **{"model": "grok-4", "messages": [{"role": "user", "content": prompt}], **fields}
        )
    return caught.value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("behaviour", "kind", "status", "code"),
    [
        ("badreq", openai.BadRequestError, 400, "invalid_request"),
        ("moderated", openai.BadRequestError, 400, "content_policy_violation"),
        ("limited", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("error500", openai.InternalServerError, 502, "upstream_error"),
        ("expired", openai.InternalServerError, 503, "upstream_unavailable"),
        ("silent", openai.InternalServerError, 504, "upstream_timeout"),
        ("challenge", openai.InternalServerError, 502, "upstream_session_rejected"),
    ],
)
def test_each_failure_is_the_class_its_status_means(
    sandbox: SandboxThread,
    behaviour: str,
    kind: type[openai.APIStatusError],
    status: int,
    code: str,
    stream: bool,
) -> None:
    with serve(sandbox, "rest-mode", [behaviour]) as gateway:
        error = failing(gateway, "Hello", stream=stream)

    assert type(error) is kind
    assert (error.status_code, error.code) == (status, code)
    if status == 429:
        assert error.response.headers["retry-after"] == "7"


def test_the_gateways_own_refusals_are_classes_too(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox) as gateway:
        wrong = failing(gateway, "Hello", model="gpt-4")
        with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
            with pytest.raises(openai.NotFoundError) as missing:
                client.models.retrieve("gpt-4")
            stranger = client.with_options(api_key="sk-wrong")
            with pytest.raises(openai.AuthenticationError) as refused:
                stranger.models.list()

    assert (type(wrong), wrong.code, wrong.param) == (
        openai.BadRequestError,
        "model_not_found",
        "model",
    )
    assert missing.value.code == "model_not_found"
    assert refused.value.code == "invalid_api_key"


def test_a_failure_in_mid_stream_is_raised_after_what_came_before(sandbox: SandboxThread) -> None:
    with (
        serve(sandbox, "rest-mode", ["cut"]) as gateway,
        OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        stream = client.chat.completions.create(model="grok-4", messages=HELLO, stream=True)
        seen = []
        with pytest.raises(openai.APIError) as caught:
            for chunk in stream:
                seen.append(chunk)

    assert seen
    assert caught.value.code == "upstream_incomplete"


def test_uploads_use_the_old_form_with_legacy_media(sandbox: SandboxThread) -> None:
    sandbox.state.reset()
    settings = {"grok.media_protocol": "legacy"}
    content = [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    with serve(sandbox, "rest-name", ["ok"], settings) as gateway:
        assert gateway.ask(messages=[{"role": "user", "content": content}]).status_code == 200

    uploaded = sandbox.state.requests_to("/rest/app-chat/upload-file")
    chat = sandbox.state.requests_to("/rest/app-chat/conversations/new")[0]
    assert base64.b64decode(uploaded[0].json()["content"]) == PNG
    assert len(chat.json()["fileAttachments"]) == 1
    assert chat.token == uploaded[0].token
