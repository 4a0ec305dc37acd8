"""Carries a worker's operations to Redis, all that have gathered in one call, in order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from pool.shared.store import Script, SharedStore, StoreAway

Operation = dict[str, Any]
PULL: Operation = {"o": "pull"}
MOST_AT_ONCE = 64
MOST_CHANGES = 500
SCRIPT = (Path(__file__).parent / "pool.lua").read_text(encoding="utf-8")

_Waiting = tuple[Operation, asyncio.Future[int] | None]


class Courier:
    """``deliver`` gets the documents (JSON texts) of every reply, ``undelivered`` the told
    operations of a call that failed; those may have been carried out all the same.

    The queue holds at most a few operations per open lease and changed credential: while
    Redis is away nothing is queued.
    """

    def __init__(
        self,
        store: SharedStore,
        deliver: Callable[[list[str]], None],
        undelivered: Callable[[Iterable[Operation]], None],
    ) -> None:
        self._store = store
        self._script = Script(SCRIPT)
        self._deliver = deliver
        self._undelivered = undelivered
        self._queue: deque[_Waiting] = deque()
        self._slow: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self.turn = asyncio.Lock()
        """Held during a call: Redis hears of everything in one order."""
        self.seen = 0
        self.is_behind = False
        """Whether there are changes of others that the last reply had no room for."""

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._slow)

    async def ask(self, operation: Operation) -> int:
        """The operation's number; raises StoreAway. Cancelling leaves the rest to be undone by
        ``tell``: the operation itself may have been carried out."""
        if self._ended or not self._store.available:
            raise StoreAway
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._put(self._queue, operation, answer)
        return await answer

    def tell(self, operation: Operation, *, in_time: bool = True) -> None:
        """Have it carried out after everything that was asked and told before.

        What need not be ``in_time`` comes in an order of its own, when there is room, so that
        no request waits behind thousands of changes.
        """
        if self._ended or not self._store.available:
            self._undelivered([operation])
        else:
            self._put(self._queue if in_time else self._slow, operation, None)

    def _put(
        self, queue: deque[_Waiting], operation: Operation, answer: asyncio.Future[int] | None
    ) -> None:
        queue.append((operation, answer))
        self._idle.clear()
        self._work.set()

    async def drain(self) -> None:
        """Wait until everything has been carried out, or Redis has been lost."""
        await self._idle.wait()

    async def run_forever(self) -> None:
        try:
            while True:
                await self._work.wait()
                while self.queued:
                    async with self.turn:
                        if batch := self._next_batch():
                            await self._carry(batch)
                self._work.clear()
                self._idle.set()
        finally:
            self._ended = True
            self.give_up()
            self._idle.set()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        for queue in (self._queue, self._slow):
            while queue and len(batch) < MOST_AT_ONCE:
                batch.append(queue.popleft())
        return batch

    async def _carry(self, batch: list[_Waiting]) -> None:
        numbers: list[int] | None = None
        try:
            numbers = await self._call([operation for operation, _ in batch], returning=False)
        except StoreAway:
            return
        finally:
            if numbers is None:
                self._fail(batch)
                self.give_up()
        for (_, answer), number in zip(batch, numbers, strict=True):
            if answer is not None and not answer.done():
                answer.set_result(number)

    def give_up(self) -> None:
        """Everything that waits has failed."""
        waiting = [*self._queue, *self._slow]
        self._queue.clear()
        self._slow.clear()
        self._fail(waiting)

    def _fail(self, batch: list[_Waiting]) -> None:
        for _, answer in batch:
            if answer is not None and not answer.done():
                answer.set_exception(StoreAway())
        self._undelivered(operation for operation, answer in batch if answer is None)

    async def catch_up(self, operations: list[Operation]) -> None:
        """Carry out ``operations`` now and take over all changes of others; raises StoreAway.

        Takes from the list what has been carried out. For the one who has the ``turn``.
        """
        while True:
            part = operations[:MOST_AT_ONCE]
            await self._call(part, returning=True)
            del operations[: len(part)]
            if not operations and not self.is_behind:
                return

    async def _call(self, operations: list[Operation], *, returning: bool) -> list[int]:
        store, session = self._store, self._store.session
        arguments: list[str | float] = [store.worker, session, self.seen, MOST_CHANGES]
        arguments.append(text_of(operations))
        reply = await store.run(self._script, [store.prefix], arguments, returning=returning)
        if session != store.session:
            raise StoreAway  # answered by a Redis that has since forgotten it
        try:
            seen, more, numbers, *documents = reply
            self.seen, self.is_behind = int(seen), bool(more)
            numbers = [int(number) for number in numbers]
            if len(numbers) != len(operations):
                raise ValueError(f"{len(numbers)} answers to {len(operations)} operations")
        except (TypeError, ValueError) as error:
            store.lose(error)
            raise StoreAway from error
        self._deliver(documents)
        return numbers


def text_of(operations: list[Operation]) -> str:
    """As JSON, whatever characters upstream put into a name."""
    try:
        return to_json(operations).decode()
    except PydanticSerializationError:
        return json.dumps(operations, ensure_ascii=False).encode("utf-8", "replace").decode()
