"""Web accounts as the sandbox keeps them: identity, tier, counters, what they own."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.sandbox.behaviours import BEHAVIOURS, Behaviour

DAY = 86400
_NAMESPACE = uuid.UUID("6f1c2c1e-7a5d-4b5e-9f5e-2b1f3a6f0c11")
TIERS: Mapping[str, Mapping[str, int]] = {
    "basic": {"auto": 20, "fast": 30},
    "super": {"auto": 50, "fast": 140, "expert": 50, "grok-420-computer-use-sa": 50},
    "heavy": {
        "auto": 150,
        "fast": 400,
        "expert": 150,
        "heavy": 20,
        "grok-420-computer-use-sa": 150,
    },
}
"""Queries per window, by tier and mode (upstream-web 6.2)."""
MODEL_TOTALS = {"basic": 80, "super": 140, "heavy": 400}
"""The older per-model budget (upstream-web 6.1)."""
MODELS = frozenset(
    {"grok-3", "grok-4", "grok-4-mini", "grok-4-heavy", "grok-4-1-thinking-1129", "grok-420"}
)
MODES = frozenset({"auto", "fast", "expert", "heavy", "grok-420-computer-use-sa"})
MEDIA_TOTALS: Mapping[str, Mapping[str, int]] = {
    "basic": {"image_pro": 5, "video_720p": 2},
    "super": {"image_pro": 50, "image_edit": 20, "video": 20, "video_720p": 10},
    "heavy": {"image_pro": 200, "image_edit": 80, "video": 80, "video_720p": 40},
}
"""Pictures and videos per day, by tier and product (upstream-web 6.3; totals are ours)."""


def user_id_of(token: str) -> str:
    """The account UUID, always the same for one token."""
    return str(uuid.uuid5(_NAMESPACE, token))


def tier_of(token: str, behaviour: Behaviour) -> str:
    """``basic``, ``super``, ``heavy`` or ``unlimited``: the word after the behaviour's name."""
    rest = token.removeprefix(behaviour.name).lstrip("-")
    word = rest.partition("-")[0]
    return word if word in ("super", "heavy", "unlimited") else "basic"


def team_of(name: str) -> str:
    """The xAI team of a key: what follows ``-team-``, else one of its own."""
    named = name.partition("-team-")[2]
    return f"t-{named}" if named else f"t-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(slots=True)
class Counter:
    """A quota that falls by use and stands at its total again when its window is over."""

    total: int
    window_s: int
    ends_at: float
    used: int = 0

    def remaining(self, now: float) -> int:
        if now >= self.ends_at:
            self.used = 0
            self.ends_at = now + self.window_s
        return max(0, self.total - self.used)


@dataclass(slots=True, repr=False)
class WebAccount:
    """One grok.com account; ``settings`` is what the account-setting calls left."""

    token: str
    behaviour: Behaviour
    user_id: str
    tier: str
    counters: dict[str, Counter] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> str:
        """The tier whose totals apply; ``unlimited`` looks like heavy and never falls."""
        return "heavy" if self.tier == "unlimited" else self.tier

    def counter(self, bucket: str, now: float) -> Counter:
        """The counter of a mode, a model or a media product, made on first use."""
        found = self.counters.get(bucket)
        if found is None:
            total, window_s = self._size(bucket)
            found = self.counters[bucket] = Counter(total, window_s, now + window_s)
            if self.behaviour.name in _SPENT:
                found.used = total
        return found

    def _size(self, bucket: str) -> tuple[int, int]:
        window_s = DAY if self.shape == "basic" else 7200
        if bucket in MODES:
            return TIERS[self.shape].get(bucket, 0), window_s
        if bucket in MODELS:
            return MODEL_TOTALS[self.shape], window_s
        return MEDIA_TOTALS[self.shape].get(bucket, 0), DAY

    def spend(self, bucket: str, amount: int, now: float) -> None:
        """Let a counter fall."""
        if self.tier != "unlimited":
            counter = self.counter(bucket, now)
            counter.used = min(counter.total, counter.used + amount)
            counter.remaining(now)


_SPENT = frozenset(name for name in BEHAVIOURS if name.startswith("limited"))


def open_account(token: str, behaviour: Behaviour) -> WebAccount:
    """The account a cookie belongs to, as it is before any use."""
    return WebAccount(token, behaviour, user_id_of(token), tier_of(token, behaviour))
