"""The cache of pictures and videos under ``<data>/tmp``, as the event loop sees it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.media.checks import Checked, check
from gateway.media.errors import NoSuchFile, WrongType
from gateway.media.flights import Flights
from gateway.media.folder import Folder, touch
from gateway.media.formats import HEAD, PICTURES, VIDEOS, Format, sniff
from gateway.media.names import KINDS, Kind, safe_name, spellings, with_extension
from gateway.media.open_file import OpenFile
from gateway.media.part_file import PartFile

T = TypeVar("T")
MIB = 1 << 20
MAX_BYTES: dict[Kind, int] = {"image": 32 * MIB, "video": 512 * MIB}
"""Upstream's own files are never larger (upstream-web section 10)."""
RESERVE = 128 * MIB
"""What is left free on the disk, on which the database may live too."""
FORMATS: dict[Kind, Collection[Format]] = {"image": PICTURES, "video": VIDEOS}
_THREADS = 4
_BUFFER = MIB


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the cache; ``size`` in bytes."""

    kind: Kind
    name: str
    size: int
    mime: str


class MediaStore:
    """Owns its threads and downloads until ``aclose``.

    ``root`` holds a folder for each kind, and one for uploads that are not finished. ``now_ns``
    is Unix time. ``reserve`` is how many bytes of the disk stay free.
    """

    def __init__(
        self, root: Path, *, now_ns: Callable[[], int] = time.time_ns, reserve: int = RESERVE
    ) -> None:
        self.folders: dict[Kind, Folder] = {kind: Folder(root / kind) for kind in KINDS}
        self.incoming = Folder(root / "incoming")
        self._now_ns = now_ns
        self._reserve = reserve
        self._flights: Flights[Stored] = Flights()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="media")
        # Alone, so that the memory for checking is that for one picture.
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="media-check")

    @property
    def downloads(self) -> int:
        """How many files are being fetched at this moment."""
        return self._flights.running

    async def open(self, kind: Kind, name: str) -> OpenFile:
        """The file that ``name`` means, also by an old spelling; raises NoSuchFile.

        The content decides what it is served as. Close it in the end.
        """
        return await self.run(partial(self._open, kind, safe_name(name)))

    def _open(self, kind: Kind, name: str) -> OpenFile:
        for spelling in spellings(kind, name):
            try:
                file, found = self.folders[kind].open(spelling)
            except NoSuchFile:
                continue
            kept = sniff(os.pread(file.fileno(), HEAD, 0))
            if kept is not None and kept in FORMATS[kind]:
                touch(file, found, self._now_ns())
                return OpenFile(spelling, kept.mime, found, file, self._threads)
            file.close()
        raise NoSuchFile

    async def find(self, kind: Kind, name: str) -> Stored | None:
        """The same without opening it; counts as a use."""
        try:
            with await self.open(kind, name) as found:
                return Stored(kind, found.name, found.size, found.mime)
        except NoSuchFile:
            return None

    async def fetch(
        self, kind: Kind, name: str, source: Callable[[], AsyncGenerator[bytes, None]]
    ) -> Stored:
        """The file ``name``, taken from ``source()`` unless it is there.

        However many ask at the same time, ``source`` is read once in this process; it is
        closed in every case, at the latest when the last of them is cancelled. Raises as
        ``save`` does, or whatever the source raises; nothing is left of a failed attempt.
        """

        async def work() -> Stored:
            return await self.find(kind, name) or await self.save(kind, name, source())

        return await self._flights.join((kind, name), work)

    async def save(self, kind: Kind, name: str, content: AsyncGenerator[bytes, None]) -> Stored:
        """Keep ``content``; the name's extension becomes that of what it really is.

        Raises BadName, BadContent, StorageFailed.
        """
        async with aclosing(content):
            safe_name(name)
            part = PartFile(self.folders[kind], max_bytes=MAX_BYTES[kind], reserve=self._reserve)
            try:
                await self._fill(part, content, FORMATS[kind])
                return await self.keep(part, await self.check(part, FORMATS[kind]), name)
            finally:
                await self.discard(part)

    async def _fill(
        self, part: PartFile, content: AsyncGenerator[bytes, None], allowed: Collection[Format]
    ) -> None:
        """An error page is recognised by its beginning, whatever its length."""
        buffer, known = bytearray(), False
        async for chunk in content:
            buffer += chunk
            if not known and len(buffer) >= HEAD:
                _expect(buffer, allowed)
                known = True
            if len(buffer) >= _BUFFER:
                await self.run(partial(part.write, buffer))
                buffer = bytearray()
        await self.run(partial(part.write, buffer))

    def part(self, max_bytes: int) -> PartFile:
        """A place for an upload; give it to ``discard`` in every case."""
        return PartFile(self.incoming, max_bytes=max_bytes, reserve=self._reserve)

    async def check(self, part: PartFile, allowed: Collection[Format]) -> Checked:
        """Raises BadContent (see ``checks.check``)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checker, lambda: check(part.file, allowed))

    async def keep(self, part: PartFile, checked: Checked, name: str) -> Stored:
        """Give a checked file its place in the cache; raises BadName, StorageFailed."""
        kind = checked.format.kind
        final = with_extension(name, checked.format.extension)
        await self.run(partial(part.commit, self.folders[kind], final, checked.size))
        return Stored(kind, final, checked.size, checked.format.mime)

    async def discard(self, *parts: PartFile) -> None:
        """Remove what was not kept; done in the end also when this is cancelled."""

        def work() -> None:
            for part in parts:
                part.discard()

        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(self._threads, work))

    async def run(self, work: Callable[[], T]) -> T:
        """``work`` on one of the threads for files."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def aclose(self) -> None:
        """End downloads and threads; what is open stays readable only where it is cached."""
        await self._flights.aclose()
        self.close()

    def close(self) -> None:
        """The same without a loop, when nothing is being fetched."""
        self._checker.shutdown()
        self._threads.shutdown()


def _expect(beginning: bytes | bytearray, allowed: Collection[Format]) -> None:
    if sniff(bytes(beginning[:HEAD])) not in allowed:
        raise WrongType("The file is not of the expected type.")


async def in_memory(content: bytes) -> AsyncGenerator[bytes, None]:
    """``content`` as a source."""
    yield content
