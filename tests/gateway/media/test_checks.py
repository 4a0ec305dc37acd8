"""What is a picture, and what only looks like one."""

from __future__ import annotations

import tempfile
import tracemalloc
import zipfile
from collections.abc import Collection
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.media.checks import MAX_PIXELS, Checked, check
from gateway.media.errors import BadContent, Damaged, TooManyPixels, WrongType
from gateway.media.formats import JPEG, PICTURES, PNG, VIDEOS, Format
from gateway.sandbox import media_bytes
from tests.gateway.media import samples

ALL = (*PICTURES, *VIDEOS)


def checked(content: bytes, allowed: Collection[Format] = ALL) -> Checked:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return check(file, allowed)


@pytest.mark.parametrize("extension", [*samples.PICTURES, *samples.VIDEOS])
def test_it_tells_every_type_by_its_content(extension: str) -> None:
    content = (samples.PICTURES | samples.VIDEOS)[extension]

    found = checked(content)

    assert found.format.extension == extension
    assert found.size == len(content)
    if found.format.kind == "image":
        assert (found.width, found.height) == samples.SIZE


@pytest.mark.parametrize("name", samples.MORE_PICTURES)
def test_it_takes_what_cameras_and_programs_make(name: str) -> None:
    content = samples.MORE_PICTURES[name]

    assert checked(content).size == len(content)


@pytest.mark.parametrize("content", [media_bytes.png("x"), media_bytes.jpeg("x")])
def test_it_takes_the_smallest_there_are(content: bytes) -> None:
    assert checked(content).size == len(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG",
        b"<html><body>403 Forbidden</body></html>" * 5,
        b'{"error": "not found"}' * 5,
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>' * 3,
        b"%PDF-1.7" + bytes(100),
        b"II*\x00" + bytes(100),
        b"MZ" + bytes(100),
    ],
)
def test_it_refuses_other_types(content: bytes) -> None:
    with pytest.raises(WrongType, match="no PNG, JPEG, WebP, GIF, MP4 or WebM"):
        checked(content)


def test_it_refuses_a_good_picture_of_an_unwanted_type() -> None:
    with pytest.raises(WrongType, match="no PNG or JPEG"):
        checked(samples.GIF, (PNG, JPEG))


def archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("evil.txt", "x" * 100)
    return file.getvalue()


FOREIGN = {"archive": archive(), "page": b"<script>alert(1)</script>", "byte": b"\x01"}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "mp4", "webm"])
def test_it_refuses_a_file_that_is_something_else_as_well(extension: str, foreign: str) -> None:
    with pytest.raises(Damaged):
        checked((samples.PICTURES | samples.VIDEOS)[extension] + FOREIGN[foreign])


def test_it_refuses_a_script_that_begins_like_a_gif() -> None:
    with pytest.raises(Damaged):
        checked(b"GIF89a/*" + bytes(30) + b"*/=1;alert(document.cookie)//;")


@pytest.mark.parametrize(
    "extra",
    [samples.JPEG, samples.MP4, bytes(64), b"\x00\x00\x01\x0aImage_UTC_Data1SEFH....SEFT"],
    ids=["second picture", "moving picture", "padding", "mark of a maker"],
)
def test_what_cameras_append_is_left_out(extra: bytes) -> None:
    assert checked(samples.JPEG + extra).size == len(samples.JPEG)


BOMBS = {
    "PNG": samples.png_bomb(8000, 8000),
    "PNG that is very wide": samples.png_bomb(100_000, 1),
    "JPEG": samples.resized_jpeg(60_000, 60_000),
    "GIF": samples.resized_gif(65_535, 65_535),
    "WebP": samples.resized_webp(16_383, 16_383),
    "endless animation": samples.endless_apng(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_it_refuses_bombs_before_anything_is_unpacked(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(TooManyPixels):
        checked(BOMBS[name])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 2_000_000


def test_a_large_picture_is_taken_by_its_container() -> None:
    """To find that its pixels are missing would take as much memory as they do."""
    small, large = samples.png_bomb(100, 100), samples.png_bomb(7000, 7000)
    assert MAX_PIXELS > 7000 * 7000
    assert checked(large).width == 7000
    header = large[: large.index(b"IDAT") - 4]
    assert checked(header + small[small.index(b"IDAT") - 4 :]).width == 7000


def test_pixels_that_are_not_there_are_missed() -> None:
    short = samples.png_chunk(b"IDAT", b"\x78\x9c\x03\x00\x00\x00\x00\x01")
    at, end = samples.PNG.index(b"IDAT") - 4, samples.PNG.index(b"IEND") - 4

    with pytest.raises(Damaged):
        checked(samples.PNG[:at] + short + samples.PNG[end:])


@pytest.mark.parametrize("extension", [*samples.PICTURES, *samples.VIDEOS])
def test_a_file_cut_off_anywhere_is_refused(extension: str) -> None:
    content = (samples.PICTURES | samples.VIDEOS)[extension]

    for length in range(0, len(content), max(1, len(content) // 60)):
        with pytest.raises((Damaged, WrongType)):
            checked(content[:length])


def test_a_run_of_fill_bytes_takes_no_time(worker_timeout: float = 2.0) -> None:
    import time

    at = samples.JPEG.index(b"\xff\xda") + 14
    began = time.monotonic()
    with pytest.raises(Damaged):
        checked(samples.JPEG[:at] + b"\xff" * 3_000_000 + b"\x00")

    assert time.monotonic() - began < worker_timeout


@given(
    st.sampled_from([*samples.PICTURES.values(), *samples.VIDEOS.values()]),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_no_damage_makes_it_fail_in_another_way(content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))

    try:
        found = checked(bytes(broken))
    except BadContent:
        return
    assert 0 < found.size <= len(broken)


@given(
    st.binary(max_size=300), st.sampled_from([b"", *(c[:40] for c in samples.PICTURES.values())])
)
@example(b"", samples.MP4[:20])
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_fail_in_another_way(rest: bytes, head: bytes) -> None:
    try:
        checked(head + rest)
    except BadContent:
        return
