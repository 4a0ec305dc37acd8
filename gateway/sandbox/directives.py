"""What a prompt asks the sandbox itself to do, and where in a prompt to look."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.sandbox.behaviours import Behaviour, behaviour_named

MAX_FRAMES = 100_000
_FRAMES = re.compile(r"FRAMES:(\d{1,6})(?:x(\d{1,5}))?")
_FORCED = re.compile(r"SANDBOX:([a-z0-9-]+)")
_TOOL = re.compile(r'<tool name="([A-Za-z0-9_-]{1,64})">')
_ROLES = ("system: ", "user: ", "assistant: ", "developer: ", "tool: ")
_TURNS = ("[system]\n", "[user]\n", "[assistant]\n", "[developer]\n", "[tool]\n")


@dataclass(frozen=True, slots=True)
class Frames:
    """``FRAMES:<count>x<pause_ms>``: that many answer tokens, that long apart."""

    count: int
    pause_ms: int


def frames_wanted(prompt: str) -> Frames | None:
    """The last ``FRAMES:`` of a prompt."""
    at = prompt.rfind("FRAMES:")
    found = _FRAMES.match(prompt, at) if at >= 0 else None
    if found is None:
        return None
    return Frames(min(int(found[1]), MAX_FRAMES), int(found[2] or 0))


def forced_behaviour(prompt: str) -> Behaviour | None:
    """The behaviour of the last ``SANDBOX:<name>`` of a prompt, if that is a known one."""
    at = prompt.rfind("SANDBOX:")
    found = _FORCED.match(prompt, at) if at >= 0 else None
    return behaviour_named(found[1].strip("-")) if found else None


def last_user_text(message: str) -> str:
    """The newest user turn of a flattened conversation (upstream-web section 4).

    Knows the ``[role]`` form and the ``role: text`` form whose last user turn is bare; a
    message in neither form is a user's turn as a whole.
    """
    at = message.rfind("[user]\n")
    if at >= 0:
        text = message[at + 7 :]
        ends = [end for turn in _TURNS if (end := text.find("\n\n" + turn)) >= 0]
        return text[: min(ends)] if ends else text.strip()
    paragraphs = message.split("\n\n")
    spoken = [i for i, text in enumerate(paragraphs) if text.startswith(_ROLES)]
    start = spoken[-1] + 1 if spoken else 0
    if start >= len(paragraphs):
        return paragraphs[-1].partition(": ")[2]
    return "\n\n".join(paragraphs[start:])


def declared_tools(message: str) -> list[str]:
    """Names of the function tools a flattened conversation declares."""
    return _TOOL.findall(message) if "<tool name=" in message else []
