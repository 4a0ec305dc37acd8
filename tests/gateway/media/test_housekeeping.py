"""The cache within its limit, and what an operator sees of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.media.errors import BadName
from gateway.media.housekeeping import LOCK, Housekeeping, Usage
from gateway.media.store import MediaStore
from tests.gateway.media import samples
from tests.gateway.media.test_store import files

NOW = 2_000_000_000 * 10**9
HOUR = 3600 * 10**9


class Cache:
    """Files of a thousand bytes, used at a time; a limit in thousands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limit = 10
        self.auto = True
        self.now = NOW
        self.keeping = Housekeeping(
            root,
            limit_bytes=lambda: self.limit * 1000,
            auto_clean=lambda: self.auto,
            now_ns=lambda: self.now,
        )

    def put(self, name: str, *, kind: str = "image", used: int = 0, size: int = 1000) -> Path:
        path = self.root / kind / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(samples.PNG.ljust(size, b"\0")[:size])
        os.utime(path, ns=(NOW + used, NOW - HOUR))
        return path

    def names(self) -> list[str]:
        return [name for name in files(self.root) if not name.startswith(".")]


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - it happens on the disk
            await asyncio.sleep(0.002)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path)
    yield made
    made.keeping.close()


async def test_it_removes_the_least_recently_used_down_to_four_fifths(cache: Cache) -> None:
    for number in range(12):
        cache.put(f"n{number:02}", kind="image" if number % 2 else "video", used=-number)

    assert await cache.keeping.clean_once() == Usage(4, 4000)

    left = {name.partition("/")[2] for name in cache.names()}
    assert left == {f"n{number:02}" for number in range(8)}


@pytest.mark.parametrize("auto", [True, False])
async def test_it_removes_nothing_within_the_limit_or_when_switched_off(
    cache: Cache, auto: bool
) -> None:
    cache.auto = auto
    for number in range(10 if auto else 30):
        cache.put(f"n{number}")

    assert await cache.keeping.clean_once() == Usage()


async def test_it_leaves_alone_what_is_not_its_own(cache: Cache, tmp_path: Path) -> None:
    cache.limit = 1
    outside = tmp_path / "outside.png"
    outside.write_bytes(bytes(5000))
    cache.put("a"), cache.put("b")
    (tmp_path / "image" / "link.png").symlink_to(outside)
    (tmp_path / "image" / ".keep").write_bytes(bytes(5000))

    await cache.keeping.clean_once()
    await cache.keeping.clear("image")

    assert outside.exists()
    assert [name for name in files(tmp_path) if name != LOCK] == [
        "image/.keep",
        "image/link.png",
        "outside.png",
    ]


async def test_leftovers_of_crashes_go_after_an_hour(cache: Cache, tmp_path: Path) -> None:
    cache.auto = False
    for folder in ("image", "video", "incoming"):
        for name, age in (("old", HOUR + 1), ("new", HOUR - 1)):
            path = cache.put(f".{name}.part", kind=folder)
            os.utime(path, ns=(NOW - age, NOW - age))

    await cache.keeping.clean_once()

    assert [name for name in files(tmp_path) if name != LOCK] == [
        f"{folder}/.new.part" for folder in ("image", "incoming", "video")
    ]


async def test_a_file_that_is_being_read_is_read_to_its_end(cache: Cache, tmp_path: Path) -> None:
    store = MediaStore(tmp_path, reserve=0)
    path = cache.put("a.png", size=len(samples.PNG))
    cache.limit = 0
    try:
        with await store.open("image", "a.png") as file:
            beginning = bytes(await file.read(0, 100))
            await cache.keeping.clean_once()
            assert not path.exists()
            assert beginning + bytes(await file.read(100, file.size)) == samples.PNG
    finally:
        await store.aclose()


async def test_what_is_used_while_it_is_cleaned_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = [cache.put(f"n{number:02}", used=number) for number in range(12)]

    def limit() -> int:
        # Asked for after the files have been listed.
        os.utime(paths[0], ns=(NOW + HOUR, NOW - HOUR))
        return 10_000

    keeping = Housekeeping(tmp_path, limit_bytes=limit, auto_clean=lambda: True)
    assert (await keeping.clean_once()).count == 4
    keeping.close()
    cache.keeping.close()

    assert paths[0].exists()
    assert not any(path.exists() for path in paths[1:5])


