"""Request bodies that are too large for memory: bytes of ours around files on disk."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

from gateway.upstream.requests import StoredFile

READ_SIZE = 192 * 1024
"""Bytes read at a time; a multiple of three, so that base64 needs no padding in between."""


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A file's bytes, or their base64."""

    file: StoredFile
    base64: bool = False

    @property
    def size(self) -> int:
        """Bytes this piece takes in the body."""
        return (self.file.size + 2) // 3 * 4 if self.base64 else self.file.size


@dataclass(frozen=True, slots=True)
class StreamedBody:
    """A body of known size, read while it is sent; may be iterated more than once.

    Files are read on a thread, since a disk may block. Raises OSError when a file is
    gone or has not the size it was said to have.
    """

    pieces: tuple[bytes | FilePiece, ...]

    @property
    def size(self) -> int:
        return sum(len(p) if isinstance(p, bytes) else p.size for p in self.pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            file = _open(piece.file)
            try:
                async for chunk in _read(file, piece.file.size):
                    yield base64.b64encode(chunk) if piece.base64 else chunk
            finally:
                file.close()


def _open(file: StoredFile) -> BinaryIO:
    """Not on a thread: a hop that is cancelled would leave the file open."""
    return file.path.open("rb")


async def _read(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    left = size
    while left:
        chunk = await asyncio.to_thread(file.read, min(READ_SIZE, left))
        if not chunk:
            raise OSError("the file is shorter than it was")
        left -= len(chunk)
        yield chunk
