"""Requests in api.x.ai's dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.upstream.errors import RequestRejected
from gateway.upstream.requests import (
    AudioPart,
    ChatRequest,
    FilePart,
    FunctionTool,
    ImagePart,
    Part,
    TextPart,
    ToolChoice,
    ToolInvocation,
    Turn,
)
from gateway.upstream.xai.payload import chat_body

HELLO = Turn("user", (TextPart("Hi"),))


def body(request: ChatRequest) -> Any:
    return json.loads(chat_body(request, "grok-4.3"))


def message(turn: Turn) -> Any:
    return body(ChatRequest("grok-4", (turn,)))["messages"][0]


def test_it_works() -> None:
    assert body(ChatRequest("grok-4", (HELLO,), options={"temperature": 0.5})) == {
        "model": "grok-4.3",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "temperature": 0.5,
    }


def test_it_always_asks_for_usage_when_streaming() -> None:
    options = {"stream_options": {"include_usage": False}}
    streamed = body(ChatRequest("grok-4", (HELLO,), stream=True, options=options))
    assert streamed["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body(ChatRequest("grok-4", (HELLO,), options=options))


def test_it_lets_no_option_replace_what_is_ours() -> None:
    options = {"model": "x", "messages": [], "stream": True, "logit_bias": {}, "deferred": True}
    assert body(ChatRequest("grok-4", (HELLO,), options=options)) == body(
        ChatRequest("grok-4", (HELLO,))
    )


def test_it_passes_what_reasoning_models_refuse_so_that_the_client_sees_it() -> None:
    options = {"stop": ["x"], "presence_penalty": 1, "frequency_penalty": 1, "seed": None}
    sent = body(ChatRequest("grok-4", (HELLO,), options=options))
    assert sent.keys() >= {"stop", "presence_penalty", "frequency_penalty"}
    assert "seed" not in sent


def test_it_calls_a_developer_a_system() -> None:
    assert message(Turn("developer", (TextPart("Be brief."),))) == {
        "role": "system",
        "content": "Be brief.",
    }


def test_it_writes_every_kind_of_part() -> None:
    parts: tuple[Part, ...] = (
        TextPart("See"),
        ImagePart("https://example.org/a.png", "low"),
        ImagePart("data:image/png;base64,AA=="),
        FilePart("data:application/pdf;base64,AA==", "a.pdf"),
        FilePart("https://example.org/b.pdf"),
    )
    assert message(Turn("user", parts))["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        },
        {"type": "file", "file": {"file_url": "https://example.org/b.pdf"}},
    ]


def test_it_refuses_sound_by_name() -> None:
    with pytest.raises(RequestRejected, match="input_audio"):
        message(Turn("user", (TextPart("Listen"), AudioPart("AA==", "wav"))))


def test_it_writes_a_round_of_tool_use() -> None:
    call = Turn(
        "assistant",
        (),
        tool_calls=(ToolInvocation("call_1", "f", '{"a":1}'),),
        reasoning="Let me see.",
    )
    assert message(call) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Let me see.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a":1}'},
            }
        ],
    }
    result = Turn("tool", (TextPart("1"), TextPart("2")), name="f", tool_call_id="call_1")
    assert message(result) == {
        "role": "tool",
        "name": "f",
        "content": "1\n2",
        "tool_call_id": "call_1",
    }


def test_it_declares_tools() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    request = ChatRequest(
        "grok-4",
        (HELLO,),
        tools=(FunctionTool("f", "Does f.", schema, strict=True), FunctionTool("g")),
        tool_choice=ToolChoice("function", "f"),
        parallel_tool_calls=False,
    )
    sent = body(request)
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "Does f.",
                "parameters": schema,
                "strict": True,
            },
        },
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
        },
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert sent["parallel_tool_calls"] is False


@pytest.mark.parametrize("mode", ["none", "required"])
def test_it_passes_a_tool_mode_only_beside_tools(mode: Any) -> None:
    choice = ToolChoice(mode)
    with_tools = ChatRequest("grok-4", (HELLO,), (FunctionTool("f"),), choice)
    assert body(with_tools)["tool_choice"] == mode
    assert "tool_choice" not in body(ChatRequest("grok-4", (HELLO,), (), choice))


def test_it_refuses_text_that_is_not_unicode() -> None:
    with pytest.raises(RequestRejected):
        message(Turn("user", (TextPart("\ud800"),)))
