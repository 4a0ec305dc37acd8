"""api.x.ai: ``/v1/chat/completions`` (upstream-xai 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiohttp import web

from gateway.sandbox.calls import Call, xai_endpoint, xai_refusal
from gateway.sandbox.directives import Frames
from gateway.sandbox.faults import BodyForm
from gateway.sandbox.scripts import Script
from gateway.sandbox.xai_bodies import (
    SSE,
    completion,
    completion_script,
    error_body,
    frames_completion,
    frames_script,
)
from gateway.sandbox.xai_requests import Reply, chat_reply, last_user_message

MAX_CHOICES = 10


def prompt_of(body: dict[str, Any]) -> str:
    return last_user_message(body.get("messages"))


async def chat_completions(call: Call) -> web.StreamResponse:
    """A chat completion, streamed or whole."""
    reply = chat_reply(call)
    body = call.json()
    if body.get("stream"):
        return await stream_script(call, _script(call, reply, _wants_usage(body)), SSE)
    choices = body.get("n") or 1
    if not isinstance(choices, int) or not 1 <= choices <= MAX_CHOICES:
        raise xai_refusal(400, "invalid-argument", "n is out of range.")
    counted = _counted(reply)
    if counted is not None and choices == 1:
        return await send_whole(call, frames_completion(counted, reply.model.id))
    return await send_whole(call, completion(reply, call.state.next_uuid(), choices))


def _counted(reply: Reply) -> Frames | None:
    answer = reply.answer
    if answer.rich or reply.tool is not None:
        return None
    return Frames(len(answer.tokens), answer.pause_ms)


def _script(call: Call, reply: Reply, with_usage: bool) -> Script:
    counted = _counted(reply)
    if counted is not None:
        return frames_script(counted, reply.model.id, with_usage)
    return completion_script(reply, call.state.next_uuid(), with_usage)


def _wants_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


async def stream_script(call: Call, script: Script, form: BodyForm) -> web.StreamResponse:
    """Stream a script; an error in band comes as JSON with a 200 (3.3)."""
    if call.behaviour.in_band:
        return json_body(error_body(call.behaviour.code, call.behaviour.message))
    return await call.stream(script, form)


def json_body(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def send_whole(call: Call, body: bytes) -> web.StreamResponse:
    """A whole JSON answer as this call's behaviour has it; ``slow`` only delays it."""
    behaviour = call.behaviour
    if behaviour.in_band or behaviour.mid or behaviour.failed:
        return json_body(error_body(behaviour.code, behaviour.message))
    if behaviour.garbage:
        return json_body(b'{"id": oops')
    if behaviour.slow:
        await call.state.options.sleep(call.state.options.slow_ms / 1000)
    if behaviour.cut or behaviour.phase == "silent" or behaviour.split:
        return await _send_in_parts(call, body)
    return json_body(body)


async def _send_in_parts(call: Call, body: bytes) -> web.StreamResponse:
    halves = tuple(_halves(body))
    script = Script(
        frames=halves,
        cut_at=1,
        answer_end=1,
        complete_at=2,
        error=error_body,
        failure=(),
        garbage=(),
    )
    plain = BodyForm("application/json", bytes)
    return await call.stream(script, plain)


def _halves(body: bytes) -> Iterator[bytes]:
    middle = len(body) // 2
    yield body[:middle]
    yield body[middle:]


ROUTES = (web.post("/v1/chat/completions", xai_endpoint(chat_completions, prompt_of=prompt_of)),)
