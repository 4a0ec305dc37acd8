"""A file of the cache that is being served."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Executor
from io import FileIO
from types import TracebackType
from typing import Self

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class OpenFile:
    """``size`` in bytes, ``modified`` in nanoseconds of Unix time. Cleaning does not disturb it."""

    def __init__(
        self, name: str, mime: str, found: os.stat_result, file: FileIO, threads: Executor
    ) -> None:
        self.name = name
        self.mime = mime
        self.size = found.st_size
        self.modified = found.st_mtime_ns
        self._file = file
        self._threads = threads
        self._nowait = bool(_NOWAIT)

    async def read(self, start: int, length: int) -> bytes | bytearray:
        """At least one byte from ``start`` on and at most ``length``; nothing only at the end.

        What the kernel has in memory is copied at once, which takes less time than handing
        it to a thread would; what has to come from the disk is waited for in a thread.
        """
        if self._nowait and (found := self._read_cached(start, length)):
            return found
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, os.pread, self._file.fileno(), length, start
        )

    def _read_cached(self, start: int, length: int) -> bytearray | None:
        buffer = bytearray(length)
        try:
            count = os.preadv(self._file.fileno(), [buffer], start, _NOWAIT)
        except BlockingIOError:
            return None
        except OSError:
            self._nowait = False  # This file system cannot tell.
            return None
        del buffer[count:]
        return buffer

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
