"""Doing to a connection what a behaviour calls for."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway.sandbox.behaviours import HTML, OTHER_PAGE, Behaviour, Refusal
from gateway.sandbox.scripts import Plan, pieces
from gateway.sandbox.state import RecordedRequest, SandboxState


@dataclass(frozen=True, slots=True)
class BodyForm:
    """How frames become a body: its type, each frame's wrapping, and what ends it."""

    content_type: str
    wrap: Callable[[bytes], bytes]
    end: bytes = b""


def refusal_response(refusal: Refusal) -> web.Response:
    """A refusal as an HTTP answer."""
    headers = {"Content-Type": refusal.content_type, **refusal.headers}
    return web.Response(status=refusal.status, body=refusal.body, headers=headers)


def abort(request: web.Request, record: RecordedRequest) -> None:
    """Reset the connection; nothing unsent is sent."""
    record.settled = True
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def forever() -> None:
    """Wait until cancelled, which happens when the client goes or the sandbox stops."""
    await asyncio.Event().wait()


async def before_headers(
    request: web.Request, record: RecordedRequest, behaviour: Behaviour
) -> web.Response | None:
    """The answer of a behaviour that acts before the work starts, else None."""
    match behaviour.phase:
        case "reset":
            abort(request, record)
            return web.Response()
        case "hang":
            await forever()
        case "html":
            return web.Response(body=OTHER_PAGE, headers={"Content-Type": HTML})
    return None


async def send_plan(
    request: web.Request,
    state: SandboxState,
    record: RecordedRequest,
    plan: Plan,
    form: BodyForm,
    behaviour: Behaviour,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Write a planned body: in one write unless something asks for more."""
    head = {"Content-Type": form.content_type, **(headers or {})}
    if plan.whole is not None and not behaviour.split:
        return _chunked(web.Response(body=plan.whole, headers=head))
    if plan.ending == "eof" and not plan.pause_s and not behaviour.split:
        body = b"".join(map(form.wrap, plan.frames)) + form.end
        return _chunked(web.Response(body=body, headers=head))
    response = web.StreamResponse(headers=head)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await _write_frames(response, state, plan, form, behaviour)
    await _end(request, record, response, plan)
    return response


def _chunked(response: web.Response) -> web.Response:
    response.enable_chunked_encoding()
    return response


async def _write_frames(
    response: web.StreamResponse,
    state: SandboxState,
    plan: Plan,
    form: BodyForm,
    behaviour: Behaviour,
) -> None:
    wrapped = [form.wrap(frame) for frame in plan.frames]
    if plan.ending == "eof" and form.end:
        wrapped.append(form.end)
    if not plan.pause_s:
        wrapped = [b"".join(wrapped)]
    for number, body in enumerate(wrapped):
        if number and plan.pause_s:
            await state.options.sleep(plan.pause_s)
        for piece in pieces(body, behaviour.split or len(body) or 1):
            await response.write(piece)
            if behaviour.split:
                await asyncio.sleep(0)


async def _end(
    request: web.Request, record: RecordedRequest, response: web.StreamResponse, plan: Plan
) -> None:
    match plan.ending:
        case "silent":
            await forever()
        case "abort":
            abort(request, record)
        case _:
            await response.write_eof()
