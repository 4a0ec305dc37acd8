"""From a chat completions body to the one request every upstream understands."""

from __future__ import annotations

from typing import Any

from gateway.translate.content_blocks import parse_content
from gateway.upstream.requests import (
    ChatRequest,
    FunctionTool,
    ToolChoice,
    ToolInvocation,
    Turn,
)
from gateway.wire.chat import PASSED_ON, ChatCompletionRequest, Message, VideoConfig
from gateway.wire.errors import bad_request

ASPECT_RATIOS = ("2:3", "3:2", "1:1", "9:16", "16:9")
RESOLUTIONS = ("SD", "HD")
PRESETS = ("fun", "normal", "spicy", "custom")


def to_request(body: ChatCompletionRequest, *, stream: bool) -> ChatRequest:
    """Raises ApiError 400 for what the schema alone cannot see."""
    if body.n is not None and body.n > 1:
        raise bad_request("Only one choice per request is supported.", "invalid_value", "n")
    if not body.messages:
        raise bad_request("There are no messages.", "empty_messages", "messages")
    if body.video_config is not None:
        check_video_config(body.video_config)
    tools = tuple(
        FunctionTool(
            tool.function.name,
            tool.function.description or "",
            tool.function.parameters,
            tool.function.strict,
        )
        for tool in body.tools or ()
    )
    return ChatRequest(
        model=body.model,
        turns=tuple(_turn(message, i) for i, message in enumerate(body.messages)),
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        parallel_tool_calls=body.parallel_tool_calls,
        stream=stream,
        options=_options(body),
    )


def _turn(message: Message, index: int) -> Turn:
    calls = tuple(
        ToolInvocation(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    )
    parts = parse_content(
        message.content,
        f"messages.{index}.content",
        role=message.role,
        may_be_empty=message.role == "tool" or bool(calls),
    )
    return Turn(
        role=message.role,
        parts=parts,
        name=message.name,
        tool_calls=calls,
        tool_call_id=message.tool_call_id,
        reasoning=message.reasoning_content,
    )


def _tool_choice(body: ChatCompletionRequest, tools: tuple[FunctionTool, ...]) -> ToolChoice:
    choice = body.tool_choice
    if choice is None:
        return ToolChoice()
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise bad_request("A required call needs tools.", "invalid_value", "tool_choice")
        return ToolChoice(choice)
    name = choice.function.name
    if name not in {tool.name for tool in tools}:
        message = "The chosen function is not among the tools."
        raise bad_request(message, "invalid_value", "tool_choice.function.name")
    return ToolChoice("function", name)


def _options(body: ChatCompletionRequest) -> dict[str, Any]:
    given = body.model_fields_set
    return {
        name: value
        for name in PASSED_ON
        if name in given and (value := getattr(body, name)) is not None
    }


def check_video_config(config: VideoConfig) -> None:
    """The contract's own codes; an empty value means the default."""
    if config.aspect_ratio and config.aspect_ratio not in ASPECT_RATIOS:
        _refuse("aspect_ratio", ", ".join(ASPECT_RATIOS))
    if config.video_length is not None and not 5 <= config.video_length <= 15:
        _refuse("video_length", "a whole number from 5 to 15")
    if config.resolution and config.resolution not in RESOLUTIONS:
        _refuse("resolution", ", ".join(RESOLUTIONS))
    if config.preset and config.preset not in PRESETS:
        _refuse("preset", ", ".join(PRESETS))


def _refuse(field: str, allowed: str) -> None:
    path = f"video_config.{field}"
    raise bad_request(f"{path} must be one of: {allowed}.", f"invalid_{field}", path)
