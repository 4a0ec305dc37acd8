"""Whether a file is what it should be: its type, its end, its pixels, and that it decodes.

A picture's container is walked first, which costs no memory and finds the numbers that make a
picture a bomb; Pillow decodes only what has passed, one file at a time (``MediaStore`` sees to
that), so that checking never needs more than about 130 MB.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import BinaryIO

from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gateway.media.containers import (
    Data,
    Extent,
    walk_gif,
    walk_jpeg,
    walk_mp4,
    walk_png,
    walk_webm,
    walk_webp,
)
from gateway.media.errors import Damaged, TooManyPixels, WrongType
from gateway.media.formats import (
    GIF,
    HEAD,
    JPEG,
    MP4,
    PNG,
    WEBM,
    WEBP,
    Format,
    sniff,
)

MAX_PIXELS = 50_000_000
"""Width times height of a picture, and of any frame in it."""
MAX_SIDE = 30_000
MAX_ALL_PIXELS = 1_000_000_000
"""The same over all frames of an animation."""
DECODED_PIXELS = {PNG: 25_000_000, JPEG: 25_000_000, GIF: 25_000_000, WEBP: 8_000_000}
"""Larger pictures pass on their container alone. Measured: decoding takes up to 4 bytes per
pixel, of a WebP 15."""

_WALKS: dict[Format, Callable[[Data], Extent]] = {
    PNG: walk_png,
    JPEG: walk_jpeg,
    WEBP: walk_webp,
    GIF: walk_gif,
    MP4: walk_mp4,
    WEBM: walk_webm,
}
# The classes and not Image.open, which goes by content and may end with another plugin.
_DECODERS: dict[Format, Callable[[BinaryIO], ImageFile]] = {
    PNG: PngImageFile,
    JPEG: JpegImageFile,
    WEBP: WebPImageFile,
    GIF: GifImageFile,
}
_PILLOW_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Warning,
    Image.DecompressionBombError,
)
"""What decoders raise on hostile input; none of it is ours to explain."""


@dataclass(frozen=True, slots=True)
class Checked:
    """``width`` and ``height`` are 0 for a video; ``size`` in bytes is what belongs to it."""

    format: Format
    size: int
    width: int = 0
    height: int = 0


def check(file: BinaryIO, allowed: Collection[Format]) -> Checked:
    """What is in ``file``; raises WrongType, TooManyPixels, Damaged.

    Blocks, and uses the processor. What ``size`` leaves out at the end is to be cut off.
    """
    size = os.fstat(file.fileno()).st_size
    found = sniff(os.pread(file.fileno(), HEAD, 0))
    if found is None or found not in allowed:
        raise WrongType(f"The file is no {_listed(allowed)}.")
    with closing(mmap(file.fileno(), size, access=ACCESS_READ)) as data:
        extent = _WALKS[found](data)
    if found.kind == "image":
        _limit_pixels(extent)
        if extent.width * extent.height <= DECODED_PIXELS[found]:
            _decode(file, found, extent)
    return Checked(found, extent.end, extent.width, extent.height)


def _listed(allowed: Collection[Format]) -> str:
    labels = [known.label for known in _WALKS if known in allowed]
    return " or ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))


def _limit_pixels(extent: Extent) -> None:
    pixels = extent.width * extent.height
    if max(extent.width, extent.height) > MAX_SIDE or pixels > MAX_PIXELS:
        raise TooManyPixels(f"The picture has more than {MAX_PIXELS // 1_000_000} megapixels.")
    if pixels * extent.frames > MAX_ALL_PIXELS:
        raise TooManyPixels("The animation has too many frames for its size.")


def _decode(file: BinaryIO, found: Format, extent: Extent) -> None:
    """The first frame, and a JPEG at an eighth: each byte is read, few are kept."""
    file.seek(0)
    try:
        picture = _DECODERS[found](file)
        if found is JPEG:
            picture.draft(None, (max(1, extent.width // 8), max(1, extent.height // 8)))
        picture.load()
    except _PILLOW_ERRORS as error:
        raise Damaged from error
