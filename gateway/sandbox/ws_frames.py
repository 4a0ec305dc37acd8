"""Server-side WebSocket text frames, so that many can go out in one write (RFC 6455, 5.2)."""

from __future__ import annotations

import struct

TEXT = 0x81
BINARY = 0x82
CLOSE = 0x88


def ws_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One unmasked, unfragmented frame."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", opcode, size) + payload
    if size < 65536:
        return struct.pack(">BBH", opcode, 126, size) + payload
    return struct.pack(">BBQ", opcode, 127, size) + payload
