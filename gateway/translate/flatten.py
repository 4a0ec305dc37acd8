"""A whole conversation as the one string that grok.com's chat takes.

The form is column B of upstream-web section 4: every turn is ``[role]``, a line break
and its text, turns are separated by a blank line. A tool's result is a turn of its own,
``[tool]`` with "Tool result (<id>): text"; calls of the history are written as the
function-tool prompt asks for them, so that the model sees its own form again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.translate.tool_markup import write_calls
from gateway.translate.tool_prompt import render_tools
from gateway.upstream.requests import ChatRequest, ImagePart, Part, TextPart, Turn


class EmptyPrompt(ValueError):
    """The conversation has neither text nor attachment."""


@dataclass(frozen=True, slots=True)
class Flattened:
    """The prompt, and the parts to upload with it in the order of the conversation."""

    prompt: str
    file_parts: tuple[Part, ...]


def flatten(request: ChatRequest) -> Flattened:
    """The request's turns as one prompt, led by a ``[system]`` turn for its tools.

    Turns without text are left out. Equal parts are uploaded once; pictures count only
    in user turns, so that what an assistant drew is not fed back as input. Raises
    EmptyPrompt.
    """
    turns = [_render(turn.role, text) for turn in request.turns if (text := _text_of(turn))]
    parts = tuple(dict.fromkeys(_file_parts(request)))
    if not turns and not parts:
        raise EmptyPrompt("The messages contain no text and no attachment.")
    tools = render_tools(request.tools, request.tool_choice, request.parallel_tool_calls)
    if tools:
        turns.insert(0, _render("system", tools))
    return Flattened("\n\n".join(turns).strip(), parts)


def _render(role: str, text: str) -> str:
    return f"[{'system' if role == 'developer' else role}]\n{text}"


def _text_of(turn: Turn) -> str:
    """The text of a turn, "" when there is nothing but white space in it."""
    text = "\n".join(part.text for part in turn.parts if isinstance(part, TextPart))
    if turn.role == "tool":
        label = f"Tool result ({turn.tool_call_id}):" if turn.tool_call_id else "Tool result:"
        return f"{label} {text}".rstrip()
    pieces = [text] if text.strip() else []
    if turn.tool_calls:
        pieces.append(write_calls((call.name, call.arguments) for call in turn.tool_calls))
    return "\n".join(pieces)


def _file_parts(request: ChatRequest) -> Iterator[Part]:
    for turn in request.turns:
        for part in turn.parts:
            if isinstance(part, TextPart):
                continue
            if turn.role == "user" or not isinstance(part, ImagePart):
                yield part
