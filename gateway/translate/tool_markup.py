"""Function calls as text: how they are written for the web upstream, and read back.

The form we ask for is ``<tool_calls><tool_call><tool_name>..</tool_name><parameters>{json}
</parameters></tool_call></tool_calls>`` (upstream-web section 4). Models stray from it, so
reading also takes ``<function_call>``, ``<invoke name="..">``, plain JSON, CDATA, code
fences and XML entities. Nothing is guessed beyond that: arguments are a JSON object.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

Call = tuple[str, str]
"""A function's name and its arguments as the text of a JSON object."""

_TOKEN = re.compile(
    r"""
      <!\[CDATA\[
    | <(tool_name|function_name|name)\s*>(?P<text>[^<]{0,256})</\1\s*>
    | <(?:tool_call|function_call|invoke)\b [^<>]{0,256}? \sname\s?=\s?["']?
      (?P<attribute>[\w.-]{1,64})["']? [^<>]{0,256} >
    | (?P<json>[{[])
    """,
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
"""Repetitions are bounded: the text is upstream's, and must not be able to keep us busy."""
_LEAD = re.compile(
    r"\s*(?:<(?:parameters|arguments|input)\s*>)?\s*(?:<!\[CDATA\[)?\s*(?:```\w*)?\s*",
    re.IGNORECASE | re.ASCII,
)
_ARGUMENT_KEYS = ("arguments", "parameters", "input")


def write_calls(calls: Iterable[Call]) -> str:
    """Calls in the form we ask the model for; empty arguments become ``{}``."""
    inner = "".join(
        f"<tool_call><tool_name>{name}</tool_name>"
        f"<parameters>{arguments or '{}'}</parameters></tool_call>"
        for name, arguments in calls
    )
    return f"<tool_calls>{inner}</tool_calls>"


def read_calls(text: str) -> list[Call]:
    """The calls in a block of markup or JSON, in order; empty when there are none.

    Reading ends at the first arguments that are not JSON: from there on, nothing tells
    markup from the inside of a string.
    """
    try:
        return list(_read(text))
    except RecursionError:
        return []


def _read(text: str) -> Iterator[Call]:
    at = 0
    while token := _TOKEN.search(text, at):
        at = token.end()
        try:
            if token["json"]:
                value, at = _decode(text, token.start())
                yield from _calls_in(value)
            elif name := token["text"] or token["attribute"]:
                value, at = _arguments(text, at)
                if isinstance(value, dict):
                    yield html.unescape(name).strip(), _dump(value)
        except ValueError:
            return


def _arguments(text: str, at: int) -> tuple[Any, int]:
    """The value after a name and where it ends; no value at all means no arguments."""
    lead = _LEAD.match(text, at)
    at = lead.end() if lead else at
    if at == len(text) or text.startswith(("</", "]]>"), at):
        return {}, at
    return _decode(text, at)


def _decode(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at ``at`` and where it ends.

    Entities are undone only where the text is no JSON without: in a string of valid JSON
    they may be meant.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError:
        end = text.find("<", at)
        end = len(text) if end < 0 else end
        value, _ = _DECODER.raw_decode(html.unescape(text[at:end]))
        return value, end


def _calls_in(value: Any) -> Iterator[Call]:
    """The calls a JSON value spells out: one, a list, or ``{"tool_calls": [...]}``."""
    if isinstance(value, list):
        for item in value:
            yield from _calls_in(item)
    elif isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        yield from _calls_in(value["tool_calls"])
    elif isinstance(value, dict):
        yield from _call_from(value)


def _call_from(value: dict[str, Any]) -> Iterator[Call]:
    function = value.get("function")
    spec = function if isinstance(function, dict) else value
    name = spec.get("name") or spec.get("tool_name")
    arguments: Any = next((spec[key] for key in _ARGUMENT_KEYS if key in spec), {})
    if isinstance(arguments, str):
        try:
            arguments = _DECODER.decode(arguments or "{}")
        except ValueError:
            return
    if isinstance(name, str) and isinstance(arguments, dict):
        yield name, _dump(arguments)


def _dump(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)
"""Takes bare line breaks in strings, which models write, but no NaN, which is not JSON."""
