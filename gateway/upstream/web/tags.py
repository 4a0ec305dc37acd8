"""Which markup is hidden, and how to recognise it when only a part has arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

RENDER_TAG = "grok:render"
ALWAYS_HIDDEN = (RENDER_TAG, "xai:tool_usage_card", "xaiartifact")
"""Never reaches a client, whatever the settings say (upstream-web 2.6)."""

_NAME = re.compile(r"[\w:.-]{1,64}")


class Tags:
    """The hidden tag names, compiled.

    A tag is hidden if its name *begins* with one of the names, in any case; of two names
    of which one begins the other, the shorter therefore stands for both.
    """

    __slots__ = ("_partial", "closers", "longest", "start")

    def __init__(self, names: Iterable[str]) -> None:
        kept = _shortest_forms(names)
        literals = [f"<{slash}{name}" for name in kept for slash in ("", "/")]
        cut = {literal[:size] for literal in literals for size in range(1, len(literal))}
        flags = re.IGNORECASE
        self.start = re.compile("<(/?)(" + "|".join(map(re.escape, kept)) + ")", flags)
        self.closers = {name: re.compile(re.escape(f"</{name}"), flags) for name in kept}
        self.longest = max(map(len, literals))
        self._partial = re.compile("|".join(sorted(map(re.escape, cut), reverse=True)), flags)

    def partial(self, text: str) -> int:
        """Where a hidden tag's start, cut off at the end of ``text``, begins; else its length."""
        at = text.rfind("<", -self.longest)
        return at if at >= 0 and self._partial.fullmatch(text, at) else len(text)

    def is_partial(self, text: str) -> bool:
        return self._partial.fullmatch(text) is not None

    def closer(self, name: str) -> re.Pattern[str]:
        """The pattern of the closing tag for an opening tag written ``name``."""
        known = self.closers.get(name.lower())
        return known or re.compile(re.escape(f"</{name}"), re.IGNORECASE)


def _shortest_forms(names: Iterable[str]) -> list[str]:
    tidy = {name.strip(" <>/").lower() for name in names}
    valid = sorted((name for name in tidy if _NAME.fullmatch(name)), key=len)
    kept: list[str] = []
    for name in valid:
        if not name.startswith(tuple(kept)):
            kept.append(name)
    return kept


@lru_cache(maxsize=32)
def _compiled(names: tuple[str, ...]) -> Tags:
    return Tags((*ALWAYS_HIDDEN, *names))


def hidden_tags(filter_tags: Sequence[str]) -> Tags:
    """The built-in hidden tags and those of ``grok.filter_tags``, compiled once."""
    return _compiled(tuple(filter_tags))
