"""From events to chat completions: chunks as they come, or one whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.translate.usage import chat_usage, estimate
from gateway.upstream.events import (
    Event,
    Finished,
    ImageProgress,
    ImageReady,
    Reasoning,
    Source,
    Text,
    ToolCall,
    Usage,
    VideoProgress,
    VideoReady,
)
from gateway.wire.errors import ApiError
from gateway.wire.sse import DONE, frame, json_string

ThinkingStyle = Literal["hidden", "reasoning_content", "think_tags"]
THINK_OPEN = "<think>\n"
THINK_CLOSE = "\n</think>\n"


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every chunk of one answer shares. ``created`` is Unix time in seconds.

    ``prompt_characters`` is the base of an estimate where upstream measures nothing;
    None means that upstream does measure, so that a missing count stays absent.
    """

    id: str
    model: str
    created: int
    thinking: ThinkingStyle = "reasoning_content"
    include_usage: bool = False
    prompt_characters: int | None = None


@dataclass(slots=True)
class _Tally:
    """What the end of an answer is computed from.

    ``inserted`` counts the characters of the content that are not upstream's answer text:
    thinking between tags, media. Upstream's offsets know nothing of them.
    """

    answer: int = 0
    inserted: int = 0
    reasoning: int = 0
    calls: int = 0
    usage: Usage | None = None
    sources: list[Source] = field(default_factory=list)

    def final_usage(self, head: AnswerHead) -> Usage | None:
        if self.usage is None and head.prompt_characters is not None:
            return estimate(head.prompt_characters, self.answer, self.reasoning)
        return self.usage

    def add_source(self, source: Source) -> None:
        """``source``, its offsets moved by what was inserted before it."""
        start, end = source.start, source.end
        if start is not None and end is not None:
            start, end = start + self.inserted, end + self.inserted
        self.sources.append(Source(source.url, source.title, start, end))

    def annotations(self, prefix: int = 0) -> list[dict[str, Any]]:
        """OpenAI's url_citation; a source that is not cited inline points at the end.

        ``prefix`` is how many characters go before everything counted so far.
        """
        whole = self.answer + self.inserted
        cited = {source.url for source in self.sources if source.start is not None}
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "url": source.url,
                    "title": source.title,
                    "start_index": prefix + (whole if source.start is None else source.start),
                    "end_index": prefix + (whole if source.end is None else source.end),
                },
            }
            for source in self.sources
            if source.start is not None or source.url not in cited
        ]


class ChunkEncoder:
    """Encodes batches of events as ``chat.completion.chunk`` frames.

    The parts of a chunk that never change are encoded once; a text event costs one JSON
    string and one join.
    """

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._tally = _Tally()
        self._thinking = False
        shared = _compact(
            {
                "id": head.id,
                "object": "chat.completion.chunk",
                "created": head.created,
                "model": head.model,
                "system_fingerprint": None,
            }
        )
        usage = ',"usage":null' if head.include_usage else ""
        opening = f'data: {shared[:-1]},"choices":[{{"index":0,"delta":'
        closing = f',"logprobs":null,"finish_reason":null}}]{usage}}}\n\n'
        self._open = opening.encode()
        self._close = closing.encode()
        self._open_text = self._open + b'{"content":'
        self._open_reasoning = self._open + b'{"reasoning_content":'
        self._close_text = b"}" + self._close

    @property
    def usage(self) -> Usage | None:
        """Measured or estimated, as far as the answer has come; None when neither is known."""
        return self._tally.final_usage(self._head)

    def start(self) -> bytes:
        """The first chunk, which gives the role."""
        return self._open + b'{"role":"assistant","content":""}' + self._close

    def encode(self, batch: Sequence[Event]) -> bytes:
        """All frames of one batch as one body message; may be empty."""
        parts: list[bytes] = []
        for event in batch:
            if type(event) is Text:
                self._answer(event.text, parts)
            else:
                self._other(event, parts)
        return b"".join(parts)

    def _answer(self, text: str, parts: list[bytes]) -> None:
        if self._thinking:
            self._leave_thinking(parts)
        self._tally.answer += len(text)
        parts += (self._open_text, json_string(text), self._close_text)

    def _insert(self, text: str, parts: list[bytes]) -> None:
        self._tally.inserted += len(text)
        parts += (self._open_text, json_string(text), self._close_text)

    def _leave_thinking(self, parts: list[bytes]) -> None:
        if self._thinking:
            self._thinking = False
            self._insert(THINK_CLOSE, parts)

    def _other(self, event: Event, parts: list[bytes]) -> None:
        match event:
            case Reasoning(text):
                self._tally.reasoning += len(text)
                self._think(text, parts)
            case ToolCall():
                self._call(event, parts)
            case Source():
                self._tally.add_source(event)
            case Usage():
                self._tally.usage = event
            case Finished():
                self._finish(event, parts)
            case ImageProgress() | VideoProgress():
                self._think(progress_line(event), parts)
            case ImageReady() | VideoReady():
                self._leave_thinking(parts)
                self._insert(media_markdown(event), parts)
            case Text():
                self._answer(event.text, parts)

    def _think(self, text: str, parts: list[bytes]) -> None:
        """Show ``text`` the way this answer shows its thinking, or not at all."""
        if self._head.thinking == "hidden":
            return
        if self._head.thinking == "reasoning_content":
            parts += (self._open_reasoning, json_string(text), self._close_text)
            return
        if not self._thinking:
            self._thinking = True
            text = THINK_OPEN + text
        self._insert(text, parts)

    def _call(self, call: ToolCall, parts: list[bytes]) -> None:
        self._leave_thinking(parts)
        delta = {"tool_calls": [{"index": self._tally.calls, **tool_call(call)}]}
        self._tally.calls += 1
        parts += (self._open, _compact(delta).encode(), self._close)

    def _finish(self, event: Finished, parts: list[bytes]) -> None:
        self._leave_thinking(parts)
        delta = {"annotations": notes} if (notes := self._tally.annotations()) else {}
        chunk = self._chunk(delta, _reason_of(event, self._tally.calls))
        chunk["system_fingerprint"] = event.fingerprint or None
        parts.append(frame(_compact(chunk).encode()))
        if self._head.include_usage:
            chunk = self._chunk({}, None)
            usage = self.usage
            chunk |= {"choices": [], "usage": chat_usage(usage) if usage else None}
            parts.append(frame(_compact(chunk).encode()))
        parts.append(DONE)

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk: dict[str, Any] = {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._head.model,
            "system_fingerprint": None,
            "choices": [choice],
        }
        if self._head.include_usage:
            chunk["usage"] = None
        return chunk

    def fail(self, error: ApiError) -> bytes:
        """The end of a stream that broke: an error event, then the terminal event."""
        parts: list[bytes] = []
        self._leave_thinking(parts)
        return b"".join((*parts, frame(error.body()), DONE))


