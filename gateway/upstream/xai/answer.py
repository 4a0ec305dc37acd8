"""One api.x.ai answer as it builds up, chunk by chunk or at once (upstream-xai 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from gateway.upstream.events import (
    Event,
    Finished,
    FinishReason,
    Reasoning,
    Source,
    Text,
    ToolCall,
    Usage,
)
from gateway.upstream.taxonomy import classify_xai

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def is_failure(value: Mapping[str, Any]) -> bool:
    """Whether an object is an error, whatever the HTTP status beside it."""
    return bool(value.get("error")) or ("code" in value and "choices" not in value)


@dataclass(slots=True)
class _Call:
    """A tool call as far as it has arrived."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """What is known of one answer; ``take`` works on chunks and completions alike."""

    __slots__ = (
        "_calls",
        "_flushed",
        "_id",
        "_meta",
        "_open",
        "_urls",
        "_usage",
        "begun",
        "reason",
    )

    def __init__(self) -> None:
        self.begun = False
        self.reason: FinishReason | None = None
        self._id = ""
        self._meta: dict[str, str] = {}
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._flushed = 0
        self._urls: set[str] = set()
        self._usage: Usage | None = None

    def take(self, chunk: dict[str, Any], raw: bytes, events: list[Event]) -> None:
        """Append the events of ``chunk``, whose text is ``raw``; raise the error it is."""
        if is_failure(chunk):
            raise classify_xai(200, raw)
        if not self.begun:
            self.begun = True
            self._id = _text(chunk.get("id"))
        choices = chunk.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and choice.get("index", 0) == 0:
                    self._choice(choice, events)
        if usage := chunk.get("usage"):
            self._take_usage(usage)
        if citations := chunk.get("citations"):
            self._cite(citations, events)
        self._note(chunk)

    def close(self, events: list[Event]) -> None:
        """Append what ends the answer: open tool calls, usage, Finished."""
        self._flush_calls(events)
        if self._usage is not None:
            events.append(self._usage)
        events.append(
            Finished(
                reason=self._final_reason(),
                response_id=self._id,
                fingerprint=self._meta.pop("system_fingerprint", ""),
                extra=self._meta,
            )
        )

    def _final_reason(self) -> FinishReason:
        reason = self.reason or "stop"
        return "tool_calls" if self._calls and reason == "stop" else reason

    def _note(self, chunk: dict[str, Any]) -> None:
        for key in ("system_fingerprint", "service_tier", "model"):
            value = chunk.get(key)
            if value and isinstance(value, str):
                self._meta[key] = value

    def _choice(self, choice: dict[str, Any], events: list[Event]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._delta(delta, events)
        if reason := choice.get("finish_reason"):
            self.reason = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
            self._flush_calls(events)

    def _delta(self, delta: dict[str, Any], events: list[Event]) -> None:
        if (reasoning := delta.get("reasoning_content")) and isinstance(reasoning, str):
            events.append(Reasoning(reasoning))
        if (content := delta.get("content")) and isinstance(content, str):
            events.append(Text(content))
        if (refusal := delta.get("refusal")) and isinstance(refusal, str):
            events.append(Text(refusal))
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for position, piece in enumerate(calls):
                if isinstance(piece, dict):
                    self._call_piece(piece, position)

    def _call_piece(self, piece: dict[str, Any], position: int) -> None:
        """Whole calls and fragments alike; a new id under an old index is a new call."""
        index = piece.get("index")
        key = index if isinstance(index, int) else position
        call_id = _text(piece.get("id"))
        call = self._open.get(key)
        if call is None or (call_id and call.id and call_id != call.id):
            call = self._open[key] = _Call()
            self._calls.append(call)
        function = piece.get("function")
        if not isinstance(function, dict):
            function = {}
        call.id = call.id or call_id
        call.name = call.name or _text(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = to_json(arguments).decode()
        call.arguments.append(_text(arguments))

    def _flush_calls(self, events: list[Event]) -> None:
        """Each call once: what is flushed is no longer open."""
        for number, call in enumerate(self._calls[self._flushed :], self._flushed):
            events.append(
                ToolCall(
                    id=call.id or f"call_{self._id}_{number}",
                    name=call.name,
                    arguments="".join(call.arguments) or "{}",
                )
            )
        self._flushed = len(self._calls)
        self._open.clear()

    def _cite(self, citations: Any, events: list[Event]) -> None:
        for item in citations if isinstance(citations, list) else ():
            url = item.get("url") if isinstance(item, dict) else item
            title = _text(item.get("title")) if isinstance(item, dict) else ""
            if isinstance(url, str) and url and url not in self._urls:
                self._urls.add(url)
                events.append(Source(url=url, title=title))

    def _take_usage(self, usage: Any) -> None:
        """Keep the newest counts; ``completion`` without reasoning, which upstream counts
        apart (total = prompt + completion + reasoning) except where the total says not."""
        if not isinstance(usage, dict):
            return
        prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
        if 0 < reasoning <= completion and _count(usage, "total_tokens") == prompt + completion:
            completion -= reasoning
        self._usage = Usage(
            prompt=prompt,
            completion=completion,
            reasoning=reasoning,
            cached=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        )
        if "cost_in_usd_ticks" in usage:
            self._meta["cost_in_usd_ticks"] = str(_count(usage, "cost_in_usd_ticks"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _detail(usage: Mapping[str, Any], group: str, key: str) -> int:
    details = usage.get(group)
    return _count(details, key) if isinstance(details, dict) else 0
