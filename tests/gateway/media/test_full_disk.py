"""A disk that is really full: a small one, made for the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from gateway.media.errors import StorageFull
from gateway.media.housekeeping import Housekeeping
from gateway.media.store import MediaStore, in_memory
from tests.gateway.media import samples
from tests.gateway.media.server import MediaServer
from tests.gateway.media.test_store import files

SIZE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def noise(side: int) -> bytes:
    file = BytesIO()
    Image.effect_noise((side, side), 100).save(file, "PNG")
    return file.getvalue()


async def test_it_says_so_and_leaves_no_part(small_disk: Path) -> None:
    store = MediaStore(small_disk, reserve=0)
    try:
        kept = await store.save("image", "small", in_memory(samples.PNG))
        with pytest.raises(StorageFull):
            await store.save("image", "large", in_memory(noise(1200)))

        assert files(small_disk) == [f"image/{kept.name}"]
        assert await store.find("image", "small")
    finally:
        await store.aclose()


async def test_many_writers_at_once_leave_whole_files_only(small_disk: Path) -> None:
    store = MediaStore(small_disk, reserve=0)
    content = noise(300)
    try:
        saving = [store.save("image", f"n{number}", in_memory(content)) for number in range(20)]
        done = await asyncio.gather(*saving, return_exceptions=True)
    finally:
        await store.aclose()

    kept = [one.name for one in done if not isinstance(one, BaseException)]
    assert {type(one) for one in done if isinstance(one, BaseException)} == {StorageFull}
    assert kept
    assert files(small_disk) == sorted(f"image/{name}" for name in kept)
    assert {(small_disk / "image" / name).read_bytes() for name in kept} == {content}


async def test_cleaning_makes_room_on_a_full_disk(small_disk: Path) -> None:
    store = MediaStore(small_disk, reserve=0)
    keeping = Housekeeping(small_disk, limit_bytes=lambda: 200_000, auto_clean=lambda: True)
    content = noise(300)
    try:
        with pytest.raises(StorageFull):
            for number in range(100):
                await store.save("image", f"n{number}", in_memory(content))
        assert (await keeping.clean_once()).count > 0
        await store.save("image", "again", in_memory(content))
    finally:
        await store.aclose()
        keeping.close()


def test_an_upload_is_told_and_leaves_nothing(small_disk: Path) -> None:
    with MediaServer(small_disk) as server, server.client(key=True) as client:
        answer = client.post("/v1/uploads/image", files={"file": noise(1200)})

        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "storage_full"
        assert answer.headers["retry-after"]
        assert files(small_disk) == []
        assert client.post("/v1/uploads/image", files={"file": samples.PNG}).status_code == 200
