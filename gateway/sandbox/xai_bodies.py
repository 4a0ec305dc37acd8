"""Bodies and chunks of api.x.ai's chat completions (upstream-xai 3.3, 3.4)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.sandbox.answers import REASONING, counted
from gateway.sandbox.directives import Frames
from gateway.sandbox.faults import BodyForm
from gateway.sandbox.scripts import Script
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.xai_models import find_model
from gateway.sandbox.xai_requests import Reply, ToolRequest

FINGERPRINT = "fp_0123456789"
CREATED = 1790000000
GARBAGE = (b'{"id": oops', b"[]", b'{"object":"surprise"}', b"\xff\xfe not json")
DONE = b"data: [DONE]\n\n"
CALL_ID = "call_1"


def sse(frame: bytes) -> bytes:
    """One SSE event."""
    return b"data: " + frame + b"\n\n"


SSE = BodyForm("text/event-stream", sse, DONE)


def error_body(code: int | str, message: str) -> bytes:
    """The flat form of 10.1; a numeric code becomes the word that service uses."""
    words = {8: "resource-exhausted", 7: "permission-denied", 13: "Internal error"}
    word = words.get(code, "Internal error") if isinstance(code, int) else code
    return encode({"code": word, "error": message})


def usage_of(reply: Reply, choices: int = 1) -> dict[str, Any]:
    """``completion_tokens`` leaves reasoning out, ``total_tokens`` has it in."""
    completion = reply.completion_tokens * choices
    prompt, reasoning = reply.prompt_tokens, reply.reasoning_tokens * choices
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion + reasoning,
        "prompt_tokens_details": {
            "text_tokens": prompt,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": prompt // 2,
        },
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "num_sources_used": 0,
        "cost_in_usd_ticks": 2739000,
    }


def _tool_calls(tool: ToolRequest) -> list[dict[str, Any]]:
    function = {"name": tool.name, "arguments": tool.arguments}
    return [{"id": CALL_ID, "type": "function", "index": 0, "function": function}]


def completion(reply: Reply, response_id: str, choices: int = 1) -> bytes:
    """A whole chat completion."""
    message: dict[str, Any] = {"role": "assistant", "refusal": None}
    if reply.reasons:
        message["reasoning_content"] = "".join(REASONING)
    if reply.tool is not None:
        message |= {"content": "", "tool_calls": _tool_calls(reply.tool)}
    else:
        message["content"] = reply.answer.text
    finish = "tool_calls" if reply.tool is not None else "stop"
    choice = {"message": message, "finish_reason": finish}
    return encode(
        {
            "id": response_id,
            "object": "chat.completion",
            "created": CREATED,
            "model": reply.model.id,
            "choices": [{"index": index, **choice} for index in range(choices)],
            "usage": usage_of(reply, choices),
            "system_fingerprint": FINGERPRINT,
        }
    )


class _Chunks:
    def __init__(self, reply: Reply, response_id: str) -> None:
        self._base = {
            "id": response_id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": reply.model.id,
        }

    def delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta}
        if finish is not None:
            choice["finish_reason"] = finish
        return encode({**self._base, "choices": [choice], "system_fingerprint": FINGERPRINT})

    def usage(self, usage: dict[str, Any]) -> bytes:
        return encode({**self._base, "choices": [], "usage": usage})


def completion_script(reply: Reply, response_id: str, with_usage: bool) -> Script:
    """The chunks of a streamed completion; a tool call comes whole in one of them."""
    chunks = _Chunks(reply, response_id)
    before = [chunks.delta({"role": "assistant", "content": ""})]
    if reply.reasons:
        before += [chunks.delta({"reasoning_content": text}) for text in REASONING]
    if reply.tool is not None:
        tokens = [chunks.delta({"tool_calls": _tool_calls(reply.tool)})]
    else:
        tokens = [chunks.delta({"content": token}) for token in reply.answer.tokens]
    closing = [chunks.delta({}, "tool_calls" if reply.tool is not None else "stop")]
    if with_usage:
        closing.append(chunks.usage(usage_of(reply)))
    frames = (*before, *tokens, *closing)
    return Script(
        frames=frames,
        cut_at=len(before) + (len(tokens) + 1) // 2,
        answer_end=len(before) + len(tokens),
        complete_at=len(before) + len(tokens) + 1,
        error=error_body,
        failure=(error_body(13, "The model failed."),),
        garbage=GARBAGE,
        pause_ms=reply.answer.pause_ms,
    )


@lru_cache(maxsize=64)
def frames_script(frames: Frames, model_id: str, with_usage: bool) -> Script:
    """The chunks of ``FRAMES:``, encoded once, the body ready to be written."""
    script = completion_script(_frames_reply(frames, model_id), "resp-frames", with_usage)
    return replace(script, whole=b"".join(map(sse, script.frames)) + DONE)


@lru_cache(maxsize=64)
def frames_completion(frames: Frames, model_id: str) -> bytes:
    """The whole completion of ``FRAMES:``, encoded once."""
    return completion(_frames_reply(frames, model_id), "resp-frames")


def _frames_reply(frames: Frames, model_id: str) -> Reply:
    model = find_model(model_id)
    if model is None:
        raise KeyError(model_id)
    return Reply(model, counted(frames), None, 16)
