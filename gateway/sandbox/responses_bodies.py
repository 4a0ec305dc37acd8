"""Objects and stream events of api.x.ai's Responses (upstream-xai 4)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.sandbox.answers import REASONING
from gateway.sandbox.faults import BodyForm
from gateway.sandbox.scripts import Script
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.xai_bodies import CALL_ID, DONE, GARBAGE, error_body
from gateway.sandbox.xai_requests import Reply

CREATED = 1790000000


@dataclass(frozen=True, slots=True)
class ResponseParts:
    """One response in the making: the reply, its id and the request's echoed settings."""

    reply: Reply
    response_id: str
    stored: bool

    def reasoning_item(self) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": "".join(REASONING)}]
        return {
            "type": "reasoning",
            "id": f"rs_{self.response_id}",
            "status": "completed",
            "summary": summary,
        }

    def answer_item(self) -> dict[str, Any]:
        """A message, or the function call that takes its place."""
        if self.reply.tool is not None:
            return {
                "type": "function_call",
                "id": f"fc_{self.response_id}",
                "call_id": CALL_ID,
                "name": self.reply.tool.name,
                "arguments": self.reply.tool.arguments,
                "status": "completed",
            }
        text = {"type": "output_text", "text": self.reply.answer.text, "annotations": []}
        return {
            "type": "message",
            "id": f"msg_{self.response_id}",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }

    def output(self) -> list[dict[str, Any]]:
        first = [self.reasoning_item()] if self.reply.reasons else []
        return [*first, self.answer_item()]

    def usage(self) -> dict[str, Any]:
        """``output_tokens`` has reasoning in it, unlike chat completions."""
        reply = self.reply
        output = reply.completion_tokens + reply.reasoning_tokens
        return {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": reply.prompt_tokens // 2},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
            "total_tokens": reply.prompt_tokens + output,
            "num_sources_used": 0,
            "num_server_side_tools_used": 0,
            "cost_in_usd_ticks": 6500000,
        }

    def response(self, status: str = "completed") -> dict[str, Any]:
        """The response object; only a completed one has output and usage."""
        done = status == "completed"
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": CREATED,
            "completed_at": CREATED + 1 if done else None,
            "status": status,
            "model": self.reply.model.id,
            "store": self.stored,
            "output": self.output() if done else [],
            "usage": self.usage() if done else None,
            "error": None,
            "incomplete_details": None,
        }


def event_sse(frame: bytes) -> bytes:
    """One SSE event, its name taken from the frame's type."""
    try:
        kind = str(json.loads(frame)["type"])
    except (ValueError, TypeError, KeyError):
        return b"data: " + frame + b"\n\n"
    return b"event: " + kind.encode() + b"\ndata: " + frame + b"\n\n"


EVENTS = BodyForm("text/event-stream", event_sse, DONE)


class _Events:
    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, kind: str, **keys: Any) -> bytes:
        return encode({"type": kind, "sequence_number": next(self._numbers), **keys})


def response_script(parts: ResponseParts) -> Script:
    """The events of a streamed response."""
    event = _Events()
    before = [
        event("response.created", response=parts.response("in_progress")),
        event("response.in_progress", response=parts.response("in_progress")),
        *_reasoning_events(event, parts),
    ]
    index = len(parts.output()) - 1
    head, deltas, tail = _answer_events(event, parts, index)
    completed = event("response.completed", response=parts.response())
    before += head
    frames = (*before, *deltas, *tail, completed)
    failed = {**parts.response("failed"), "error": {"code": "server_error", "message": "Failed."}}
    return Script(
        frames=frames,
        cut_at=len(before) + (len(deltas) + 1) // 2,
        answer_end=len(before) + len(deltas),
        complete_at=len(frames),
        error=_error_event,
        failure=(encode({"type": "response.failed", "response": failed}),),
        garbage=GARBAGE,
        pause_ms=parts.reply.answer.pause_ms,
    )


def _error_event(code: int | str, message: str) -> bytes:
    flat = json.loads(error_body(code, message))
    return encode({"type": "error", "code": flat["code"], "message": message, "param": None})


def _reasoning_events(event: _Events, parts: ResponseParts) -> Iterator[bytes]:
    if not parts.reply.reasons:
        return
    item = parts.reasoning_item()
    where = {"item_id": item["id"], "output_index": 0, "summary_index": 0}
    text = item["summary"][0]["text"]
    started = {**item, "status": "in_progress", "summary": []}
    yield event("response.output_item.added", output_index=0, item=started)
    empty = {"type": "summary_text", "text": ""}
    yield event("response.reasoning_summary_part.added", **where, part=empty)
    for piece in REASONING:
        yield event("response.reasoning_summary_text.delta", **where, delta=piece)
    yield event("response.reasoning_summary_text.done", **where, text=text)
    yield event("response.reasoning_summary_part.done", **where, part=item["summary"][0])
    yield event("response.output_item.done", output_index=0, item=item)


_Parted = tuple[list[bytes], list[bytes], list[bytes]]


def _answer_events(event: _Events, parts: ResponseParts, index: int) -> _Parted:
    """What leads in, the deltas, and what closes the last output item."""
    item = parts.answer_item()
    if item["type"] == "function_call":
        return _call_events(event, item, index)
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    started = {**item, "status": "in_progress", "content": []}
    part = item["content"][0]
    head = [
        event("response.output_item.added", output_index=index, item=started),
        event("response.content_part.added", **where, part={**part, "text": ""}),
    ]
    deltas = [
        event("response.output_text.delta", **where, delta=token)
        for token in parts.reply.answer.tokens
    ]
    tail = [
        event("response.output_text.done", **where, text=part["text"]),
        event("response.content_part.done", **where, part=part),
        event("response.output_item.done", output_index=index, item=item),
    ]
    return head, deltas, tail


def _call_events(event: _Events, item: dict[str, Any], index: int) -> _Parted:
    where = {"item_id": item["id"], "output_index": index}
    arguments = item["arguments"]
    started = {**item, "status": "in_progress", "arguments": ""}
    head = [event("response.output_item.added", output_index=index, item=started)]
    deltas = [event("response.function_call_arguments.delta", **where, delta=arguments)]
    tail = [
        event("response.function_call_arguments.done", **where, arguments=arguments),
        event("response.output_item.done", output_index=index, item=item),
    ]
    return head, deltas, tail
