"""Walking through a file's container, from its first byte to its last, without decoding it.

Each walk finds what the file says of its size and whether all of it belongs to the picture:
a file that is cut off, or that is something else as well, does not come through. Nothing is
unpacked, and the steps are limited, so that no file can make a walk long or large.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from gateway.media.errors import Damaged

Data = bytes | mmap
MAX_PIECES = 65_536
MAX_SUB_BLOCKS = 1_000_000
MAX_SCANS = 200
"""Scans of a progressive JPEG; each costs a decoder a pass over the whole picture."""
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_JPEG_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Not ``_JPEG_MARKER``: on a long run of 0xFF that would take quadratic time."""
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(slots=True)
class Extent:
    """``width`` and ``height`` in pixels, the largest seen; ``end`` is where the picture ends."""

    width: int = 0
    height: int = 0
    frames: int = 1
    end: int = 0

    def covers(self, width: int, height: int) -> None:
        self.width, self.height = max(self.width, width), max(self.height, height)


def _take(data: Data, form: struct.Struct, at: int) -> tuple[int, ...]:
    """Raises Damaged where the data is too short."""
    if at + form.size > len(data):
        raise Damaged
    numbers: tuple[int, ...] = form.unpack(data[at : at + form.size])
    return numbers


_U32 = struct.Struct(">I")
_PNG_HEADER = struct.Struct(">II")
_PNG_PIECE = struct.Struct(">I4s")


def walk_png(data: Data) -> Extent:
    """Raises Damaged, also for a piece whose checksum is wrong."""
    extent, pixels = Extent(), False
    for number, (kind, start, length) in enumerate(_png_pieces(data)):
        if (number == 0) != (kind == b"IHDR"):
            raise Damaged
        if kind == b"IHDR":
            extent.covers(*_take(data, _PNG_HEADER, start))
        elif kind == b"acTL":
            extent.frames = max(1, _take(data, _U32, start)[0])
        pixels = pixels or (kind == b"IDAT" and length > 0)
        extent.end = start + length + 4
    if not pixels or extent.end != len(data):
        raise Damaged
    return extent


