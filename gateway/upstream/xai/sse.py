"""Server-sent events out of bytes, however they are cut."""

from __future__ import annotations

from gateway.upstream.errors import UpstreamFailed

MAX_EVENT = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class SseDecoder:
    """Collects the ``data`` of events; lines end in CR, LF or CRLF.

    ``feed`` and ``finish`` return the data of every event completed, several ``data``
    lines of one event joined by LF. Other fields and comments are dropped.
    """

    __slots__ = ("_after_cr", "_data", "_fresh", "_partial", "_size")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._after_cr = False
        self._fresh = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises UpstreamFailed for a line longer than 16 MiB."""
        chunk = self._with_lf(chunk)
        if b"\n" not in chunk:
            self._hold(chunk)
            return []
        if self._partial:
            chunk = b"".join((*self._partial, chunk))
            self._partial.clear()
        lines = chunk.split(b"\n")
        rest = lines.pop()
        self._size = 0
        if rest:
            self._hold(rest)
        return self._take(lines)

    def finish(self) -> list[bytes]:
        """The end of input completes whatever was begun."""
        lines = [b"".join(self._partial), b""]
        self._partial.clear()
        return self._take(lines)

    def _with_lf(self, chunk: bytes) -> bytes:
        """The chunk with LF for every line ending, a CRLF cut in two included."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" not in chunk:
            return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, piece: bytes) -> None:
        self._partial.append(piece)
        self._size += len(piece)
        if self._size > MAX_EVENT:
            raise UpstreamFailed(row=12, evidence="an event is too large")

    def _take(self, lines: list[bytes]) -> list[bytes]:
        if self._fresh:
            self._fresh = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = []
        data = self._data
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and data:
                events.append(data[0] if len(data) == 1 else b"\n".join(data))
                data.clear()
        return events
