"""The smallest files that decoders accept, made distinct by a label inside."""

from __future__ import annotations

import struct
import zlib


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(label: str) -> bytes:
    """A valid 1x1 grey PNG that carries ``label`` in a text chunk."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _png_chunk(b"IHDR", header),
            _png_chunk(b"tEXt", b"Title\x00" + label.encode("latin-1", "replace")),
            _png_chunk(b"IDAT", zlib.compress(b"\x00\x80")),
            _png_chunk(b"IEND", b""),
        )
    )


def _jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(label: str) -> bytes:
    """A valid 8x8 grey baseline JPEG that carries ``label`` in a comment.

    Both Huffman tables hold one code of one bit: "no change" and "end of block".
    """
    one_code = bytes([1]) + bytes(15) + b"\x00"
    return b"".join(
        (
            b"\xff\xd8",
            _jpeg_segment(0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"),
            _jpeg_segment(0xFE, label.encode()),
            _jpeg_segment(0xDB, b"\x00" + b"\x10" * 64),
            _jpeg_segment(0xC0, b"\x08\x00\x08\x00\x08\x01\x01\x11\x00"),
            _jpeg_segment(0xC4, b"\x00" + one_code),
            _jpeg_segment(0xC4, b"\x10" + one_code),
            _jpeg_segment(0xDA, b"\x01\x01\x00\x00\x3f\x00"),
            b"\x3f\xff\xd9",
        )
    )


def _mp4_box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def mp4(label: str) -> bytes:
    """An MP4 container by its boxes (``ftyp``, ``free``, ``mdat``); nothing plays."""
    brand = b"isom\x00\x00\x02\x00isomiso2mp41"
    return _mp4_box(b"ftyp", brand) + _mp4_box(b"free", label.encode()) + _mp4_box(b"mdat", b"\x00")
