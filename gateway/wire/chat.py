"""``POST /v1/chat/completions``: what a client may send (http-contract 5.2; OpenAI's API).

Unknown fields are ignored. Fields that only api.x.ai understands are kept under its names.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class WireModel(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class FunctionCall(WireModel):
    name: str
    arguments: str = ""


class MessageToolCall(WireModel):
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(WireModel):
    """``content`` blocks are checked one by one later, so that the error can name the block."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[Any] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class FunctionDefinition(WireModel):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(WireModel):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(WireModel):
    name: str


class NamedToolChoice(WireModel):
    type: Literal["function"]
    function: NamedFunction


class StreamOptions(WireModel):
    include_usage: bool | None = None


class VideoConfig(WireModel):
    """Values are checked by hand: the contract has codes of its own for them."""

    aspect_ratio: str | None = None
    video_length: int | None = None
    resolution: str | None = None
    preset: str | None = None


class ChatCompletionRequest(WireModel):
    model: str
    messages: list[Message]
    stream: bool | None = None
    """Null or absent: the operator's ``grok.stream``."""
    stream_options: StreamOptions | None = None
    thinking: str | None = None
    """``enabled`` or ``disabled``; anything else means the operator's ``grok.thinking``."""
    video_config: VideoConfig | None = None
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    n: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning_effort: str | None = None
    response_format: dict[str, JsonValue] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None


PASSED_ON = (
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop",
    "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "reasoning_effort",
    "response_format", "service_tier", "prompt_cache_key", "user",
)  # fmt: skip
"""The sampling fields that api.x.ai takes under the same name (upstream-xai 3.1)."""
