"""A file that is being written: whole under its name, or not there at all."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Lock
from uuid import uuid4

from gateway.media.errors import StorageFailed, StorageFull, TooLarge, storage_error
from gateway.media.folder import Folder


class PartFile:
    """Written in ``folder`` under a name that nobody is given; begins with the first ``write``.

    ``commit`` writes the content through to the disk before the file gets its name, so that
    not even a crash leaves half a file under it; the name itself may be lost in a crash. Two
    writers of one name are harmless: the later one's file replaces the earlier one's.

    Every call blocks. ``discard`` may come at any time from any thread, as after a cancelled
    ``write`` that still runs; afterwards nothing is left, and what else is called fails.
    ``max_bytes`` and ``reserve`` are in bytes; the latter is what the disk must keep free.
    """

    def __init__(self, folder: Folder, *, max_bytes: int, reserve: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._lock = Lock()
        self._over = False
        self._name = f".{uuid4().hex}.part"
        self._file: FileIO | None = None
        self.size = 0

    @property
    def path(self) -> Path:
        """Where it lies until it is discarded or kept."""
        return self._folder.path / self._name

    @property
    def file(self) -> FileIO:
        """What has been written, for reading; raises StorageFailed when it is gone."""
        if self._file is None:
            raise StorageFailed
        return self._file

    def write(self, data: bytes | bytearray) -> None:
        """Raises TooLarge, StorageFull, StorageFailed."""
        if self.size + len(data) > self._max_bytes:
            raise TooLarge(f"The file is larger than {self._max_bytes >> 20} MiB.")
        with self._lock:
            if self._file is None:
                self._begin()
            self._keep_free(len(data))
            self._append(data)

    def read(self, start: int, length: int) -> bytes:
        """What was written, from ``start`` on; raises StorageFailed."""
        try:
            return os.pread(self.file.fileno(), length, start)
        except OSError as error:
            raise storage_error(error) from error

    def _begin(self) -> None:
        if self._over:
            raise StorageFailed
        self._file = self._folder.create(self._name)

    def _keep_free(self, more: int) -> None:
        try:
            disk = os.fstatvfs(self.file.fileno())
        except OSError as error:
            raise storage_error(error) from error
        if disk.f_bavail * disk.f_frsize - more < self._reserve:
            raise StorageFull

    def _append(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.file.fileno(), left) :]
        except OSError as error:
            raise storage_error(error) from error
        self.size += len(data)

    def commit(self, folder: Folder, name: str, size: int) -> os.stat_result:
        """Keep the first ``size`` bytes as ``name`` in ``folder``; raises StorageFailed.

        ``folder`` has to be on the same disk.
        """
        with self._lock, self.file as file:
            try:
                os.ftruncate(file.fileno(), size)
                os.fdatasync(file.fileno())
                folder.path.mkdir(parents=True, exist_ok=True)
                (self._folder.path / self._name).replace(folder.path / name)
                found = os.fstat(file.fileno())
            except OSError as error:
                self._remove()
                raise storage_error(error) from error
            self._over, self._file = True, None
            return found

    def discard(self) -> None:
        with self._lock:
            self._over = True
            if self._file is not None:
                self._file.close()
                self._file = None
                self._remove()

    def _remove(self) -> None:
        with suppress(StorageFailed):  # Cleaning tries again.
            self._folder.remove(self._name)
