"""The sockets of one worker: how many there may be, and when all have to end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.relay.imagine_round import ImagineRelay
from pool.keys import KeyDirectory

logger = logging.getLogger(__name__)
PER_VISITOR = 8
"""The page of the older service opens up to three."""
IN_ALL = 200
GOODBYE = 1.0


class NoRoom(Exception):
    """There are enough sockets; ``status`` and ``message`` are for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Retirable(Protocol):
    async def retire(self) -> None:
        """Say goodbye and close, at once."""


class Sockets:
    """``serve`` once the worker has started, ``drain`` when it is to stop.

    ``patience`` is how many seconds a reader may take for one frame, ``check_every`` how
    often a visitor's right to be here is looked at.
    """

    def __init__(
        self,
        *,
        per_visitor: int = PER_VISITOR,
        in_all: int = IN_ALL,
        patience: float = 30.0,
        check_every: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_visitor = per_visitor
        self._in_all = in_all
        self.patience = patience
        self.check_every = check_every
        self.sleep = sleep
        self._relay: ImagineRelay | None = None
        self._keys: KeyDirectory | None = None
        self._by_visitor: Counter[str] = Counter()
        self._inside: set[Retirable] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self.turned_away = 0
        """Visitors for whom there was no room."""

    @property
    def open(self) -> int:
        return len(self._inside)

    @property
    def keys(self) -> KeyDirectory:
        """Raises NoRoom while the worker does not serve."""
        if self._keys is None:
            raise NoRoom(503, "The service is stopping.")
        return self._keys

    def serve(self, relay: ImagineRelay, keys: KeyDirectory) -> None:
        self._relay, self._keys = relay, keys

    def enter(self, visitor: str, socket: Retirable) -> ImagineRelay:
        """What draws for the socket. Raises NoRoom; else ``leave`` has to follow."""
        if self._relay is None:
            raise NoRoom(503, "The service is stopping.")
        if len(self._inside) >= self._in_all:
            self.turned_away += 1
            raise NoRoom(503, "Too many sockets are open.")
        if self._by_visitor[visitor] >= self._per_visitor:
            self.turned_away += 1
            raise NoRoom(429, "Too many sockets are open with this key.")
        self._inside.add(socket)
        self._by_visitor[visitor] += 1
        return self._relay

    def leave(self, visitor: str, socket: Retirable) -> None:
        self._inside.discard(socket)
        self._by_visitor[visitor] -= 1
        self._by_visitor += Counter()  # Forgets those who have none.

    def drain(self) -> None:
        """End every socket now, and let nobody in until ``serve``.

        At once, since the server cuts off what is open a moment after it was told to stop.
        """
        self._relay = self._keys = None
        for socket in tuple(self._inside):
            task = asyncio.create_task(socket.retire(), name="imagine socket goodbye")
            self._retiring.add(task)
            task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a socket could not be ended", exc_info=error)

    async def aclose(self) -> None:
        """``drain``, and wait a moment for the goodbyes; who does not take one goes without."""
        self.drain()
        if self._retiring:
            _, late = await asyncio.wait(self._retiring, timeout=GOODBYE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
