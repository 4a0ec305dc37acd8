"""The catalogue of the simulated api.x.ai (upstream-xai 2 and 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["language", "image", "video"]
CREATED = 1789000000


@dataclass(frozen=True, slots=True)
class XaiModel:
    """One model; prices are US cents per 100 million tokens: input, cached, output."""

    id: str
    kind: Kind = "language"
    aliases: tuple[str, ...] = ()
    reasoning: bool = True
    efforts: frozenset[str] = frozenset()
    prices: tuple[int, int, int] = (20000, 5000, 60000)
    context: int = 500_000


_EFFORTS = frozenset({"low", "medium", "high", "xhigh"})
_MODELS = (
    XaiModel("grok-4.7", efforts=_EFFORTS),
    XaiModel("grok-4.6", aliases=("grok-4.6-latest",), efforts=_EFFORTS),
    XaiModel(
        "grok-4.5",
        aliases=("grok-4.5-latest", "grok-build-latest"),
        efforts=_EFFORTS,
        prices=(20000, 3000, 60000),
    ),
    XaiModel(
        "grok-4.3",
        aliases=("grok-4.3-latest", "grok-latest"),
        efforts=frozenset({"none", "low", "medium", "high"}),
        prices=(12500, 2000, 25000),
        context=1_000_000,
    ),
    XaiModel(
        "grok-4.20-0309-reasoning",
        aliases=("grok-4.20", "grok-4.20-0309", "grok-4.20-reasoning", "grok-4.20-beta"),
        prices=(12500, 2000, 25000),
        context=1_000_000,
    ),
    XaiModel(
        "grok-4.20-0309-non-reasoning",
        aliases=("grok-4.20-non-reasoning",),
        reasoning=False,
        prices=(12500, 2000, 25000),
        context=1_000_000,
    ),
    XaiModel("grok-build-0.1", prices=(10000, 2000, 20000), context=256_000),
    XaiModel("grok-imagine-image", "image"),
    XaiModel("grok-imagine-image-quality", "image"),
    XaiModel("grok-imagine-image-2.0", "image"),
    XaiModel("grok-imagine-video", "video"),
    XaiModel("grok-imagine-video-1.5", "video", ("grok-imagine-video-1.5-preview",)),
)
_REDIRECTS = {
    "grok-3": "grok-4.3",
    "grok-4-0709": "grok-4.3",
    "grok-4-fast-reasoning": "grok-4.3",
    "grok-4-fast-non-reasoning": "grok-4.3",
    "grok-4-1-fast-reasoning": "grok-4.3",
    "grok-4-1-fast-non-reasoning": "grok-4.3",
    "grok-code-fast-1": "grok-build-0.1",
    "grok-imagine-image-pro": "grok-imagine-image-quality",
}
_BY_NAME = {name: model for model in _MODELS for name in (model.id, *model.aliases)}
_BY_NAME |= {old: _BY_NAME[new] for old, new in _REDIRECTS.items()}


def find_model(name: object, kind: Kind = "language") -> XaiModel | None:
    """The model of an id, an alias or a retired id that redirects."""
    model = _BY_NAME.get(name) if isinstance(name, str) else None
    return model if model is not None and model.kind == kind else None


def models_of(kind: Kind) -> list[XaiModel]:
    return [model for model in _MODELS if model.kind == kind]


def _base(model: XaiModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": CREATED,
        "owned_by": "xai",
        "aliases": list(model.aliases),
    }


def list_entry(model: XaiModel) -> dict[str, Any]:
    """An item of ``/v1/models`` (2.1)."""
    if model.kind != "language":
        return _base(model)
    return {
        **_base(model),
        "context_length": model.context,
        "prompt_text_token_price": model.prices[0],
        "cached_prompt_text_token_price": model.prices[1],
        "completion_text_token_price": model.prices[2],
        "long_context_threshold": 200_000,
    }


def typed_entry(model: XaiModel) -> dict[str, Any]:
    """An item of ``/v1/language-models`` and its media siblings (2.2, 2.3)."""
    entry = {**_base(model), "fingerprint": "fp_0123456789", "version": "1.0"}
    if model.kind == "language":
        entry |= {
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "prompt_text_token_price": model.prices[0],
            "cached_prompt_text_token_price": model.prices[1],
            "prompt_image_token_price": model.prices[0],
            "completion_text_token_price": model.prices[2],
            "search_price": 50_000_000,
        }
    return entry


def team_entry(model: XaiModel) -> dict[str, Any]:
    """A language model of the Management API's team models (12.3)."""
    return {
        "name": model.id,
        "version": "1.0",
        "aliases": list(model.aliases),
        "inputModalities": ["TEXT", "IMAGE"],
        "promptTextTokenPrice": str(model.prices[0]),
        "cachedPromptTokenPrice": str(model.prices[1]),
        "completionTextTokenPrice": str(model.prices[2]),
        "longContextThreshold": "200000",
        "maxPromptLength": model.context,
        "rps": "37",
        "rpm": "2220",
        "tpm": "10000000",
        "features": {
            "functionCalling": True,
            "structuredOutputs": True,
            "reasoning": model.reasoning,
        },
    }
