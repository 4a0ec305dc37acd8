"""What the simulated model says, before any protocol dresses it up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from gateway.sandbox.directives import Frames, declared_tools, frames_wanted, last_user_text

MAX_ECHO = 2000
SOURCE_URL = "https://example.org/tide"
SOURCE_TITLE = "Tides"
POST = {"username": "sea", "postId": "42", "text": "high tide"}
CARD_ID = "c1"
RENDER_TAG = (
    f'<grok:render card_id="{CARD_ID}" card_type="citation_card" type="render_inline_citation">'
    '<argument name="citation_id">0</argument></grok:render>'
)
TAIL = (" **Merci** — voilà, ", "你好 ", "👋🏽", "\n\n| a | b |\n|---|---|\n", "| 1 | 2 < 3 |\n")
REASONING = ("Checking sources", "Thinking about it: 你好. ", "Done thinking.")


@dataclass(frozen=True, slots=True)
class Answer:
    """``tokens`` make up the answer; ``rich`` ones come with thinking, searches and cards.

    ``citation_after`` is how many tokens precede the citation of SOURCE_URL, None for none.
    """

    tokens: tuple[str, ...]
    rich: bool = True
    citation_after: int | None = None
    pause_ms: int = 0

    @property
    def text(self) -> str:
        """The answer without markup."""
        return "".join(self.tokens)


def expected_text(prompt: str) -> str:
    """The default answer to a prompt as a client should see it, citations left out."""
    return echo(prompt).text


def echo(prompt: str) -> Answer:
    """The default answer: repeats the prompt, then text that is hard to cut right."""
    words = prompt[:MAX_ECHO].split(" ")
    pieces = [word + " " for word in words[:-1]] + words[-1:]
    head = ("You said: ", *filter(None, pieces))
    return Answer((*head, *TAIL), citation_after=len(head))


@lru_cache(maxsize=64)
def counted(frames: Frames) -> Answer:
    """Exactly ``frames.count`` tokens and nothing else."""
    tokens = tuple(f"w{number} " for number in range(frames.count))
    return Answer(tokens, rich=False, pause_ms=frames.pause_ms)


def tool_arguments(text: str) -> str:
    """Arguments of a tool call, as JSON text."""
    return json.dumps({"city": "Paris"} if "city" in text else {})


def _tool_call_markup(name: str, arguments: str) -> Answer:
    markup = (
        f"<tool_calls><tool_call><tool_name>{name}</tool_name>"
        f"<parameters>{arguments}</parameters></tool_call></tool_calls>"
    )
    return Answer(tuple(markup[at : at + 9] for at in range(0, len(markup), 9)))


def web_answer(message: str) -> Answer:
    """The answer to a flattened conversation (upstream-web section 4).

    The first declared function tool is called in XML unless a tool has answered already.
    """
    if "Tool result (" not in message:
        tools = declared_tools(message)
        if tools:
            return _tool_call_markup(tools[0], tool_arguments(message))
    return answer_to(last_user_text(message))


def answer_to(prompt: str) -> Answer:
    """The answer to one user turn: counted frames if asked for, else the echo."""
    frames = frames_wanted(prompt)
    return echo(prompt) if frames is None else counted(frames)
