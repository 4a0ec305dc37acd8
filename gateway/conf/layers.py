"""Four layers made into one configuration: environment, panel, file, defaults. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.conf.environment import read_environment
from gateway.conf.errors import ConfigError, Problem
from gateway.conf.keys import KEYS, SECTIONS, env_name, nearest, nearest_section
from gateway.conf.schema import Config

Source = Literal["environment", "panel", "file", "default"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the file layer was written: a name for messages, and the line of each key."""

    name: str = "config.toml"
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict, repr=False)

    def line_of(self, path: Path) -> int | None:
        """The line of the innermost part of ``path`` that has one."""
        names = tuple(str(part) for part in path)
        for end in range(len(names), 0, -1):
            if (line := self.lines.get(names[:end])) is not None:
                return line
        return None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration in force. ``not_used`` names keys that were given in vain."""

    config: Config
    sources: Mapping[str, Source]
    not_used: tuple[str, ...] = ()

    def source_of(self, key: str) -> Source:
        """Which layer ``key`` ("section.name") comes from; KeyError for an unknown key."""
        return self.sources.get(KEYS[key].name, "default")


@dataclass(slots=True)
class _Layer:
    """The usable values of one layer by dotted key, and what was found on the way."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    problems: list[Problem] = field(default_factory=list)
    not_used: list[str] = field(default_factory=list)


def resolve(
    env: Mapping[str, str],
    saved: Mapping[str, Any],
    file_values: Mapping[str, Any],
    *,
    origin: Origin | None = None,
    earlier: Iterable[Problem] = (),
) -> Resolved:
    """The configuration that the layers make together.

    ``env`` maps variables to text, ``saved`` dotted keys to JSON values, ``file_values``
    sections to tables. Raises ConfigError with every problem of every layer, after those
    found ``earlier``. A saved value that the environment overrides is not looked at, so
    that a variable can get a service with a bad row going.
    """
    top = _environment_layer(env)
    panel = _saved_layer({k: v for k, v in saved.items() if k not in top.values})
    file = _file_layer(file_values, origin or Origin())
    problems = [*earlier, *top.problems, *panel.problems, *file.problems]
    if problems:
        raise ConfigError(problems)
    layers: Sequence[tuple[Source, _Layer]] = (
        ("file", file),
        ("panel", panel),
        ("environment", top),
    )
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for source, layer in layers:
        values |= layer.values
        sources |= dict.fromkeys(layer.values, source)
    not_used = [key for key in sources if KEYS[key].unused]
    return Resolved(
        config=_build(values),
        sources=sources,
        not_used=tuple(sorted({*not_used, *file.not_used, *panel.not_used})),
    )


def check(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """Known dotted keys to checked values, and (path, reason) for each that is wrong."""
    checked: dict[str, Any] = {}
    wrong: list[tuple[Path, str]] = []
    for section, given in _by_section(values).items():
        try:
            model = SECTIONS[section].model_validate(given)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=True)
            wrong += [((section, *item["loc"]), _reason(item)) for item in details]
        else:
            checked |= {f"{section}.{leaf}": getattr(model, leaf) for leaf in given}
    return checked, wrong


def _by_section(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, leaf = name.partition(".")
        sections.setdefault(section, {})[leaf] = value
    return sections


def _build(values: Mapping[str, Any]) -> Config:
    sections = _by_section(values)
    parts: dict[str, Any] = {
        name: model.model_validate(sections.get(name, {})) for name, model in SECTIONS.items()
    }
    return Config(**parts)


_TYPE_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "text",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}
_WANTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table of names",
}


def _reason(error: ErrorDetails) -> str:
    """What is wrong, in words; of the value only its type is told."""
    kind = error["type"]
    if kind in _WANTED:
        given = _TYPE_WORDS.get(type(error["input"]), "a date or time")
        return f"must be {_WANTED[kind]}, not {given}"
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    reason = error["msg"].replace(" after validation", "")
    for noun in ("Input", "String", "Tuple", "Dictionary", "Value"):
        reason = reason.replace(f"{noun} should ", "must ", 1)
    return reason


def unknown_setting(name: str) -> str:
    guess = nearest(name)
    return f"unknown setting; did you mean {guess}?" if guess else "unknown setting"


def _environment_layer(env: Mapping[str, str]) -> _Layer:
    values, problems = read_environment(env)
    checked, wrong = check(values)
    for path, reason in wrong:
        variable = env_name(f"{path[0]}.{path[1]}")
        problems.append(Problem("environment", None, variable, reason))
    return _Layer(checked, problems)


def _saved_layer(saved: Mapping[str, Any]) -> _Layer:
    """Rows under names that no longer exist are passed over: a downgrade must start."""
    checked, wrong = check({k: v for k, v in saved.items() if k in KEYS})
    problems = [
        Problem("saved in the panel", None, f"{path[0]}.{path[1]}", reason)
        for path, reason in wrong
    ]
    return _Layer(checked, problems, [k for k in saved if k not in KEYS])


def _file_layer(values: Mapping[str, Any], origin: Origin) -> _Layer:
    layer = _Layer()
    known: dict[str, Any] = {}

    def refuse(path: Path, reason: str) -> None:
        dotted = ".".join(map(str, path[:2]))
        layer.problems.append(Problem(origin.name, origin.line_of(path), dotted, reason))

    for section, table in values.items():
        if section not in SECTIONS:
            refuse((section,), _unknown_section(section, table))
        elif not isinstance(table, dict):
            refuse((section,), f"must be a section: [{section}]")
        else:
            for leaf, value in table.items():
                name = f"{section}.{leaf}"
                if name in KEYS:
                    known[name] = value
                elif section == "register":
                    layer.not_used.append(name)
                else:
                    refuse((section, leaf), unknown_setting(name))
    layer.values, wrong = check(known)
    for path, reason in wrong:
        refuse(path, reason)
    layer.problems.sort(key=lambda problem: problem.line or 0)
    return layer


def _unknown_section(name: str, value: Any) -> str:
    if not isinstance(value, dict):
        return unknown_setting(name)
    guess = nearest_section(name)
    return f"unknown section; did you mean [{guess}]?" if guess else "unknown section"