class AnswerCollector:
    """Gathers the events of one answer into a ``chat.completion``."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._tally = _Tally()
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._end = Finished()

    @property
    def usage(self) -> Usage | None:
        """Measured or estimated, as far as the answer has come; None when neither is known."""
        return self._tally.final_usage(self._head)

    def add(self, batch: Iterable[Event]) -> None:
        for event in batch:
            match event:
                case Text(text):
                    self._add_text(text)
                case Reasoning(text):
                    self._reasoning.append(text)
                    self._tally.reasoning += len(text)
                case ToolCall():
                    self._calls.append(event)
                case Source():
                    self._tally.add_source(event)
                case Usage():
                    self._tally.usage = event
                case Finished():
                    self._end = event
                    if late := event.extra.get("late_reasoning"):
                        self._reasoning.append(late)
                        self._tally.reasoning += len(late)
                case ImageReady() | VideoReady():
                    self._texts.append(media_markdown(event))
                    self._tally.inserted += len(self._texts[-1])
                case ImageProgress() | VideoProgress():
                    pass

    def _add_text(self, text: str) -> None:
        self._texts.append(text)
        self._tally.answer += len(text)

    def body(self) -> bytes:
        usage = self.usage
        completion: dict[str, Any] = {
            "id": self._head.id,
            "object": "chat.completion",
            "created": self._head.created,
            "model": self._head.model,
            "system_fingerprint": self._end.fingerprint or None,
            "choices": [
                {
                    "index": 0,
                    "message": self._message(),
                    "logprobs": None,
                    "finish_reason": _reason_of(self._end, len(self._calls)),
                }
            ],
        }
        if usage is not None:
            completion["usage"] = chat_usage(usage)
        text = json.dumps(completion, ensure_ascii=False)
        try:
            return text.encode()
        except UnicodeEncodeError:
            return json.dumps(completion).encode()

    def _message(self) -> dict[str, Any]:
        content = "".join(self._texts)
        reasoning = "".join(self._reasoning)
        thinking = ""
        if reasoning and self._head.thinking == "think_tags":
            thinking = THINK_OPEN + reasoning + THINK_CLOSE
            content = thinking + content
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content or (None if self._calls else ""),
            "refusal": None,
            "annotations": self._tally.annotations(len(thinking)),
        }
        if reasoning and self._head.thinking == "reasoning_content":
            message["reasoning_content"] = reasoning
        if self._calls:
            message["tool_calls"] = [tool_call(call) for call in self._calls]
        return message


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _reason_of(event: Finished, calls: int) -> str:
    return "tool_calls" if calls and event.reason == "stop" else event.reason


def progress_line(event: ImageProgress | VideoProgress) -> str:
    what = f"Image {event.index + 1}" if isinstance(event, ImageProgress) else "Video"
    return f"{what}: {event.percent}%\n"


def media_markdown(event: ImageReady | VideoReady) -> str:
    """A picture as Markdown on a line of its own; a video as a link."""
    if isinstance(event, VideoReady):
        return f"\n[video]({event.url})\n"
    url = event.url or f"data:{event.mime_type or 'image/jpeg'};base64,{event.data}"
    return f"\n![image]({url})\n"
