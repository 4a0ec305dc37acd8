"""grok.com: the picture socket ``/ws/imagine/listen`` (upstream-web 8)."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from gateway.sandbox.calls import Call, client_left, public_endpoint, web_endpoint
from gateway.sandbox.checks import Expect
from gateway.sandbox.directives import forced_behaviour
from gateway.sandbox.faults import abort
from gateway.sandbox.media_bytes import jpeg, png
from gateway.sandbox.scripts import Script, plan
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.web_media import withheld_slots

RATIOS = frozenset(
    {
        *("auto", "16:9", "9:16", "1:1", "2:3", "3:2", "4:3", "3:4"),
        *("2:1", "1:2", "19.5:9", "9:19.5", "20:9", "9:20"),
    }
)
ROUND = {False: 6, True: 4}
"""Pictures per round where ``num_generations`` is not given, by ``enable_pro`` (8.1)."""
GARBAGE = (
    b'{"type": oops',
    b'{"type":"surprise"}',
    b'{"type":"image","request_id":"someone-else","url":"https://example.org/x.jpg"}',
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One picture of a round."""

    image_id: str
    order: int
    base_url: str
    withheld: bool

    def _json(self, status: str, **keys: Any) -> bytes:
        frame = {"type": "json", "current_status": status, "image_id": self.image_id}
        return encode({**frame, "order": self.order, **keys})

    def start(self) -> bytes:
        return self._json("start_stage", width=832, height=1248, percentage_complete=0)

    def _image(self, content: bytes, suffix: str, percent: int | None) -> bytes:
        blob = base64.b64encode(content).decode()
        frame: dict[str, Any] = {"type": "image", "id": self.image_id, "order": self.order}
        if percent is not None:
            frame["percentage_complete"] = percent
        url = f"{self.base_url}/imagine-public/images/{self.image_id}.{suffix}"
        return encode({**frame, "url": url, "blob": blob, "width": 832, "height": 1248})

    def preview(self) -> bytes:
        return self._image(png(self.image_id), "png", 50)

    def final(self) -> bytes:
        """The finished bytes; every third slot leaves the percentage out."""
        percent = None if self.order % 3 == 2 else 100
        return self._image(jpeg(self.image_id), "jpg", percent)

    def completed(self) -> bytes:
        return self._json("completed", moderated=self.withheld, r_rated=False)

    def endings(self) -> tuple[bytes, ...]:
        """Odd slots are completed before their bytes; a withheld one has no bytes."""
        if self.withheld:
            return (self.completed(),)
        ending = (self.final(), self.completed())
        return ending[::-1] if self.order % 2 else ending


def error_frame(code: int | str, message: str) -> bytes:
    """The error form of 8.3."""
    word = "rate_limit_exceeded" if code in (8, "rate_limit_exceeded") else str(code)
    return encode({"type": "error", "err_code": word, "err_msg": message})


def round_script(slots: list[Slot]) -> Script:
    """One round: all slots start, previews, then finals interleaved from the last slot."""
    opening = [slot.start() for slot in slots] + [slot.preview() for slot in slots]
    endings = [slot.endings() for slot in reversed(slots)]
    firsts = [ending[0] for ending in endings]
    seconds = [ending[1] for ending in endings if len(ending) > 1]
    frames = (*opening, *firsts, *seconds)
    return Script(
        frames=frames,
        cut_at=len(opening) + 1,
        answer_end=len(opening),
        complete_at=len(frames),
        error=error_frame,
        failure=(encode({"type": "json", "current_status": "error", "error": "failed"}),),
        garbage=GARBAGE,
    )


class Listener:
    """One socket; it may be used for round after round."""

    def __init__(self, call: Call, ws: web.WebSocketResponse) -> None:
        self._call = call
        self._ws = ws
        self._drawing: asyncio.Task[None] | None = None
        call.record.settled = True

    async def run(self) -> None:
        """Serve until the client closes or a behaviour breaks the socket."""
        try:
            async for frame in self._ws:
                if frame.type is WSMsgType.TEXT:
                    await self._receive(frame.data)
            client_left(self._call)
        finally:
            if self._drawing is not None:
                self._drawing.cancel()

    async def _receive(self, data: str) -> None:
        try:
            frame = json.loads(data)
            self._call.record.frames.append(frame)
            content = next(iter(frame["item"]["content"]))
            kind = content["type"]
            if frame["type"] != "conversation.item.create":
                raise ValueError(frame["type"])
            if kind == "reset":
                return
            slots = self._slots(content)
        except (ValueError, KeyError, TypeError, StopIteration):
            await self._ws.send_str(error_frame("invalid_argument", "Bad request").decode())
            return
        await self._draw(slots)

    def _slots(self, content: dict[str, Any]) -> list[Slot]:
        """Check a prompt in either dialect. Raises ValueError or KeyError."""
        properties = content["properties"]
        if content["type"] not in ("input_text", "input_scroll") or not content["text"]:
            raise ValueError(content["type"])
        if properties["aspect_ratio"] not in RATIOS or not content["requestId"]:
            raise ValueError("aspect_ratio")
        pro = bool(properties.get("enable_pro", False))
        count = int(properties.get("num_generations", ROUND[pro]))
        if not 1 <= count <= 10:
            raise ValueError("num_generations")
        call = self._call
        call.behaviour = forced_behaviour(content["text"]) or call.behaviour
        withheld = withheld_slots(call, count)
        ids = [call.state.next_uuid() for _ in range(count)]
        return [Slot(id_, i, call.origin, i in withheld) for i, id_ in enumerate(ids)]

    async def _draw(self, slots: list[Slot]) -> None:
        call = self._call
        behaviour = call.behaviour
        call.record.settled = False
        if behaviour.phase == "reset":
            abort(call.request, call.record)
        elif behaviour.web is not None and behaviour.moderated == "none":
            error = error_frame(behaviour.code, behaviour.message)
            await self._ws.send_str(error.decode())
            call.record.settled = True
        elif behaviour.phase not in ("silent", "hang"):
            call.state.spend(call.account, "image_pro", len(slots))
            self._drawing = asyncio.get_running_loop().create_task(self._perform(slots))

    async def _perform(self, slots: list[Slot]) -> None:
        call = self._call
        planned = plan(round_script(slots), call.behaviour, call.state.options.slow_ms)
        for number, frame in enumerate(planned.frames):
            if number and planned.pause_s:
                await call.state.options.sleep(planned.pause_s)
            await self._ws.send_str(frame.decode())
        call.record.settled = True
        if planned.ending == "abort":
            abort(call.request, call.record)
        elif planned.ending in ("ended", "cut"):
            await self._ws.close()


async def listen(call: Call) -> web.StreamResponse:
    """Draw what comes in until the client closes."""
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(call.request)
    await Listener(call, ws).run()
    return ws


async def public_image(request: web.Request) -> web.Response:
    """A picture anyone may fetch; neither cookie nor key belongs here."""
    name = request.match_info["name"]
    if name.endswith(".png"):
        return web.Response(body=png(name[:-4]), content_type="image/png")
    return web.Response(body=jpeg(name.removesuffix(".jpg")), content_type="image/jpeg")


ROUTES = (
    web.get("/ws/imagine/listen", web_endpoint(listen, Expect(referer_path="*"), socket=True)),
    web.get("/imagine-public/images/{name}", public_endpoint(public_image)),
)
