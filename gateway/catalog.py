"""The public models: one table, and the lookups on it.

Names on grok.com are those of upstream-web 2.8 (Gen 1: ``name`` + ``mode_enum``; Gen 2:
``mode``; Gen 3: ``mgw_mode``); api.x.ai ids those of upstream-xai section 11, where the
retired names lead to grok-4.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

ModelKind = Literal["chat", "image", "image_edit", "video"]
Tier = Literal["basic", "super"]


@dataclass(frozen=True, slots=True)
class WebNames:
    """``quota_name`` is the rate-limit name of Gen 1, and its bucket."""

    name: str
    mode_enum: str
    mode: str
    mgw_mode: str
    quota_name: str


@dataclass(frozen=True, slots=True)
class Model:
    """One public model. ``web`` or ``xai`` None: that upstream does not serve it.

    ``cost`` is in quota units, ``tier`` the lowest that serves it, ``heavy`` whether it
    draws on the heavy bucket of client keys too. ``inputs`` are accepted part types.
    """

    id: str
    display_name: str
    description: str = ""
    kind: ModelKind = "chat"
    tier: Tier = "basic"
    cost: int = 1
    heavy: bool = False
    web: WebNames | None = None
    xai: str | None = None
    inputs: tuple[str, ...] = ("text", "image_url", "input_audio", "file")
    owned_by: str = "grok2api"


_GROK_41 = "grok-4-1-thinking-1129"


def _web(name: str, mode_enum: str, mode: str, quota_name: str = "", mgw: str = "") -> WebNames:
    return WebNames(name, f"MODEL_MODE_{mode_enum}", mode, mgw or mode, quota_name or name)


_GROK_42_MODE = "grok-420-computer-use-sa"

MODELS: tuple[Model, ...] = (
    Model("grok-3", "Grok 3", web=_web("grok-3", "GROK_3", "fast"), xai="grok-4.3"),
    Model("grok-3-fast", "Grok 3 Fast", web=_web("grok-3", "FAST", "fast"), xai="grok-4.3"),
    Model("grok-3-mini", "Grok 3 Mini", web=_web("grok-3", "GROK_3_MINI_THINKING", "fast"),
          xai="grok-4.3"),
    Model("grok-3-thinking", "Grok 3 Thinking", web=_web("grok-3", "GROK_3_THINKING", "expert"),
          xai="grok-4.3"),
    Model("grok-4", "Grok 4", web=_web("grok-4", "GROK_4", "auto"), xai="grok-4.3"),
    Model("grok-4-mini", "Grok 4 Mini", web=_web("grok-4-mini", "GROK_4_MINI_THINKING", "fast"),
          xai="grok-4.3"),
    Model("grok-4-fast", "Grok 4 Fast", web=_web("grok-4", "FAST", "fast"), xai="grok-4.3"),
    Model("grok-4-thinking", "Grok 4 Thinking", web=_web("grok-4", "GROK_4_THINKING", "expert"),
          xai="grok-4.3"),
    Model("grok-4-heavy", "Grok 4 Heavy", tier="super", cost=4, heavy=True,
          web=_web("grok-4", "HEAVY", "heavy", "grok-4-heavy")),
    Model("grok-4.1", "Grok 4.1", web=_web(_GROK_41, "FAST", "auto"), xai="grok-4.3"),
    Model("grok-4.1-mini", "Grok 4.1 Mini", web=_web(_GROK_41, "GROK_4_1_MINI_THINKING", "fast"),
          xai="grok-4.3"),
    Model("grok-4.1-fast", "Grok 4.1 Fast", web=_web(_GROK_41, "FAST", "fast"), xai="grok-4.3"),
    Model("grok-4.1-expert", "Grok 4.1 Expert", cost=4, web=_web(_GROK_41, "EXPERT", "expert"),
          xai="grok-4.3"),
    Model("grok-4.1-thinking", "Grok 4.1 Thinking", cost=4,
          web=_web(_GROK_41, "GROK_4_1_THINKING", "expert"), xai="grok-4.3"),
    Model("grok-4.20-beta", "Grok 4.20 Beta",
          web=_web("grok-420", "GROK_420", _GROK_42_MODE, mgw="auto"),
          xai="grok-4.20-0309-reasoning"),
    Model("grok-imagine-1.0", "Grok Image", "Image generation model", kind="image", cost=4,
          web=_web("grok-3", "FAST", "fast"), xai="grok-imagine-image", inputs=("text",)),
    Model("grok-imagine-1.0-edit", "Grok Image Edit", "Image edit model", kind="image_edit",
          cost=4, web=_web("imagine-image-edit", "FAST", "imagine-image-edit", "grok-3"),
          xai="grok-imagine-image", inputs=("text", "image_url")),
    Model("grok-imagine-1.0-video", "Grok Video", "Video generation model", kind="video",
          web=_web("grok-3", "FAST", "imagine-video-gen"), xai="grok-imagine-video",
          inputs=("text", "image_url")),
)  # fmt: skip


def _discovered(name: str) -> Model:
    """``/v1/models`` does not say what a model is for; the vendor's names do."""
    kind: ModelKind = "chat"
    if name.startswith("grok-imagine"):
        kind = "video" if name.startswith("grok-imagine-video") else "image"
    return Model(
        name, name, kind=kind, xai=name, owned_by="xai", inputs=("text", "image_url", "file")
    )


class Catalog:
    """The table, the operator's aliases, and the ids that api.x.ai says it serves."""

    def __init__(self, models: Iterable[Model] = MODELS) -> None:
        self._table = {model.id: model for model in models}
        self._discovered: dict[str, Model] = {}
        self._aliases: dict[str, str] = {}

    def set_aliases(self, aliases: Mapping[str, str]) -> None:
        """``alias -> model id``; an alias never hides a model of the table."""
        self._aliases = {a: target for a, target in aliases.items() if a not in self._table}

    def set_discovered(self, ids: Iterable[str]) -> None:
        """The ids api.x.ai lists; those of the table keep their own meaning."""
        self._discovered = {name: _discovered(name) for name in ids if name not in self._table}

    def find(self, model_id: str) -> Model | None:
        found = self._table.get(model_id) or self._discovered.get(model_id)
        if found is None and (target := self._aliases.get(model_id)):
            found = self._table.get(target) or self._discovered.get(target)
        return found

    def listing(self) -> list[Model]:
        """The table in its order, then aliases, then what api.x.ai adds."""
        aliases = [
            replace(target, id=alias)
            for alias in self._aliases
            if (target := self.find(alias)) is not None
        ]
        return [*self._table.values(), *aliases, *self._discovered.values()]
