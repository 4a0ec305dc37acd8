"""One flat folder of files, reached by name and never through a link.

Every call blocks. What is not a plain file, or begins with a dot, does not exist here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gateway.media.errors import NoSuchFile, storage_error

TOUCHED_EVERY_NS = 60 * 1_000_000_000
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Entry:
    """``modified`` and ``used`` are in nanoseconds of Unix time, ``size`` in bytes."""

    name: str
    size: int
    modified: int
    used: int


class Folder:
    """``path`` itself may be a link: where an operator puts a cache is the operator's choice."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str) -> tuple[FileIO, os.stat_result]:
        """The plain file ``name`` for reading; raises NoSuchFile.

        O_NONBLOCK keeps a pipe of that name from holding up the thread.
        """
        try:
            fd = os.open(self.path / name, _FLAGS)
        except OSError as error:
            raise NoSuchFile from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise NoSuchFile
        return FileIO(fd, "rb"), found

    def create(self, name: str) -> FileIO:
        """A new file for writing and reading; raises StorageFailed, also when there is one."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return FileIO(os.open(self.path / name, flags, 0o644), "rb+")
        except OSError as error:
            raise storage_error(error) from error

    def remove(self, name: str) -> bool:
        """Whether it was there; who reads it reads on. Raises StorageFailed."""
        try:
            (self.path / name).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise storage_error(error) from error
        return True

    def entries(self) -> Iterator[Entry]:
        """Every file, in no order, without those that go meanwhile; raises StorageFailed."""
        for name, found in self._scan():
            if not name.startswith("."):
                yield _entry(name, found)

    def entry(self, name: str) -> Entry | None:
        with suppress(OSError):
            found = (self.path / name).lstat()
            if stat.S_ISREG(found.st_mode):
                return _entry(name, found)
        return None

    def unfinished(self) -> Iterator[Entry]:
        """What writers have begun (see PartFile)."""
        for name, found in self._scan():
            if name.startswith(".") and name.endswith(".part"):
                yield _entry(name, found)

    def _scan(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self.path) as found:
                for item in found:
                    with suppress(FileNotFoundError):
                        if item.is_file(follow_symlinks=False):
                            yield item.name, item.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error) from error


def touch(file: FileIO, found: os.stat_result, now_ns: int) -> None:
    """Remember that ``file`` was used; at most once a minute.

    The time is written by us and so does not depend on how the disk is mounted. The time of
    change stays: it is part of what clients compare.
    """
    if abs(now_ns - last_use(found)) > TOUCHED_EVERY_NS:
        with suppress(OSError):
            os.utime(file.fileno(), ns=(now_ns, found.st_mtime_ns))


def last_use(found: os.stat_result) -> int:
    return max(found.st_atime_ns, found.st_mtime_ns)


def _entry(name: str, found: os.stat_result) -> Entry:
    return Entry(name, found.st_size, found.st_mtime_ns, last_use(found))
