"""What a whole and correct answer to ``FRAMES:<n>`` looks like, per dialect.

Each check returns "" for a correct answer, else one line that says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

Dialect = Literal["openai", "grok"]
"""``openai``: chat completions; ``grok``: grok.com's own lines, as nginx passes them on."""

Check = Callable[[bytes], str]


def checker(dialect: Dialect, streaming: bool, frames: int, exact: bool) -> Check:
    """The check for one kind of answer.

    ``exact`` wants one content frame per token; without it frames may have been merged, and
    only the words and their order count.
    """
    expected = [f"w{number}" for number in range(frames)]
    if dialect == "grok":
        return lambda body: _compare(_grok_tokens(body), expected, exact)
    if streaming:
        return lambda body: _check_stream(body, expected, exact)
    return lambda body: _check_whole(body, expected)


def content_of(event: bytes) -> str | None:
    """The content of one SSE event; None for the end, "" for a chunk without content.

    Raises ValueError for anything that is not a chat.completion.chunk.
    """
    if not event.startswith(b"data:"):
        return ""
    data = event[5:].strip()
    if data == b"[DONE]":
        return None
    chunk = json.loads(data)
    if "error" in chunk:
        raise ValueError(f"an error event: {data[:200]!r}")
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def _check_stream(body: bytes, expected: list[str], exact: bool) -> str:
    *events, rest = body.split(b"\n\n")
    if rest.strip():
        return f"bytes after the last event: {rest[:80]!r}"
    try:
        contents = [content_of(event) for event in events]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"an event that is no chunk: {error}"
    if not contents or contents[-1] is not None:
        return "no [DONE] at the end"
    if None in contents[:-1]:
        return "an event after [DONE]"
    if body.count(b'"finish_reason":"stop"') + body.count(b'"finish_reason": "stop"') != 1:
        return 'not exactly one finish_reason "stop"'
    return _compare([text for text in contents if text], expected, exact)


def _check_whole(body: bytes, expected: list[str]) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        content, reason = choice["message"]["content"], choice["finish_reason"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"not a chat.completion: {error!r}"
    if reason != "stop":
        return f"finish_reason is {reason!r}"
    return _compare([content], expected, exact=False)


def _grok_tokens(body: bytes) -> list[str]:
    tokens: list[str] = []
    for line in body.splitlines():
        response: dict[str, Any] = json.loads(line).get("result", {}).get("response", {})
        if response.get("token"):
            tokens.append(response["token"])
    return tokens


def _compare(texts: list[Any], expected: list[str], exact: bool) -> str:
    if exact and len(texts) != len(expected):
        return f"{len(texts)} content frames instead of {len(expected)}"
    found = [text.strip() for text in texts] if exact else "".join(texts).split()
    if found == expected:
        return ""
    if sorted(found) == sorted(expected):
        return "frames out of order"
    return f"wrong content: {' '.join(found)[:80]!r}"
