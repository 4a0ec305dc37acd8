"""The settings as a flat list: what every layer, the generated file and the manual go by."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from gateway.conf.schema import Config, Section

ENV_PREFIX = "GROK2API_"

Shape = Literal["flag", "number", "text", "texts", "numbers", "table"]

SECTIONS: Mapping[str, type[Section]] = {
    item.name: item.default_factory  # type: ignore[misc]
    for item in dataclasses.fields(Config)
}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. ``name`` is "section.name"; ``choices`` is empty when any value goes."""

    name: str
    shape: Shape
    default: Any = field(repr=False)
    description: str
    choices: tuple[str, ...]
    limits: str
    secret: bool
    unused: bool

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.partition(".")[2]

    @property
    def env_name(self) -> str:
        return env_name(self.name)

    @property
    def type_text(self) -> str:
        """The type in words, with its choices or limits."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return _WORDS[self.shape] + (f", {self.limits}" if self.limits else "")


_WORDS: Mapping[Shape, str] = {
    "flag": "true or false",
    "number": "whole number",
    "text": "text",
    "texts": "list of text",
    "numbers": "list of whole numbers",
    "table": "table of text",
}


def env_name(name: str) -> str:
    """``grok.timeout`` as the environment spells it: ``GROK2API_GROK__TIMEOUT``."""
    section, _, leaf = name.partition(".")
    return f"{ENV_PREFIX}{section}__{leaf}".upper()


def _shape(annotation: Any) -> Shape:
    origin = get_origin(annotation)
    if origin is tuple:
        element = get_args(annotation)[0]
        element = get_args(element)[0] if hasattr(element, "__metadata__") else element
        return "numbers" if element is int else "texts"
    if origin is dict:
        return "table"
    if annotation is bool:
        return "flag"
    return "number" if annotation is int else "text"


def _limits(info: FieldInfo) -> str:
    low = next((m.ge for m in info.metadata if isinstance(m, Ge)), None)
    high = next((m.le for m in info.metadata if isinstance(m, Le)), None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return "" if high is None else f"at most {high}"


def _key(name: str, info: FieldInfo) -> Key:
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return Key(
        name=name,
        shape=_shape(info.annotation),
        default=info.get_default(call_default_factory=True),
        description=info.description or "",
        choices=choices,
        limits=_limits(info),
        secret=bool(extra.get("secret")),
        unused=bool(extra.get("unused")),
    )


KEYS: Mapping[str, Key] = {
    f"{section}.{leaf}": _key(f"{section}.{leaf}", info)
    for section, model in SECTIONS.items()
    for leaf, info in model.model_fields.items()
}

_BY_ENV_NAME: Mapping[str, Key] = {key.env_name: key for key in KEYS.values()}


def by_env_name(name: str) -> Key | None:
    return _BY_ENV_NAME.get(name)


def nearest(name: str) -> str:
    """The setting that was probably meant by ``name``, or "".

    A name that is right but in the wrong section, or in none, is found too.
    """
    leaf = name.rpartition(".")[2]
    same_leaf = [key.name for key in KEYS.values() if key.leaf == leaf]
    found = same_leaf or difflib.get_close_matches(name, KEYS, n=1, cutoff=0.75)
    return found[0] if found else ""


def nearest_section(name: str) -> str:
    found = difflib.get_close_matches(name, SECTIONS, n=1)
    return found[0] if found else ""
