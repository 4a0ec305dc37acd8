"""Asking about many credentials once, in a process of its own: ``manage.py refresh_quota``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from gateway.conf.schema import Config
from gateway.relay.chat import web_form
from gateway.relay.quota_queries import Answer, Finding, QuotaQueries
from gateway.relay.settings import pool_policy, web_settings, xai_settings
from gateway.relay.transports import Transports
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.xai.client import XaiUpstream
from pool import roster
from pool.crypto import unseal
from pool.entries import Entry
from pool.selection import MemoryPool
from pool.upkeep import Upkeep

SAVE_DELAY = 1.0
GIVE_UP_AFTER = 20
"""Failures of upstream in a row, beyond those under way at once, after which it is no use."""


@dataclass(slots=True)
class Tally:
    """Credentials by what became of them; ``total`` are those wanted.

    ``retired`` are dead ones, ``revived`` those among the measured and checked that had been
    retired. ``held_back`` were refused as everything was, and so not retired. ``skipped`` are
    gone or cannot be opened. ``errors`` counts the failed by class, ``unsaved`` those whose
    result could not be written.
    """

    total: int
    measured: int = 0
    checked: int = 0
    revived: int = 0
    retired: int = 0
    held_back: int = 0
    nothing: int = 0
    failed: int = 0
    skipped: int = 0
    unsaved: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        return self.refreshed + self.held_back + self.nothing + self.failed + self.skipped

    @property
    def refreshed(self) -> int:
        """Those of whom something is known now."""
        return self.measured + self.checked + self.retired


class Refresh:
    """Asks about each credential of ``pool`` once, ``at_once`` of them at the same time.

    While nobody has been accepted, ``suspicious`` refusals (0: any number is fine) are taken
    for trouble of upstream and retire nobody. ``changed`` is told of an entry to be written,
    ``progress`` is called after each credential.
    """

    def __init__(
        self,
        pool: MemoryPool,
        queries: QuotaQueries,
        *,
        at_once: int,
        suspicious: int,
        changed: Callable[[Entry], None],
        progress: Callable[[Tally], None],
    ) -> None:
        self._pool = pool
        self._queries = queries
        self._at_once = at_once
        self._suspicious = suspicious
        self._changed = changed
        self._progress = progress
        self._refused: list[Finding] = []
        self._accepted = False
        self._failures = 0
        self._stopping = False
        self.tally = Tally(len(pool))

    def stop(self) -> None:
        """Begin nothing more; what is under way is finished."""
        self._stopping = True

    @property
    def is_hopeless(self) -> bool:
        """Whether upstream failed so often in a row that the rest was not tried."""
        return self._failures >= GIVE_UP_AFTER + self._at_once

    async def run(self, ids: Sequence[int]) -> Tally:
        """Ask about ``ids``; results go to the pool as they come."""
        waiting = iter(ids)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(ids))):
                group.create_task(self._work(waiting))
        if not self._suspicious or len(self._refused) < self._suspicious:
            await self._retire_refused()
        return self.tally

    async def _work(self, waiting: Iterator[int]) -> None:
        while not (self._stopping or self.is_hopeless):
            credential_id = next(waiting, None)
            if credential_id is None:
                return
            await self._refresh(credential_id)
            self._progress(self.tally)

    async def _refresh(self, credential_id: int) -> None:
        buckets = self._queries.buckets_of(credential_id)
        finding = await self._queries.look(credential_id, buckets)
        if finding is None:
            self.tally.skipped += 1
            return
        self._failures = self._failures + 1 if finding.is_trouble else 0
        match finding.answer:
            case Answer.REFUSED:
                await self._refuse(finding)
            case Answer.FAILED:
                self.tally.failed += 1
                self.tally.errors[type(finding.error).__name__] += 1
            case _:
                await self._accept(finding)

    async def _refuse(self, finding: Finding) -> None:
        self._refused.append(finding)
        self.tally.held_back += 1
        if self._accepted:
            await self._retire_refused()

    async def _retire_refused(self) -> None:
        refused, self._refused = self._refused, []
        for finding in refused:
            await self._queries.take_over(finding)
        self.tally.held_back -= len(refused)
        self.tally.retired += len(refused)

    async def _accept(self, finding: Finding) -> None:
        self._accepted = True
        if finding.answer is Answer.NOTHING:
            self.tally.nothing += 1
        else:
            self.tally.measured += finding.answer is Answer.MEASURED
            self.tally.checked += finding.answer is Answer.CHECKED
            self.tally.revived += self._revive(finding.subject.credential_id)
            await self._queries.take_over(finding)
        await self._retire_refused()

    def _revive(self, credential_id: int) -> bool:
        """A retired credential that upstream accepts is active again (upstream-web 12).

        So is one whose stored status is an imported "cooling", which nothing else ends.
        """
        entry = self._pool.get(credential_id)
        if entry is None or entry.disabled:
            return False
        was_active, entry.active, entry.invalid_reason = entry.active, True, ""
        entry.failures = 0
        entry.pending_columns |= {"status", "fail_count"}
        self._changed(entry)
        return not was_active


class RefreshProcess:
    """What one run owns: transports, a pool of the wanted credentials, and their writer.

    Build it inside the running loop and close it in the end. What it writes outranks what
    running workers know, and reaches them as every change of the record does.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        config: Callable[[], Config],
        *,
        at_once: int,
        progress: Callable[[Tally], None],
    ) -> None:
        self._transports = Transports(config)
        self._upkeep = Upkeep(
            save_delay=lambda: SAVE_DELAY, write=partial(roster.write, revise=True)
        )
        self._writer = asyncio.create_task(self._upkeep.write_forever())
        pool = self._fill(entries, config)
        self.refresh = Refresh(
            pool,
            self._queries(pool, config),
            at_once=at_once,
            suspicious=config().pool.incident_threshold,
            changed=self._upkeep.note,
            progress=progress,
        )

    def _fill(self, entries: Iterable[Entry], config: Callable[[], Config]) -> MemoryPool:
        # Refusals are weighed here, over the whole run, and not by the minute.
        policy = replace(pool_policy(config)(), incident_threshold=0)
        pool = MemoryPool(
            policy=lambda: policy,
            now=time.time,
            random=Random(),  # noqa: S311 - chooses nothing here
            unseal=unseal,
            changed=self._upkeep.note,
        )
        for entry in entries:
            pool.put(entry)
        return pool

    def _queries(self, pool: MemoryPool, config: Callable[[], Config]) -> QuotaQueries:
        web = WebUpstream(
            self._transports.web,
            web_settings(config),
            now_ms=lambda: time.time_ns() // 1_000_000,
            new_uuid=lambda: str(uuid.uuid4()),
        )
        return QuotaQueries(
            pool,
            web,
            XaiUpstream(self._transports.xai, xai_settings(config)),
            form=lambda: web_form(config()),
            known=pool.buckets_of,
            now=time.time,
        )

    async def aclose(self) -> None:
        """Write what is left; what cannot be written is counted in the tally."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        await self._transports.aclose()
        await self._upkeep.close()
        self.refresh.tally.unsaved = self._upkeep.backlog
