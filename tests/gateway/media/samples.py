"""Pictures and videos of every kind, good and hostile, made here."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

from gateway.sandbox.media_bytes import mp4

SIZE = (40, 30)


def picture(form: str, size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    """Noise, so that the content is longer than any head."""
    image = Image.effect_noise(size, 80).convert("RGB")
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def animation(form: str, frames: int = 3) -> bytes:
    images = [Image.effect_noise(SIZE, 80).convert("RGB") for _ in range(frames)]
    file = BytesIO()
    images[0].save(file, form, save_all=True, append_images=images[1:])
    return file.getvalue()


def webm() -> bytes:
    header = b"\x42\x82\x84webm"
    segment = b"\x1f\x43\xb6\x75\x80" + bytes(80)
    return (
        b"\x1aE\xdf\xa3"
        + bytes([0x80 | len(header)])
        + header
        + (b"\x18\x53\x80\x67" + bytes([0x80 | len(segment)]) + segment)
    )


PNG = picture("PNG")
JPEG = picture("JPEG")
WEBP = picture("WEBP")
GIF = picture("GIF")
MP4 = mp4("sample" * 20)
WEBM = webm()
PICTURES = {"png": PNG, "jpg": JPEG, "webp": WEBP, "gif": GIF}
VIDEOS = {"mp4": MP4, "webm": WEBM}
MORE_PICTURES = {
    "progressive JPEG": picture("JPEG", progressive=True),
    "lossless WebP": picture("WEBP", lossless=True),
    "animated GIF": animation("GIF"),
    "animated WebP": animation("WEBP"),
    "animated PNG": animation("PNG"),
    "1x1 PNG": picture("PNG", (1, 1)),
    "5x3 JPEG": picture("JPEG", (5, 3)),
}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A few kilobytes that unpack to ``width`` times ``height`` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", data),
            png_chunk(b"IEND", b""),
        )
    )


def resized_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its content has."""
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


def resized_gif(width: int, height: int) -> bytes:
    return GIF[:6] + struct.pack("<HH", width, height) + GIF[10:]


def resized_webp(width: int, height: int) -> bytes:
    at = WEBP.index(b"\x9d\x01\x2a") + 3
    return WEBP[:at] + struct.pack("<HH", width, height) + WEBP[at + 4 :]


def endless_apng() -> bytes:
    """A header that promises four milliards of frames."""
    at = PNG.index(b"IDAT") - 4
    return PNG[:at] + png_chunk(b"acTL", struct.pack(">II", 0xFFFFFFF0, 0)) + PNG[at:]
