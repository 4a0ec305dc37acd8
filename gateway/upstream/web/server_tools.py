"""The tools upstream used by itself: counted, never shown (upstream-web 2.6, 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TOOLS = 1024
_CARD_IDS = frozenset({"toolUsageCardId", "tool_usage_card_id"})
_NAME_IN_TEXT = re.compile(
    r"<xai:tool_name>\s{0,8}(?:<!\[CDATA\[)?\s{0,8}([\w.-]{1,64})"
    r"\s{0,8}(?:\]\]>)?\s{0,8}</xai:tool_name>"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(slots=True)
class ServerTool:
    """One use; ``name`` in snake_case, ``finished`` once its result was seen."""

    name: str
    finished: bool = False


def _snake(name: str) -> str:
    return _HUMP.sub("_", name).lower()


def tool_name(card: Mapping[str, Any], text: str = "") -> str:
    """The tool a usage card is about, else the one named in the token's markup."""
    named = card.get("toolName") or card.get("tool_name")
    if isinstance(named, str):
        return _snake(named)
    for key, value in card.items():
        if key not in _CARD_IDS and isinstance(value, Mapping):
            return _snake(key)
    found = _NAME_IN_TEXT.search(text)
    return _snake(found[1]) if found else "unknown"


class ServerTools:
    """The uses of one answer by key; repeats of a key count once."""

    def __init__(self) -> None:
        self.uses: dict[str, ServerTool] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How often each tool was used."""
        counts: dict[str, int] = {}
        for use in self.uses.values():
            counts[use.name] = counts.get(use.name, 0) + 1
        return counts

    def opened(self, key: str, name: str) -> None:
        if key not in self.uses and len(self.uses) < MAX_TOOLS:
            self.uses[key] = ServerTool(name)

    def closed(self, key: str, name: str) -> None:
        """A result came. Without a key it belongs to the only open use of ``name``, if one is."""
        if key:
            if use := self.uses.get(key):
                use.finished = True
            return
        waiting = [use for use in self.uses.values() if not use.finished and use.name == name]
        if len(waiting) == 1:
            waiting[0].finished = True
