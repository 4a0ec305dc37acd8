"""What credentials keep at grok.com: listed, counted, deleted, many credentials together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from gateway.conf.schema import Config
from gateway.relay.verdicts import Blame
from gateway.upstream.errors import Effect, UpstreamError
from gateway.upstream.requests import Account
from gateway.upstream.web.media.assets import AssetPage
from gateway.upstream.web.media.client import WebMedia
from pool.leases import Pool, Subject


class NotOnline(Exception):
    """The credential is gone, cannot be opened, or is no grok.com session."""

    def __init__(self, credential_id: int) -> None:
        super().__init__(f"Credential {credential_id} has no assets online.")
        self.credential_id = credential_id


@dataclass(frozen=True, slots=True)
class AssetReport:
    """How far one credential has come; the last one of a credential has ``done``.

    ``total`` is how many assets were found so far, ``deleted`` and ``failed`` are how many
    of them are gone and could not be deleted. ``error`` is why the credential was given up:
    the numbers are then those until that point.
    """

    credential_id: int
    total: int = 0
    deleted: int = 0
    failed: int = 0
    done: bool = False
    error: UpstreamError | NotOnline | None = field(default=None, repr=False)


Reports = AsyncGenerator[AssetReport, None]


class OnlineAssets:
    """A credential whose session turns out to be dead is retired, as after any use.

    At most ``performance.admin_assets_batch_size`` credentials are worked on together, with
    at most ``performance.assets_max_concurrent`` calls for all of them; each generator
    counts for itself.
    """

    def __init__(self, pool: Pool, web: WebMedia, config: Callable[[], Config]) -> None:
        self._pool = pool
        self._web = web
        self._config = config

    async def page(self, credential_id: int, token: str = "") -> AssetPage:
        """One page of a credential's assets; raises NotOnline or UpstreamError."""
        return await self._web.assets(_account(self._subject(credential_id)), token)

    def count(self, credential_ids: Iterable[int]) -> Reports:
        """One report for each credential, as they end."""
        return self._each(credential_ids, self._count)

    def delete_all(self, credential_ids: Iterable[int]) -> Reports:
        """Reports of progress, the last of each credential ``done``.

        A reader that lags behind misses steps, never a last report. Closing the generator
        cancels what is under way.
        """
        return self._each(credential_ids, self._delete_all)

    def _subject(self, credential_id: int) -> Subject:
        subject = self._pool.subject(credential_id)
        if subject is None or subject.kind == "api":
            raise NotOnline(credential_id)
        return subject

    async def _count(self, subject: Subject) -> Reports:
        total = await self._web.count_assets(_account(subject))
        yield AssetReport(subject.credential_id, total)

    async def _delete_all(self, subject: Subject) -> Reports:
        steps = self._web.delete_all_assets(_account(subject), at_once=self._at_once())
        async with aclosing(steps):
            async for step in steps:
                yield AssetReport(subject.credential_id, step.seen, step.deleted, step.failed)

    def _at_once(self) -> int:
        """Deletions of one credential, so that all together stay within the limit."""
        performance = self._config().performance
        share = performance.assets_max_concurrent // self._together()
        return max(1, min(performance.assets_delete_batch_size, share))

    def _together(self) -> int:
        performance = self._config().performance
        return min(performance.admin_assets_batch_size, performance.assets_max_concurrent)

    async def _each(self, credential_ids: Iterable[int], work: Work) -> Reports:
        waiting = iter(dict.fromkeys(credential_ids))
        board = _Board()
        workers = [
            asyncio.create_task(self._work(waiting, work, board)) for _ in range(self._together())
        ]
        for worker in workers:
            worker.add_done_callback(board.wake)
        try:
            while not board.is_over(workers):
                for report in await board.take():
                    yield report
            for worker in workers:
                await worker
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, waiting: Iterable[int], work: Work, board: _Board) -> None:
        for credential_id in waiting:
            last = AssetReport(credential_id)
            error: UpstreamError | NotOnline | None = None
            try:
                subject = self._subject(credential_id)
                async with aclosing(work(subject)) as reports:
                    async for last in reports:
                        board.put(last)
            except NotOnline as found:
                error = found
            except UpstreamError as found:
                error = found
                await self._judge(subject, found)
            board.put(replace(last, done=True, error=error))

    async def _judge(self, subject: Subject, error: UpstreamError) -> None:
        """Nothing but a dead session matters to those who ask for anything else."""
        now = self._pool.subject(subject.credential_id)
        if error.effect is Effect.RETIRE and now is not None and now.secret == subject.secret:
            await self._pool.judge(subject.credential_id, "", Blame().outcome_of(error))


Work = Callable[[Subject], Reports]


class _Board:
    """The newest report of each credential, until it is taken."""

    def __init__(self) -> None:
        self._reports: dict[int, AssetReport] = {}
        self._changed = asyncio.Event()

    def put(self, report: AssetReport) -> None:
        self._reports[report.credential_id] = report
        self._changed.set()

    def wake(self, _: object) -> None:
        self._changed.set()

    async def take(self) -> list[AssetReport]:
        await self._changed.wait()
        self._changed.clear()
        taken, self._reports = list(self._reports.values()), {}
        return taken

    def is_over(self, workers: list[asyncio.Task[None]]) -> bool:
        """Whether all is done and taken, or one of ``workers`` has broken."""
        broken = any(worker.done() and worker.exception() for worker in workers)
        return broken or (all(worker.done() for worker in workers) and not self._reports)


def _account(subject: Subject) -> Account:
    return Account(subject.secret, subject.user_id or None)
