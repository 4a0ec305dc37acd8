"""Reading and judging what api.x.ai is asked (upstream-xai 3.1-3.4, 4)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.sandbox.answers import Answer, answer_to, tool_arguments
from gateway.sandbox.calls import Call, Refused, xai_refusal
from gateway.sandbox.xai_models import XaiModel, find_model

ROLES = frozenset({"system", "user", "assistant", "tool", "function", "developer"})
PART_TYPES = frozenset({"text", "image_url", "file", "text_file"})
REASONING_REFUSES = ("stop", "presence_penalty", "frequency_penalty")
MAX_TOOLS = 128


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A function the model chose to call; ``arguments`` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer: text, or one tool call; sizes are in tokens."""

    model: XaiModel
    answer: Answer
    tool: ToolRequest | None
    prompt_tokens: int

    @property
    def reasons(self) -> bool:
        return self.model.reasoning and self.answer.rich

    @property
    def completion_tokens(self) -> int:
        return 12 if self.tool is not None else max(1, len(self.answer.tokens))

    @property
    def reasoning_tokens(self) -> int:
        return 100 if self.reasons else 0


def text_of(content: Any) -> str:
    """The text of a message's content, parts joined with a newline."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def last_user_message(messages: Any) -> str:
    """The newest user message's text, empty where there is none."""
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def require_model(body: dict[str, Any]) -> XaiModel:
    """The language model asked for. Raises Refused with 422 or 404."""
    if not isinstance(body.get("model"), str):
        raise xai_refusal(422, "invalid-argument", "model: field required")
    model = find_model(body["model"])
    if model is None:
        raise xai_refusal(404, "not-found", "The model does not exist or is not available.")
    return model


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages. Raises Refused with 422 where they are not those of 3.1."""
    if not isinstance(messages, list) or not messages:
        raise xai_refusal(422, "invalid-argument", "messages: field required")
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise xai_refusal(422, "invalid-argument", "messages: unknown role")
        content = message.get("content")
        if isinstance(content, list):
            _check_parts(content)
        elif content is not None and not isinstance(content, str):
            raise xai_refusal(422, "invalid-argument", "messages: content")
        if role == "tool" and not message.get("tool_call_id"):
            raise xai_refusal(400, "invalid-argument", "tool_call_id is missing")
    return messages


def _check_parts(parts: Iterable[Any]) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PART_TYPES:
            raise xai_refusal(422, "invalid-argument", "messages: unknown content part")
        if kind == "image_url" and not isinstance(part.get("image_url"), dict):
            raise xai_refusal(422, "invalid-argument", "messages: image_url")


def check_options(body: dict[str, Any], model: XaiModel) -> None:
    """Raise Refused for what the model does not take (3.1, 3.2, 3.5)."""
    if "search_parameters" in body or "web_search_options" in body:
        raise xai_refusal(410, "gone", "Live search is deprecated.")
    if model.reasoning:
        for name in REASONING_REFUSES:
            if body.get(name) is not None:
                raise _invalid(f"Model {model.id} does not support parameter {name}.")
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in model.efforts:
        raise _invalid(f"Model {model.id} does not support parameter reasoningEffort.")
    tools = body.get("tools") or []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise _invalid("tools")
    _check_range(body, "temperature", 0, 2)
    _check_range(body, "top_p", 0, 1)


def _check_range(body: dict[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise xai_refusal(422, "invalid-argument", f"{name}: not a number")
    if not low <= value <= high:
        raise _invalid(f"{name} is out of range.")


def _invalid(message: str) -> Refused:
    return xai_refusal(400, "invalid-argument", message)


def chosen_tool(functions: list[dict[str, Any]], choice: Any, prompt: str) -> ToolRequest | None:
    """The function that ``tool_choice`` names, else the first; None for "none"."""
    if choice == "none" or not functions:
        return None
    wanted = functions[0]
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        named = [function for function in functions if function.get("name") == name]
        if not named:
            raise _invalid("tool_choice names an unknown tool.")
        wanted = named[0]
    context = prompt + json.dumps(wanted.get("parameters") or {})
    return ToolRequest(str(wanted["name"]), tool_arguments(context))


def chat_reply(call: Call) -> Reply:
    """Judge a chat completion request and decide what to answer. Raises Refused."""
    body = call.json()
    model = require_model(body)
    messages = checked_messages(body.get("messages"))
    check_options(body, model)
    prompt = last_user_message(messages)
    tool = None
    if messages[-1]["role"] != "tool":
        functions = [tool["function"] for tool in body.get("tools") or [] if "function" in tool]
        tool = chosen_tool(functions, body.get("tool_choice"), prompt)
    answer = answer_to(prompt)
    if _wants_json(body):
        answer = Answer((json.dumps({"said": prompt}, ensure_ascii=False),))
    return Reply(model, answer, tool, max(1, len(call.record.body) // 4))


def _wants_json(body: dict[str, Any]) -> bool:
    wanted = body.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")
