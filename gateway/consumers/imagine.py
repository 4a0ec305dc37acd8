"""``/api/v1/admin/imagine/ws``: pictures of one prompt until they are stopped.

A client's place, its run and the run's upstream end together, whoever ends them: the
client, the operator who takes its key away, the server that stops, or a reader too slow.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from gateway.consumers import frames
from gateway.consumers.admission import Visitor, admit
from gateway.consumers.frames import BadCommand, Event, Ping, Start, Stop
from gateway.consumers.sockets import NoRoom, Sockets
from gateway.exchange import End
from gateway.relay.imagine_round import ImagineRelay, Order
from gateway.relay.imagine_run import ImagineRun, Picture
from gateway.wire.errors import envelope
from pool.keys import KeyRefused

logger = logging.getLogger(__name__)
MAX_FRAME = 64 * 1024
GOING_AWAY, POLICY, TOO_BIG = 1001, 1008, 1009
Message = dict[str, Any]
_LEFT = (OSError, RuntimeError)
"""What sending to a client raises that is gone: a time-out is an OSError, and the server has
RuntimeError for a socket that it has closed itself."""


@dataclass(slots=True, eq=False)
class _Running:
    """A run that was announced; ``over`` once its end was announced as well.

    ``halted``: it was cancelled, which must not happen again while it tidies up.
    """

    id: str
    run: ImagineRun
    order: Start
    task: asyncio.Task[None] | None = None
    halted: bool = False
    over: bool = False


class ImagineConsumer(AsyncWebsocketConsumer):
    """One socket. Nothing is broadcast, so there is no channel layer."""

    channel_layer_alias = ""

    def __init__(self, sockets: Sockets) -> None:
        super().__init__()
        self._sockets = sockets
        self._visitor: Visitor | None = None
        self._relay: ImagineRelay | None = None
        self._guard: asyncio.Task[None] | None = None
        self._current: _Running | None = None
        self._turn = asyncio.Lock()
        self._retired = False
        self._gone = asyncio.Event()
        self._receive: Callable[[], Awaitable[Any]]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._receive = receive
        try:
            await super().__call__(scope, self._next, send)
        finally:
            await self._leave()

    async def dispatch(self, message: Message) -> None:
        """As the parent's, which would also visit the database's thread for every frame."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: object) -> None:
        self._gone.set()
        raise StopConsumer

    async def connect(self) -> None:
        try:
            visitor = await admit(self.scope, self._sockets.keys)
            self._relay = self._sockets.enter(visitor.name, self)
        except KeyRefused:
            await self.close()
            return
        except NoRoom as full:
            await self._refuse(full)
            return
        self._visitor = visitor
        await self.accept(visitor.subprotocol)
        self._guard = asyncio.create_task(self._watch(visitor), name="imagine socket guard")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if len(text_data.encode() if text_data is not None else bytes_data or b"") > MAX_FRAME:
            await self._close(TOO_BIG)
            return
        try:
            command = frames.read_command(text_data)
        except BadCommand as bad:
            await self._say(frames.failure(bad.code, bad.message))
            return
        match command:
            case Start():
                await self._start(command)
            case Stop():
                await self._stop()
            case Ping():
                await self._say(frames.PONG)

    async def retire(self) -> None:
        """The server stops: end the run and close."""
        if self._current is not None:
            self._current.run.cut_short = End.STOPPED
        await self._dismiss(GOING_AWAY)

    async def _start(self, order: Start) -> None:
        async with self._turn:
            await self._halt()
            relay, visitor = self._relay, self._visitor
            if self._retired or relay is None or visitor is None:
                return
            run = ImagineRun(relay, Order(order.prompt, order.ratio, visitor.key))
            self._current = running = _Running(uuid.uuid4().hex, run, order)
            if await self._say(frames.running(order, running.id)) and not running.over:
                running.task = asyncio.create_task(self._perform(running), name="imagine run")
                running.task.add_done_callback(_report_death)

    async def _stop(self) -> None:
        async with self._turn:
            await self._halt()

    async def _halt(self) -> None:
        """End the run, if there is one, and say so."""
        running = self._current
        if running is None:
            return
        if running.task is not None:
            if not running.halted:
                running.halted = True
                running.task.cancel()
            await asyncio.wait([running.task])
        self._current = None
        await self._conclude(running)

    async def _perform(self, running: _Running) -> None:
        try:
            async with aclosing(running.run.happenings()) as happenings:
                async for happening in happenings:
                    if isinstance(happening, Picture):
                        event = frames.image(happening, running.order, running.id)
                    else:
                        event = frames.trouble(happening.error, running.id)
                    if running.over or not await self._say(event):
                        break
        except BaseException as error:
            if isinstance(error, Exception):
                text = "Something broke in here."
                await self._say(frames.failure("internal_error", text, running.id))
            raise
        finally:
            await self._conclude(running)

    async def _conclude(self, running: _Running) -> None:
        """Announce the end of a run, once."""
        if not running.over:
            running.over = True
            await self._say(frames.stopped(running.id))

    async def _watch(self, visitor: Visitor) -> None:
        """End the connection soon after its key or session has lost its right."""
        try:
            while True:
                await self._sockets.sleep(self._sockets.check_every)
                await visitor.recheck()
        except KeyRefused:
            text = "The API key is missing, wrong, disabled or expired."
            await self._say(frames.failure("invalid_api_key", text))
            await self._dismiss(POLICY)

    async def _dismiss(self, code: int) -> None:
        """Say goodbye first, since there may be no time; leaving ends what still runs."""
        self._retired = True
        if self._current is not None:
            await self._conclude(self._current)
        await self._close(code)

    async def _refuse(self, full: NoRoom) -> None:
        """Answer the handshake, with more than a 403 where the server can."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self.close()
            return
        kind = "rate_limit_error" if full.status == 429 else "server_error"
        body = json.dumps(envelope(full.message, kind, "too_many_sockets")).encode()
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"5")]
        send: Callable[[Any], Awaitable[None]] = self.base_send
        start = {"type": "websocket.http.response.start", "status": full.status}
        await send({**start, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})

    async def _say(self, event: Event) -> bool:
        """Send one event; False when nobody can be told any more.

        Waits for as long as the client has not taken what was sent before, so that a slow
        reader holds its run up rather than memory; one that takes too long has left.
        """
        if self._gone.is_set():
            return False
        text = frames.encode(event)
        try:
            async with asyncio.timeout(self._sockets.patience):
                await self.send(text_data=text)
        except _LEFT:
            self._gone.set()
            return False
        return True

    async def _close(self, code: int) -> None:
        if self._gone.is_set():
            return
        with suppress(*_LEFT):
            async with asyncio.timeout(self._sockets.patience):
                await self.close(code)
        self._gone.set()

    async def _next(self) -> Any:
        """The next message of the client, or its end where ours has come."""
        receiving = asyncio.ensure_future(self._receive())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((receiving, gone), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            return {"type": "websocket.disconnect", "code": 1006}
        finally:
            receiving.cancel()
            gone.cancel()

    async def _leave(self) -> None:
        self._gone.set()
        self._retired = True
        async with self._turn:
            await self._halt()
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])
        if self._visitor is not None:
            self._sockets.leave(self._visitor.name, self)


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("an imagine run broke", exc_info=error)
