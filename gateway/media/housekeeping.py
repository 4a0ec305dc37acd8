"""Keeping the cache within its limit, and what an operator may see and do of it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gateway.media.errors import StorageFailed, storage_error
from gateway.media.folder import Entry, Folder
from gateway.media.names import KINDS, Kind, safe_name, split_extension

logger = logging.getLogger(__name__)
T = TypeVar("T")
CLEAN_EVERY = 30.0
"""Seconds between two looks at the size of the cache."""
CLEAN_TO = 0.8
ABANDONED_NS = 3600 * 1_000_000_000
"""Age from which a part file belongs to a process that is gone."""
MAX_PAGE = 1000
LOCK = ".cleaning.lock"


@dataclass(frozen=True, slots=True)
class Usage:
    """How much there is: files and bytes."""

    count: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """``modified_ms`` is Unix time; ``preview`` names the picture that belongs to a video."""

    name: str
    size: int
    modified_ms: int
    preview: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    total: int
    items: list[Listed]


class Housekeeping:
    """Owns one thread, on which all of it happens; ``close`` it in the end.

    ``limit_bytes`` is for all kinds together, ``auto_clean`` whether it is kept at all;
    ``now_ns`` is Unix time. Every method raises StorageFailed where the disk refuses.
    """

    def __init__(
        self,
        root: Path,
        *,
        limit_bytes: Callable[[], int],
        auto_clean: Callable[[], bool],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = root
        self._folders: dict[Kind, Folder] = {kind: Folder(root / kind) for kind in KINDS}
        self._incoming = Folder(root / "incoming")
        self._limit_bytes = limit_bytes
        self._auto_clean = auto_clean
        self._now_ns = now_ns
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="media-cleaning")

    async def usage(self, kind: Kind) -> Usage:
        return await self._run(lambda: _usage(self._folders[kind].entries()))

    async def page(self, kind: Kind, number: int, size: int) -> Page:
        """Page ``number``, counted from 1, of at most MAX_PAGE files; the newest first."""
        return await self._run(lambda: self._page(kind, max(1, number), size))

    def _page(self, kind: Kind, number: int, size: int) -> Page:
        found = sorted(
            self._folders[kind].entries(), key=lambda entry: (-entry.modified, entry.name)
        )
        size = max(1, min(size, MAX_PAGE))
        shown = found[(number - 1) * size : number * size]
        previews = self._previews() if kind == "video" and shown else {}
        return Page(
            len(found),
            [
                Listed(
                    entry.name,
                    entry.size,
                    entry.modified // 1_000_000,
                    previews.get(split_extension(entry.name)[0]),
                )
                for entry in shown
            ],
        )

    def _previews(self) -> dict[str, str]:
        pictures = self._folders["image"].entries()
        return {split_extension(entry.name)[0]: entry.name for entry in pictures}

    async def delete(self, kind: Kind, name: str) -> bool:
        """Whether a file of exactly this name was there; raises BadName."""
        safe_name(name)
        return await self._run(lambda: self._folders[kind].remove(name))

    async def clear(self, kind: Kind) -> Usage:
        """Delete every file of a kind; what that was."""
        return await self._run(lambda: self._clear(kind))

    def _clear(self, kind: Kind) -> Usage:
        folder = self._folders[kind]
        return _usage(entry for entry in list(folder.entries()) if folder.remove(entry.name))

    async def clean_once(self) -> Usage:
        """Remove what crashes have left, then the least recently used until the limit is kept.

        What somebody reads at that moment is read to its end. Nothing is done while another
        process cleans the same folder.
        """
        return await self._run(self._clean)

    def _clean(self) -> Usage:
        with _alone(self._root / LOCK) as alone:
            if not alone:
                return Usage()
            self._remove_abandoned()
            return self._keep_limit() if self._auto_clean() else Usage()

    def _remove_abandoned(self) -> None:
        for folder in (self._incoming, *self._folders.values()):
            for entry in list(folder.unfinished()):
                if self._now_ns() - entry.modified > ABANDONED_NS:
                    folder.remove(entry.name)

    def _keep_limit(self) -> Usage:
        found = [
            (entry.used, entry, folder)
            for folder in self._folders.values()
            for entry in folder.entries()
        ]
        excess = sum(entry.size for _, entry, _ in found) - self._limit_bytes()
        if excess <= 0:
            return Usage()
        excess += int(self._limit_bytes() * (1 - CLEAN_TO))
        found.sort(key=lambda item: item[0])
        return _usage(_remove_until(excess, [(entry, folder) for _, entry, folder in found]))

    async def clean_forever(
        self, is_leader: Callable[[], bool], *, every: float = CLEAN_EVERY
    ) -> None:
        """Clean every ``every`` seconds while ``is_leader()``; trouble waits for the next time."""
        failing = False
        while True:
            if is_leader():
                failing = await self._clean_or_tell(failing)
            await asyncio.sleep(every)

    async def _clean_or_tell(self, failing: bool) -> bool:
        try:
            cleaned = await self.clean_once()
        except StorageFailed as error:
            if not failing:
                logger.warning("cannot clean the media cache: %s", error.__cause__)
            return True
        if cleaned.count:
            logger.info(
                "removed %d files (%d MB) from the media cache",
                cleaned.count,
                cleaned.size // 1_000_000,
            )
        return False

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown()


def _usage(entries: Iterator[Entry]) -> Usage:
    count = size = 0
    for entry in entries:
        count, size = count + 1, size + entry.size
    return Usage(count, size)


def _remove_until(excess: int, oldest_first: list[tuple[Entry, Folder]]) -> Iterator[Entry]:
    """Removes while it is iterated. What was used since it was listed stays."""
    for entry, folder in oldest_first:
        if excess <= 0:
            return
        now = folder.entry(entry.name)
        if now is not None and now.used == entry.used and folder.remove(entry.name):
            excess -= entry.size
            yield entry


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Whether no other process holds the lock; it goes with the process that has it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
