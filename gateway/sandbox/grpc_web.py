"""gRPC-web framing and the little protobuf the sandbox speaks (upstream-web 1.6)."""

from __future__ import annotations

import struct

TOS_ACCEPT = bytes.fromhex("0000000002 1001")
"""SetTosAcceptedVersion with version 1 (upstream-web 11.1)."""
_NSFW_KEY = b"always_show_nsfw_content"
EMPTY = bytes(5)
"""A frame with an empty message (upstream-web 6.4)."""


def nsfw_control(enabled: bool) -> bytes:
    """The exact UpdateUserFeatureControls request (upstream-web 11.3)."""
    name = b"\x0a" + bytes([len(_NSFW_KEY)]) + _NSFW_KEY
    message = b"\x0a\x02\x10" + bytes([enabled]) + b"\x12" + bytes([len(name)]) + name
    return frame(message)


def frame(message: bytes, flag: int = 0) -> bytes:
    """One frame: flag, big-endian length, payload."""
    return struct.pack(">BI", flag, len(message)) + message


def trailer(status: int) -> bytes:
    """A trailer frame that carries ``grpc-status``."""
    return frame(f"grpc-status:{status}\r\n".encode(), 0x80)


def varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_varint(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def field_float(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def field_message(number: int, message: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(message)) + message


def timestamp(seconds: float) -> bytes:
    """google.protobuf.Timestamp with sub-second precision."""
    whole = int(seconds)
    nanos = max(1, int((seconds - whole) * 1e9))
    return field_varint(1, whole) + field_varint(2, nanos)


def credits_config(percent_used: float, start: float, end: float) -> bytes:
    """A GetGrokCreditsConfig reply; ``start`` and ``end`` are Unix seconds (upstream-web 6.4)."""
    product = field_varint(1, 4) + field_float(2, percent_used)
    config = (
        field_float(1, percent_used)
        + field_message(4, timestamp(start))
        + field_message(5, timestamp(end))
        + field_message(7, product)
    )
    return frame(field_message(1, config))
