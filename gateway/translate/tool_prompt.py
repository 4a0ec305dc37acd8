"""Function tools for an upstream that has none: asked for in the prompt, found in the answer.

See "Function tools" of upstream-web section 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import Enum

from gateway.translate.tool_markup import read_calls, write_calls
from gateway.upstream.events import ToolCall
from gateway.upstream.requests import FunctionTool, ToolChoice

_TAG = r"<(tool_calls?|function_calls?|invoke)(?:\s[^<>]{0,256})?"
_OPEN = re.compile(_TAG + r">\s*(?=[<{[]|```)", re.IGNORECASE | re.ASCII)
"""What follows the tag must look like a call, or prose about such tags would be held back."""
_UNDECIDED = re.compile(_TAG + r"(?:>\s*`{0,2})?\Z", re.IGNORECASE | re.ASCII)
_OPENINGS = ("<tool_calls", "<tool_call", "<function_calls", "<function_call", "<invoke")
_CLOSE = {
    opening[1:]: re.compile(f"</{opening[1:]}>", re.IGNORECASE | re.ASCII) for opening in _OPENINGS
}
_LONGEST_CLOSE = len("</function_calls>")
_FENCES = ("```json", "```")
_BODY_KEY = '"tool_calls"'
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_ID_PREFIX = "call_"


def render_tools(
    tools: Sequence[FunctionTool], choice: ToolChoice, parallel: bool | None = None
) -> str:
    """The instructions that give ``tools`` to the model; "" when it is to call none."""
    if not tools or choice.mode == "none":
        return ""
    form = write_calls([("NAME", '{"argument": "value"}')])
    several = (
        "Make at most one call per answer."
        if parallel is False
        else "Put several independent calls into one block, one <tool_call> element each."
    )
    return "\n".join(
        [
            "These functions belong to the program you are talking to. It runs a call you write"
            " and sends back the result in a later message.",
            *map(_render_tool, tools),
            "A call is written exactly so, as plain text outside any code fence, with the"
            " arguments as one JSON object that fits the schema:",
            form,
            several,
            "Write nothing after the block, and never make up a result.",
            _when_to_call(choice),
        ]
    )


def _render_tool(tool: FunctionTool) -> str:
    schema = json.dumps(tool.parameters or {"type": "object", "properties": {}}, ensure_ascii=False)
    lines = [f'<tool name="{tool.name}">', tool.description.strip(), f"Arguments: {schema}"]
    return "\n".join([*filter(None, lines), "</tool>"])


def _when_to_call(choice: ToolChoice) -> str:
    if choice.mode == "function":
        return f"This answer must call the function {choice.name}."
    if choice.mode == "required":
        return "This answer must call at least one of the functions."
    return "Call a function when it helps to answer; otherwise answer as usual, without a block."


class _State(Enum):
    START = "nothing but white space so far: the answer may be one JSON body"
    TEXT = "ordinary text"
    BLOCK = "inside call markup, waiting for its end"
    BODY = "the whole answer is a JSON body"
    AFTER = "calls were made: only a further block may follow directly"
    DONE = "nothing more is of interest"


class ToolCallFilter:
    """Takes the calls out of an answer that arrives in pieces.

    However the pieces are cut, the texts returned add up to the same text and the calls
    are the same. Markup that yields no call of a declared tool comes out as it came in;
    once a call was found, later text is dropped. ``new_id`` gives the 24 characters that
    follow "call_" in an id.
    """

    def __init__(self, tools: Sequence[FunctionTool], new_id: Callable[[], str]) -> None:
        self._names = frozenset(tool.name for tool in tools)
        self._new_id = new_id
        self._state = _State.START
        self._held = ""
        self._called = False
        self._close = _CLOSE["tool_calls"]
        self._searched = self._counted = 0
        self._in_string = False

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """Take a piece of the answer; the text now known to be text, and the calls found."""
        if self._state is _State.TEXT and not self._held and "<" not in text:
            return text, []
        self._held += text
        released: list[str] = []
        calls: list[ToolCall] = []
        while self._step(released, calls):
            pass
        return "".join(released), calls

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The answer is complete: what was held back, as calls or as text."""
        held, state = self._held, self._state
        self._held, self._state = "", _State.DONE
        calls = self._calls_in(held) if state in (_State.BLOCK, _State.BODY) else []
        return ("" if calls or self._called else held), calls

    def _step(self, released: list[str], calls: list[ToolCall]) -> bool:
        """Do what the state asks for; whether there may be more to do."""
        match self._state:
            case _State.START:
                return self._begin(released)
            case _State.TEXT:
                return self._scan(released)
            case _State.BLOCK:
                return self._look_for_close(released, calls)
            case _State.AFTER:
                return self._look_for_more()
            case _State.DONE:
                self._held = ""
        return False

    def _begin(self, released: list[str]) -> bool:
        rest = self._held.lstrip()
        released.append(self._held[: len(self._held) - len(rest)])
        self._held = rest
        verdict = _is_json_body(rest) if rest else None
        if verdict is None:
            return False
        self._state = _State.BODY if verdict else _State.TEXT
        return True

    def _scan(self, released: list[str]) -> bool:
        opening = _OPEN.search(self._held)
        cut = opening.start() if opening else _end_of_plain_text(self._held)
        released.append(self._held[:cut])
        self._held = self._held[cut:]
        if opening:
            self._enter_block(opening[1])
        return opening is not None

    def _enter_block(self, tag: str) -> None:
        self._state = _State.BLOCK
        self._close = _CLOSE[tag.lower()]
        self._searched = self._counted = 0
        self._in_string = False

    def _look_for_close(self, released: list[str], calls: list[ToolCall]) -> bool:
        close = self._close.search(self._held, self._searched)
        if close is None:
            self._searched = max(self._searched, len(self._held) - _LONGEST_CLOSE)
            return False
        piece = _ESCAPE.sub("", self._held[self._counted : close.start()])
        self._in_string ^= piece.count('"') % 2 == 1
        self._searched = self._counted = close.end()
        if not self._in_string:
            self._end_block(close.end(), released, calls)
        return True

    def _end_block(self, end: int, released: list[str], calls: list[ToolCall]) -> None:
        raw, self._held = self._held[:end], self._held[end:]
        found = self._calls_in(raw)
        calls += found
        if found:
            self._state, self._called = _State.AFTER, True
        elif self._called:
            self._state = _State.DONE
        else:
            released.append(raw)
            self._state = _State.TEXT

    def _look_for_more(self) -> bool:
        self._held = self._held.lstrip()
        if opening := _OPEN.match(self._held):
            self._enter_block(opening[1])
        elif _end_of_plain_text(self._held) > 0:
            self._state = _State.DONE
        else:
            return False
        return True

    def _calls_in(self, raw: str) -> list[ToolCall]:
        return [
            ToolCall(_ID_PREFIX + self._new_id(), name, arguments)
            for name, arguments in read_calls(raw)
            if name in self._names
        ]


def _end_of_plain_text(text: str) -> int:
    """Where the tail begins that may yet become an opening; the length if there is none."""
    at = text.rfind("<")
    if at < 0:
        return len(text)
    tail = text[at:]
    may_become = _UNDECIDED.match(tail) or any(
        opening.startswith(tail.lower()) for opening in _OPENINGS
    )
    return at if may_become else len(text)


def _is_json_body(text: str) -> bool | None:
    """Whether an answer that begins so is a ``{"tool_calls": ...}`` body; None: unclear yet."""
    if text.startswith("`"):
        line, newline, text = text.partition("\n")
        fence = line.strip().lower()
        if not newline:
            return None if any(known.startswith(fence) for known in _FENCES) else False
        if fence not in _FENCES:
            return False
        text = text.lstrip()
        if not text:
            return None
    if not text.startswith("{"):
        return False
    key = text[1:].lstrip()
    if key.startswith(_BODY_KEY):
        return True
    return None if _BODY_KEY.startswith(key) else False