def _png_pieces(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of each, up to IEND."""
    at, kind = 8, b""
    for _ in range(MAX_PIECES):
        if at + _PNG_PIECE.size > len(data):
            raise Damaged
        length, kind = _PNG_PIECE.unpack(data[at : at + 8])
        if at + 12 + length > len(data) or not kind.isalpha():
            raise Damaged
        body = data[at + 4 : at + 8 + length]
        if zlib.crc32(body) != _take(data, _U32, at + 8 + length)[0]:
            raise Damaged
        yield kind, at + 8, length
        if kind == b"IEND":
            return
        at += 12 + length
    raise Damaged


_U16 = struct.Struct(">H")
_SOF_SIZE = struct.Struct(">xHH")


def walk_jpeg(data: Data) -> Extent:
    """Raises Damaged. What cameras put behind the picture is left outside ``end``.

    That is a second picture (for 3D and bright screens), a moving one, or the mark of a maker;
    a person would not understand why such a photograph is refused. Anything else is.
    """
    extent = Extent()
    extent.end = _walk_one_jpeg(data, extent)
    if extent.end != len(data) and not _is_of_a_camera(data, extent.end):
        raise Damaged("The file holds more than a picture.")
    return extent


def _is_of_a_camera(data: Data, at: int) -> bool:
    rest = data[at : at + 16]
    if rest.startswith(b"\xff\xd8\xff") or rest[4:8] == b"ftyp":
        return True
    return data[-4:] == b"SEFT" or not data[at:].strip(b"\x00")


def _walk_one_jpeg(data: Data, extent: Extent) -> int:
    """Where it ends."""
    at, scans = 2, 0
    for _ in range(MAX_PIECES):
        at, marker = _jpeg_marker(data, at)
        if marker == _EOI:
            if not scans or not extent.width * extent.height:
                raise Damaged
            return at
        if marker == 0x01 or marker == _SOI:
            continue
        length = _take(data, _U16, at)[0]
        if marker in _SOF:
            height, width = _take(data, _SOF_SIZE, at + 2)
            extent.covers(width, height)
        at += length
        if marker == _SOS:
            scans += 1
            at = _end_of_scan(data, at)
        if length < 2 or scans > MAX_SCANS:
            break
    raise Damaged


def _jpeg_marker(data: Data, at: int) -> tuple[int, int]:
    """The marker at ``at`` and where its segment begins; a marker may have many 0xFF."""
    found = _JPEG_MARKER.match(data, at)
    if found is None:
        raise Damaged
    return found.end(), data[found.end() - 1]


def _end_of_scan(data: Data, at: int) -> int:
    found = _JPEG_SCAN_END.search(data, at)
    if found is None:
        raise Damaged
    return found.start()


_GIF_SCREEN = struct.Struct("<HHB")
_GIF_IMAGE = struct.Struct("<4xHHB")


def walk_gif(data: Data) -> Extent:
    """Raises Damaged."""
    width, height, flags = _take(data, _GIF_SCREEN, 6)
    extent = Extent(width, height, frames=0)
    at = 13 + _colours(flags)
    blocks = iter(range(MAX_SUB_BLOCKS))
    for _ in range(MAX_PIECES):
        kind = data[at : at + 1]
        if kind == b";":
            return _end_of_gif(data, extent, at + 1)
        if kind == b"!":
            at = _skip_blocks(data, at + 2, blocks)
        elif kind == b",":
            width, height, flags = _take(data, _GIF_IMAGE, at + 1)
            extent.covers(width, height)
            extent.frames += 1
            at = _skip_blocks(data, at + 11 + _colours(flags), blocks)
        else:
            break
    raise Damaged


def _end_of_gif(data: Data, extent: Extent, end: int) -> Extent:
    if not extent.frames or end != len(data):
        raise Damaged
    extent.end = end
    return extent


def _colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: Data, at: int, blocks: Iterator[int]) -> int:
    for _ in blocks:
        if at >= len(data):
            break
        length = data[at]
        at += length + 1
        if not length:
            return at
    raise Damaged


_LE32 = struct.Struct("<I")
_RIFF_PIECE = struct.Struct("<4sI")
_VP8_SIZE = struct.Struct("<6xHH")
_CANVAS = {b"VP8X": 4, b"ANMF": 6}
"""Where a piece has its width and height, each less one, in three bytes."""


def walk_webp(data: Data) -> Extent:
    """Raises Damaged."""
    if 8 + _take(data, _LE32, 4)[0] != len(data):
        raise Damaged
    extent, at, frames = Extent(end=len(data)), 12, 0
    for _ in range(MAX_PIECES):
        if at + 8 > len(data):
            break
        kind, length = _RIFF_PIECE.unpack(data[at : at + 8])
        extent.covers(*_webp_size(data, kind, at + 8))
        frames += kind == b"ANMF"
        at += 8 + length + (length & 1)
    if at != len(data) or not extent.width * extent.height:
        raise Damaged
    extent.frames = max(1, frames)
    return extent


def _webp_size(data: Data, kind: bytes, at: int) -> tuple[int, int]:
    """What a piece says of width and height; zeros for one that has no say."""
    if kind == b"VP8 ":
        width, height = _take(data, _VP8_SIZE, at)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = _take(data, _LE32, at + 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind in _CANVAS:
        sizes = data[at + _CANVAS[kind] : at + _CANVAS[kind] + 6]
        return int.from_bytes(sizes[:3], "little") + 1, int.from_bytes(sizes[3:], "little") + 1
    return 0, 0


_BOX = struct.Struct(">I4s")
_LONG_BOX = struct.Struct(">8xQ")


def walk_mp4(data: Data) -> Extent:
    """The boxes of the file fill it exactly, or else Damaged is raised."""
    at, content = 0, False
    for _ in range(MAX_PIECES):
        if at + 8 > len(data):
            break
        length, kind = _BOX.unpack(data[at : at + 8])
        if length == 1:
            length = _take(data, _LONG_BOX, at)[0]
        elif length == 0:
            length = len(data) - at
        if length < 8 or not kind.strip().isalnum():
            break
        content = content or kind in (b"mdat", b"moof")
        at += length
    if at != len(data) or not content:
        raise Damaged
    return Extent(end=at)


_SEGMENT = b"\x18\x53\x80\x67"


def walk_webm(data: Data) -> Extent:
    """Header and segment; the segment may leave its length open, as recordings do."""
    length, at = _ebml_length(data, 4)
    at += length
    if data[at : at + 4] != _SEGMENT:
        raise Damaged
    length, at = _ebml_length(data, at + 4)
    if length >= 0 and at + length != len(data):
        raise Damaged
    return Extent(end=len(data))


def _ebml_length(data: Data, at: int) -> tuple[int, int]:
    """The number at ``at``, -1 for an open one, and where what it measures begins."""
    if at >= len(data) or not data[at]:
        raise Damaged
    size = 9 - data[at].bit_length()
    if at + size > len(data):
        raise Damaged
    most = (1 << 7 * size) - 1
    value = int.from_bytes(data[at : at + size], "big") & most
    return -1 if value == most else value, at + size
