"""grok.com: the chat socket ``/ws/mgw/`` (upstream-web 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import WSMsgType, web

from gateway.sandbox.accounts import MODES
from gateway.sandbox.answers import web_answer
from gateway.sandbox.calls import Call, Refused, client_left, web_endpoint, web_refusal
from gateway.sandbox.checks import Expect, is_uuid
from gateway.sandbox.directives import forced_behaviour, frames_wanted, last_user_text
from gateway.sandbox.faults import abort
from gateway.sandbox.mgw_bodies import (
    SESSION_STAND_IN,
    chat_script,
    counted_on_wire,
    error_event,
    event,
    images_script,
    on_wire,
    session_id,
)
from gateway.sandbox.scripts import Plan, Script, pieces, plan
from gateway.sandbox.web_chat import IMAGE_PREFIXES
from gateway.sandbox.web_files import require_own_files
from gateway.sandbox.web_media import keep_images, withheld_slots

MAX_FRAME = 16 * 1024 * 1024


class ProtocolBroken(Exception):
    """A client frame upstream would refuse: ``code`` and ``message`` go into an error event."""

    def __init__(self, message: str, code: int | str = "invalid_argument") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Conversation:
    """One socket. Frames are read while the opening and the answer are being written."""

    def __init__(self, call: Call, ws: web.WebSocketResponse) -> None:
        self._call = call
        self._state = call.state
        self._ws = ws
        self._session = session_id(int(call.state.next_id("s").partition("-")[2]))
        self._mode = ""
        self._attached = False
        self._message: str | None = None
        self._answering = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the client closes or the answer breaks the socket."""
        try:
            async for frame in self._ws:
                if frame.type is WSMsgType.TEXT:
                    await self._receive(frame.data)
                else:
                    self._state.violate("binary-frame", self._call.request.path)
            client_left(self._call)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _receive(self, data: str) -> None:
        try:
            frame = json.loads(data)
            self._call.record.frames.append(frame)
            await self._take(frame, frame["event"])
        except (ValueError, KeyError, TypeError):
            await self._send_error("invalid_argument", "The frame cannot be read.")
        except ProtocolBroken as broken:
            self._state.violate("mgw-protocol", self._call.request.path, broken.message)
            await self._send_error(broken.code, broken.message)
        except Refused as refused:
            error = json.loads(refused.refusal.body)
            await self._send_error(error["code"], error["message"])

    async def _take(self, frame: dict[str, Any], event_: dict[str, Any]) -> None:
        match event_["type"]:
            case "session.create":
                self._open(event_)
            case "conversation.item.create":
                self._accept_turn(frame, event_)
            case "response.create":
                await self._accept_response(frame)
            case "ping":
                self._state.counters["mgw-ping"] += 1
            case unknown:
                raise ProtocolBroken(f"unknown event {unknown}")

    def _open(self, event_: dict[str, Any]) -> None:
        if self._mode:
            raise ProtocolBroken("session.create came twice")
        mode = event_["session"]["model"]
        if mode not in MODES:
            raise ProtocolBroken("unknown mode")
        self._mode = mode
        self._spawn(self._greet(str(event_["event_id"])))

    async def _greet(self, client_event_id: str) -> None:
        """The two opening frames, in an order upstream does not promise."""
        opening = [
            event(self._session, "session.created", client_event_id=client_event_id),
            event(self._session, "conversation.attached", conversation={"id": self._session}),
        ]
        self._state.random.shuffle(opening)
        await self._send(opening[0])
        await asyncio.sleep(0)
        await self._send(opening[1])
        self._attached = True

    def _accept_turn(self, frame: dict[str, Any], event_: dict[str, Any]) -> None:
        self._require_open(frame)
        item = event_["item"]
        chunks = item["x_grok"]["input_chunks"]
        if item["type"] != "message" or item["role"] != "user":
            raise ProtocolBroken("item")
        mentions = [
            chunk["mention"]["target"]["file_mention"]["file_id"]
            for chunk in chunks
            if "mention" in chunk
        ]
        thrice = (event_.get("file_attachment_ids", []), item.get("file_attachment_ids", []))
        if any(ids != mentions for ids in thrice):
            raise ProtocolBroken("attachments must appear in all three places")
        require_own_files(self._call, mentions)
        self._message = "".join(chunk["text"]["text"] for chunk in chunks if "text" in chunk)
        if not self._message and not mentions:
            raise ProtocolBroken("an empty turn")

    def _require_open(self, frame: dict[str, Any]) -> None:
        if not self._attached:
            raise ProtocolBroken("a turn before session.created and conversation.attached")
        if frame.get("session_id") != self._session:
            raise ProtocolBroken("session_id")

    async def _accept_response(self, frame: dict[str, Any]) -> None:
        self._require_open(frame)
        if self._message is None or self._answering:
            raise ProtocolBroken("response.create without a turn")
        message, self._message = self._message, None
        self._call.spend(self._mode)
        await self._answer(message)

    async def _answer(self, message: str) -> None:
        """Answer at once where that can be done in one write, else beside the reading."""
        call, prompt = self._call, last_user_text(message)
        forced = forced_behaviour(prompt)
        behaviour = call.behaviour = forced or call.behaviour
        refused = behaviour.web is not None or behaviour.phase == "html"
        if refused:
            await self._send_error(behaviour.code, behaviour.message)
            return
        frames = frames_wanted(prompt)
        if frames is not None and behaviour.name == "ok" and not frames.pause_ms:
            body = counted_on_wire(frames)
            self._write(body.replace(SESSION_STAND_IN.encode(), self._session.encode()))
            self._call.record.settled = True
            return
        script = self._script(message, prompt)
        self._answering = True
        self._spawn(self._perform(plan(script, behaviour, self._state.options.slow_ms)))

    def _script(self, message: str, prompt: str) -> Script:
        response_id = self._state.next_id("resp")
        if prompt.startswith(IMAGE_PREFIXES):
            image_ids = [self._state.next_uuid() for _ in range(2)]
            keep_images(self._call, image_ids)
            withheld = withheld_slots(self._call, 2)
            user_id = self._call.account.user_id
            return images_script(self._session, user_id, image_ids, withheld, response_id)
        return chat_script(web_answer(message), self._session, response_id)

    async def _perform(self, planned: Plan) -> None:
        behaviour = self._call.behaviour
        if behaviour.phase == "reset":
            abort(self._call.request, self._call.record)
            return
        if behaviour.phase in ("silent", "hang"):
            return
        for number, body in enumerate(self._bodies(planned)):
            if number and planned.pause_s:
                await self._state.options.sleep(planned.pause_s)
            self._write(body)
            await asyncio.sleep(0)
        self._answering = False
        self._call.record.settled = True
        await self._end(planned)

    def _bodies(self, planned: Plan) -> Iterator[bytes]:
        split = self._call.behaviour.split
        wire = [on_wire(frame) for frame in planned.frames]
        if planned.pause_s:
            return iter(wire)
        whole = b"".join(wire)
        return pieces(whole, split) if split else iter((whole,))

    async def _end(self, planned: Plan) -> None:
        if planned.ending == "abort":
            abort(self._call.request, self._call.record)
            return
        if planned.ending == "ended":
            await self._send(event(self._session, "session.ended"))
        if planned.ending in ("ended", "cut"):
            await self._ws.close()

    async def _send_error(self, code: int | str, message: str) -> None:
        self._call.record.settled = True
        await self._send(error_event(self._session, code, message))

    async def _send(self, payload: bytes) -> None:
        await self._ws.send_str(payload.decode())

    def _write(self, body: bytes) -> None:
        """Ready-made WebSocket frames, past aiohttp's own writer."""
        transport = self._call.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.write(body)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def listen(call: Call) -> web.StreamResponse:
    """Check the handshake (3.1), then hold the conversation."""
    _check_handshake(call)
    ws = web.WebSocketResponse(compress=False, max_msg_size=MAX_FRAME)
    await ws.prepare(call.request)
    await Conversation(call, ws).run()
    return ws


def _check_handshake(call: Call) -> None:
    """Raise Refused unless ``uid`` is the UUID of the ``x-userid`` cookie."""
    uid = call.request.query.get("uid", "")
    if not is_uuid(uid) or call.request.cookies.get("x-userid") != uid:
        call.state.violate("mgw-uid", call.request.path, uid)
        raise web_refusal(400, 3, "invalid_argument: uid")
    if uid != call.account.user_id:
        call.state.violate("foreign-uid", call.request.path, uid)
    if "Sec-WebSocket-Protocol" in call.request.headers:
        call.state.violate("unexpected-header", call.request.path, "Sec-WebSocket-Protocol")


ROUTES = (web.get("/ws/mgw/", web_endpoint(listen, Expect(referer_path=None), socket=True)),)
