"""Token counts for clients: measured, estimated (and saying so), or absent."""

from __future__ import annotations

from typing import Any

from gateway.upstream.events import Usage

CHARACTERS_PER_TOKEN = 4
"""The web upstream reports no tokens; characters over four, rounded up (upstream-web 4)."""


def estimate(prompt: int, answer: int, reasoning: int) -> Usage:
    """An estimate from lengths in characters."""

    def tokens(characters: int) -> int:
        return -(-characters // CHARACTERS_PER_TOKEN)

    return Usage(tokens(prompt), tokens(answer), tokens(reasoning), estimated=True)


def chat_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage``: there ``completion_tokens`` includes the reasoning tokens."""
    completion = usage.completion + usage.reasoning
    shape: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": completion,
        "total_tokens": usage.prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    if usage.estimated:
        shape["estimated"] = True
    return shape
