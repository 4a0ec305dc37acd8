"""A chat request in api.x.ai's dialect (upstream-xai 3.1, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

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

_NOT_SENT = {"logit_bias", "deferred"}
"""Unsupported there, and a mode whose answer is a ticket instead of a completion."""


def chat_body(request: ChatRequest, model: str) -> bytes:
    """The JSON body; ``model`` is api.x.ai's id.

    Raises RequestRejected for a part api.x.ai has no form for, or text that is not
    valid Unicode.
    """
    body: dict[str, Any] = {
        key: value
        for key, value in request.options.items()
        if value is not None and key not in _NOT_SENT
    }
    body["model"] = model
    body["messages"] = [_message(turn) for turn in request.turns]
    body["stream"] = request.stream
    body.pop("stream_options", None)
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body |= _tool_fields(request)
    try:
        return to_json(body, inf_nan_mode="null")
    except PydanticSerializationError as error:
        raise RequestRejected("The request is not valid JSON text.", row=8) from error


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "system" if turn.role == "developer" else turn.role,
        "content": _content(turn),
    }
    if turn.name is not None:
        message["name"] = turn.name
    if turn.reasoning and turn.role == "assistant":
        message["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [_invocation(call) for call in turn.tool_calls]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    """A string where there is only text to say and the parts' borders mean nothing."""
    texts = [part.text for part in turn.parts if isinstance(part, TextPart)]
    if len(texts) == len(turn.parts) and (len(texts) <= 1 or turn.role != "user"):
        return "\n".join(texts)
    return [_part(part) for part in turn.parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.url, **detail}}
        case FilePart():
            return {"type": "file", "file": _file(part)}
        case AudioPart():
            raise RequestRejected(
                "Content of type input_audio is not supported by this model's upstream.", row=8
            )


def _file(part: FilePart) -> dict[str, str]:
    is_remote = part.source.startswith(("http://", "https://"))
    source = {"file_url" if is_remote else "file_data": part.source}
    return source if part.name is None else {"filename": part.name, **source}


def _invocation(call: ToolInvocation) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _tool_fields(request: ChatRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in request.tools]}
    if request.tool_choice.mode != "auto":
        fields["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _tool(tool: FunctionTool) -> dict[str, Any]:
    no_arguments: Mapping[str, Any] = {"type": "object", "properties": {}}
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": no_arguments if tool.parameters is None else tool.parameters,
    }
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "function":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode
