"""Redis as workers share it: scripts, a heart-beat that says who lives, and its absence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

logger = logging.getLogger(__name__)

BEAT_EVERY = 2.0
DEAD_AFTER = 8.0
"""Seconds without a beat after which a worker counts as gone and its holds are given back."""
AT_ONCE = 32
"""Calls under way at the same time, each on a connection of its own; more wait for one."""

_BEAT = """
local workers, me, after = KEYS[1], ARGV[1], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local last = tonumber(redis.call('ZSCORE', workers, me))
redis.call('ZADD', workers, now, me)
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SET', KEYS[2], ARGV[2]) end
local known = last and redis.call('HGET', KEYS[3], me) == ARGV[4]
local session = known and ARGV[5] == '0' and ARGV[4] or ARGV[2]
redis.call('HSET', KEYS[3], me, session)
-- A worker that was away itself cannot tell the dead from others that were away with it, until
-- those have had time to come back. Whoever said farewell has the score 0.
local gone = last and now - last < after and now - after or 0
local dead = redis.call('ZRANGEBYSCORE', workers, '-inf', gone)
return {redis.call('GET', KEYS[2]), known and 1 or 0, dead, session, string.format('%.6f', gone)}
"""


class StoreAway(Exception):
    """Redis cannot be reached, is too slow, or refuses to work."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heart-beat found.

    ``epoch`` changes when Redis has lost its data. ``known`` is false when this worker had
    been given up (or is new), so that nothing of it is remembered there. ``dead`` are the
    workers whose holds are to be given back.
    """

    epoch: str
    known: bool
    dead: tuple[str, ...]


class Script:
    """A Lua script, sent by its hash; ``text`` is its source."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = ""


Listener = Callable[[Beat], Awaitable[None]]


async def _heeding_cancellation(call: Awaitable[Any]) -> Any:
    """Redis' driver loses a cancellation that comes just as a command has been sent, where
    asyncio.wait_for does (Python 3.11)."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


class SharedStore:
    """One per worker. ``worker`` is its unique name, ``prefix`` separates installations.

    While Redis is away every call fails at once with StoreAway; ``beat_forever`` finds out
    when it is back. ``timeout`` is in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        worker: str,
        prefix: str = "{grok2api}:",
        timeout: float = 1.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.worker = worker
        self.prefix = prefix
        self.available = True
        self.session = ""
        """Changes whenever this worker has been away or was forgotten. What Redis has under
        another one is not this worker's any more."""
        self._sleep = sleep
        self._listeners: list[Listener] = []
        self._beat = Script(_BEAT)
        self._beats = 0
        self._places = asyncio.Semaphore(AT_ONCE)
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="replace",
            max_connections=2 * AT_ONCE,
        )

    def key(self, name: str) -> str:
        return self.prefix + name

    @property
    def workers_key(self) -> str:
        """The sorted set of workers by their last beat (Redis' own clock, seconds)."""
        return self.key("workers")

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` awaited after every beat, before calls are let through again."""
        self._listeners.append(listener)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | float],
        *,
        returning: bool = False,
    ) -> Any:
        """The script's reply; raises StoreAway. Listeners call with ``returning``, since they
        work before others are let through again."""
        if not (self.available or returning):
            raise StoreAway
        async with self._places:
            if not (self.available or returning):
                raise StoreAway
            return await self._run(script, keys, args)

    async def _run(self, script: Script, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        try:
            return await _heeding_cancellation(self._evaluate(script, keys, args))
        except (RedisError, OSError, TimeoutError) as error:
            self.lose(error)
            raise StoreAway from error

    async def _evaluate(
        self, script: Script, keys: Sequence[str], args: Sequence[str | float]
    ) -> Any:
        if script.sha:
            try:
                return await self._redis.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                logger.info("Redis has forgotten a script and gets it again")
        script.sha = await self._redis.script_load(script.text)
        return await self._redis.evalsha(script.sha, len(keys), *keys, *args)

    def lose(self, error: BaseException) -> None:
        """Count Redis as away from now on, because of ``error``; the next beat may end that."""
        if self.available:
            self.available = False
            logger.warning(
                "Redis is away, workers go on by what they know: %s: %s",
                type(error).__name__,
                error,
            )

    async def beat_forever(self) -> None:
        while True:
            await self.beat()
            await self._sleep(BEAT_EVERY if self.available else BEAT_EVERY / 4)

    async def beat(self) -> bool:
        """Say that this worker lives; False while Redis is away."""
        was_away = not self.available
        try:
            if was_away:  # connections of before are of no use, and each would be one more loss
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            found, gone = await self._say_alive(was_away)
            returning = was_away or not found.known
            self.available = self.available and not returning
            for listener in self._listeners:
                await listener(found)
            if found.dead:
                buried = self._redis.zremrangebyscore(self.workers_key, "-inf", gone)
                await _heeding_cancellation(buried)
        except StoreAway:
            return False
        except (RedisError, OSError, TimeoutError) as error:
            self.lose(error)
            return False
        self.available = self.available or returning
        if was_away:
            logger.info("Redis is back")
        return self.available

    async def _say_alive(self, was_away: bool) -> tuple[Beat, str]:
        """What was found, and the time of the last beat up to which a worker counts as gone."""
        self._beats += 1
        keys = [self.workers_key, self.key("epoch"), self.key("sessions")]
        new = f"{self.worker}.{self._beats}"
        reply = await self._run(
            self._beat, keys, [self.worker, new, DEAD_AFTER, self.session, int(was_away)]
        )
        try:
            epoch, known, dead, session, gone = reply
            found = Beat(str(epoch), bool(known), tuple(dead))
        except (TypeError, ValueError) as error:
            self.lose(error)
            raise StoreAway from error
        self.session = str(session)
        return found, str(gone)

    async def aclose(self) -> None:
        """Say farewell, so that others give back at once what is left of us, and disconnect."""
        if self.available:
            try:
                await self._redis.zadd(self.workers_key, {self.worker: 0})
            except (RedisError, OSError, TimeoutError) as error:
                self.lose(error)
        await self._redis.aclose()