async def test_what_is_used_again_outlives_what_is_not(cache: Cache, tmp_path: Path) -> None:
    store = MediaStore(tmp_path, reserve=0, now_ns=lambda: NOW)
    for number in range(12):
        cache.put(f"n{number:02}.png", used=-HOUR + number)
    try:
        assert await store.find("image", "n00.png")
    finally:
        await store.aclose()

    await cache.keeping.clean_once()

    assert "image/n00.png" in cache.names()
    assert "image/n01.png" not in cache.names()


def test_only_one_process_cleans_a_folder(cache: Cache, tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        " fcntl.flock(fd, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / LOCK)]
    cache.limit = 1
    cache.put("a"), cache.put("b")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert asyncio.run(cache.keeping.clean_once()) == Usage()
        other.communicate(b"\n")

    assert asyncio.run(cache.keeping.clean_once()).count == 2


async def test_the_leader_cleans_and_nobody_else(cache: Cache) -> None:
    cache.limit = 1
    leads = False
    cleaning = asyncio.create_task(cache.keeping.clean_forever(lambda: leads, every=0.001))
    cache.put("a"), cache.put("b")
    await asyncio.sleep(0.05)
    assert len(cache.names()) == 2

    leads = True
    await until(lambda: not cache.names())
    cleaning.cancel()
    await asyncio.gather(cleaning, return_exceptions=True)


async def test_trouble_is_told_once_and_tried_again(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.limit = 1
    (tmp_path / "image").write_text("a file where the folder should be")
    cleaning = asyncio.create_task(cache.keeping.clean_forever(lambda: True, every=0.001))
    await asyncio.sleep(0.05)
    assert [record.message[:28] for record in caplog.records] == ["cannot clean the media cache"]

    (tmp_path / "image").unlink()
    cache.put("a"), cache.put("b")
    await until(lambda: not cache.names())
    cleaning.cancel()
    await asyncio.gather(cleaning, return_exceptions=True)


async def test_an_operator_sees_pages_the_newest_first(cache: Cache) -> None:
    for number in range(5):
        path = cache.put(f"v{number}.mp4", kind="video")
        os.utime(path, ns=(NOW, NOW + number * 10**9))
    cache.put("v3.png")

    page = await cache.keeping.page("video", 1, 2)

    assert page.total == 5
    assert [(item.name, item.preview) for item in page.items] == [
        ("v4.mp4", None),
        ("v3.mp4", "v3.png"),
    ]
    assert page.items[0].modified_ms == NOW // 10**6 + 4000
    last = await cache.keeping.page("video", 3, 2)
    assert [item.name for item in last.items] == ["v0.mp4"]
    assert (await cache.keeping.page("video", 4, 2)).items == []
    assert len((await cache.keeping.page("video", -1, 10**9)).items) == 5


async def test_an_operator_counts_and_deletes(cache: Cache) -> None:
    assert await cache.keeping.usage("image") == Usage()
    cache.put("a.png"), cache.put("b.png")
    assert await cache.keeping.usage("image") == Usage(2, 2000)
    assert await cache.keeping.delete("image", "a.png")
    assert not await cache.keeping.delete("image", "a.png")
    with pytest.raises(BadName):
        await cache.keeping.delete("image", "../image/b.png/..")
    assert await cache.keeping.clear("image") == Usage(1, 1000)
    assert await cache.keeping.usage("image") == Usage()


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 10**6)), max_size=30),
    st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_it_removes_just_enough_and_never_a_newer_before_an_older(
    wanted: list[tuple[int, int]], limit: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        cache = Cache(Path(directory))
        cache.limit = limit
        for number, (size, used) in enumerate(wanted):
            cache.put(f"n{number}", used=used, size=size * 1000)
        cleaned = asyncio.run(cache.keeping.clean_once())
        cache.keeping.close()
        left = {int(name.removeprefix("image/n")) for name in cache.names()}

    sizes = {number: size for number, (size, _) in enumerate(wanted)}
    total, rest = sum(sizes.values()), sum(sizes[number] for number in left)
    assert cleaned == Usage(len(wanted) - len(left), (total - rest) * 1000)
    if total <= limit:
        assert len(left) == len(wanted)
        return
    assert rest * 1000 <= limit * 1000 * 0.8
    gone = sizes.keys() - left
    newest_gone = max(gone, key=lambda number: wanted[number][1])
    assert all(wanted[number][1] >= wanted[newest_gone][1] for number in left)
    assert rest + sizes[newest_gone] > limit * 0.8 - 1e-9
