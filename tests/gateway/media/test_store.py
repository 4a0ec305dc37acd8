"""The cache on a real disk: whole files or none, one download for many, nothing outside."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from gateway.media import store as store_module
from gateway.media.errors import (
    BadName,
    Damaged,
    NoSuchFile,
    StorageFailed,
    StorageFull,
    TooLarge,
    WrongType,
)
from gateway.media.formats import PICTURES
from gateway.media.names import Kind
from gateway.media.part_file import PartFile
from gateway.media.store import MediaStore, in_memory
from tests.gateway.media import samples
from tests.gateway.media.test_names import HOSTILE

NAME = "users-u-1-a-1-content"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MediaStore]:
    made = MediaStore(tmp_path, reserve=0)
    yield made
    await made.aclose()


async def pieces(content: bytes, size: int = 7) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def read(store: MediaStore, kind: Kind, name: str) -> bytes:
    with await store.open(kind, name) as file:
        return bytes(await file.read(0, file.size))


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


async def test_it_works(store: MediaStore, tmp_path: Path) -> None:
    stored = await store.save("image", NAME, pieces(samples.PNG))

    assert (stored.name, stored.mime, stored.size) == (
        f"{NAME}.png",
        "image/png",
        len(samples.PNG),
    )
    assert await read(store, "image", stored.name) == samples.PNG
    assert files(tmp_path) == [f"image/{NAME}.png"]


@pytest.mark.parametrize("asked", [NAME, f"{NAME}.jpg", f"{NAME}.png", "users/u-1/a-1/content"])
async def test_old_spellings_find_the_file(store: MediaStore, asked: str) -> None:
    await store.save("image", f"{NAME}.jpg", in_memory(samples.PNG))

    with await store.open("image", asked) as file:
        assert (file.name, file.mime) == (f"{NAME}.png", "image/png")


async def test_a_file_of_old_is_served_as_what_it_is(store: MediaStore, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "old.jpg").write_bytes(samples.GIF)
    (tmp_path / "image" / "page.png").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "image" / "film.png").write_bytes(samples.MP4)

    assert await store.find("image", "page.png") is None
    assert await store.find("image", "film.png") is None
    with await store.open("image", "old.jpg") as file:
        assert (file.name, file.mime) == ("old.jpg", "image/gif")


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_hostile_name_reaches_the_disk(
    store: MediaStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / "x.png").write_bytes(samples.PNG)
    (tmp_path / "image").mkdir()

    with pytest.raises(BadName):
        await store.open("image", name)
    with pytest.raises(BadName):
        await store.save("image", name, in_memory(samples.PNG))
    assert files(tmp_path) == ["x.png"]


async def test_links_pipes_and_folders_are_not_files(store: MediaStore, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(samples.PNG)
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "link.png").symlink_to(outside)
    (folder / "dangling.png").symlink_to(tmp_path / "nothing")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")

    for name in ("link.png", "dangling.png", "folder.png", "pipe.png"):
        with pytest.raises(NoSuchFile):
            await store.open("image", name)


async def test_writing_replaces_a_link_and_not_what_it_leads_to(
    store: MediaStore, tmp_path: Path
) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"untouched")
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "a.png").symlink_to(outside)

    await store.save("image", "a.png", in_memory(samples.PNG))

    assert outside.read_bytes() == b"untouched"
    assert await read(store, "image", "a.png") == samples.PNG


async def test_the_cache_itself_may_be_a_link(store: MediaStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "image").symlink_to(tmp_path / "elsewhere")

    await store.save("image", "a", in_memory(samples.PNG))

    assert await read(store, "image", "a.png") == samples.PNG


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", WrongType),
        (b"<html>403</html>" * 50, WrongType),
        (samples.MP4, WrongType),
        (samples.PNG[:-1], Damaged),
        (samples.PNG + b"PK\x03\x04", Damaged),
    ],
)
async def test_nothing_is_left_of_what_is_refused(
    store: MediaStore, tmp_path: Path, content: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.save("image", "a.png", pieces(content))
    assert files(tmp_path) == []


async def test_an_error_page_is_recognised_by_its_beginning_and_its_source_closed(
    store: MediaStore,
) -> None:
    taken, closed = 0, False

    async def page() -> AsyncGenerator[bytes, None]:
        nonlocal taken, closed
        try:
            while True:
                taken += 1
                yield b"<html>" + b"x" * 100
        finally:
            closed = True

    source = page()
    with pytest.raises(WrongType):
        await store.save("image", "a.png", source)
    assert (taken, closed) == (1, True)


async def test_a_source_without_end_is_cut_off(
    store: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store_module.MAX_BYTES, "image", 3 << 20)

    async def endless() -> AsyncGenerator[bytes, None]:
        yield samples.PNG
        while True:
            yield bytes(1 << 20)

    with pytest.raises(TooLarge, match="3 MiB"):
        await store.save("image", "a.png", endless())
    assert files(tmp_path) == []


async def test_what_cameras_append_is_not_kept(store: MediaStore) -> None:
    stored = await store.save("image", "a", in_memory(samples.JPEG + samples.JPEG))

    assert stored.size == len(samples.JPEG)
    assert await read(store, "image", "a.jpg") == samples.JPEG


async def test_a_hundred_readers_share_one_download(store: MediaStore, tmp_path: Path) -> None:
    begun = 0
    reading, gate = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncGenerator[bytes, None]:
        nonlocal begun
        begun += 1
        reading.set()
        await gate.wait()
        yield samples.PNG

    readers = [asyncio.create_task(store.fetch("image", NAME, source)) for _ in range(100)]
    await reading.wait()
    assert store.downloads == 1
    gate.set()
    found = await asyncio.gather(*readers)

    assert begun == 1
    assert {stored.name for stored in found} == {f"{NAME}.png"}
    assert files(tmp_path) == [f"image/{NAME}.png"]
    assert store.downloads == 0
    assert (await store.fetch("image", NAME, source)).name == f"{NAME}.png"
    assert begun == 1, "what is there is not fetched again"


async def test_every_reader_of_a_failed_download_is_told_and_the_next_one_tries_again(
    store: MediaStore, tmp_path: Path
) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield samples.PNG[:100]
        raise ConnectionError("gone")

    readers = [store.fetch("image", NAME, broken) for _ in range(10)]
    found = await asyncio.gather(*readers, return_exceptions=True)

    assert [type(error) for error in found] == [ConnectionError] * 10
    assert files(tmp_path) == []
    assert (await store.fetch("image", NAME, lambda: pieces(samples.PNG))).size


class Held:
    """A source that waits for ever after its first bytes, and knows whether it was closed."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            yield samples.PNG[:100]
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_a_download_goes_on_while_anybody_waits_for_it(
    store: MediaStore, tmp_path: Path
) -> None:
    source = Held()
    first, second = (asyncio.create_task(store.fetch("image", NAME, source)) for _ in range(2))
    await source.begun.wait()

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not source.closed.is_set()
    second.cancel()
    await asyncio.wait_for(source.closed.wait(), 5)

    fresh = await store.fetch("image", NAME, lambda: pieces(samples.PNG))
    assert fresh.size == len(samples.PNG)
    await store.aclose()
    assert files(tmp_path) == [f"image/{NAME}.png"]


async def test_closing_ends_downloads_and_leaves_nothing(tmp_path: Path) -> None:
    store, source = MediaStore(tmp_path, reserve=0), Held()
    reader = asyncio.create_task(store.fetch("image", NAME, source))
    await source.begun.wait()

    await store.aclose()

    assert isinstance((await asyncio.gather(reader, return_exceptions=True))[0], BaseException)
    assert source.closed.is_set()
    assert files(tmp_path) == []


async def test_two_workers_may_write_the_same_file(store: MediaStore, tmp_path: Path) -> None:
    other = MediaStore(tmp_path, reserve=0)
    try:
        both = (one.save("image", NAME, pieces(samples.PNG)) for one in (store, other))
        await asyncio.gather(*both)
    finally:
        await other.aclose()

    assert files(tmp_path) == [f"image/{NAME}.png"]
    assert await read(store, "image", NAME) == samples.PNG


async def test_a_file_is_read_in_parts_and_to_its_end(store: MediaStore) -> None:
    await store.save("image", "a", in_memory(samples.PNG))

    with await store.open("image", "a") as file:
        assert bytes(await file.read(3, 5)) == samples.PNG[3:8]
        assert bytes(await file.read(file.size - 2, 100)) == samples.PNG[-2:]
        assert not await file.read(file.size, 100)


async def test_reading_needs_no_thread_for_what_is_in_memory_and_one_for_the_rest(
    store: MediaStore, tmp_path: Path
) -> None:
    content = samples.picture("PNG", (1500, 1500))
    await store.save("image", "a", in_memory(content))
    path = tmp_path / "image" / "a.png"

    with await store.open("image", "a") as file:
        seen = len(threading.enumerate())
        assert bytes(await file.read(0, 1000)) == content[:1000]
        assert len(threading.enumerate()) == seen
        with path.open("rb") as other:
            os.posix_fadvise(other.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert bytes(await file.read(2_000_000, 1000)) == content[2_000_000:2_001_000]


async def test_a_file_that_is_removed_is_read_to_its_end(store: MediaStore) -> None:
    await store.save("image", "a", in_memory(samples.PNG))

    with await store.open("image", "a") as file:
        store.folders["image"].remove("a.png")
        assert bytes(await file.read(0, file.size)) == samples.PNG
    assert await store.find("image", "a") is None


async def test_being_used_is_remembered_and_changes_nothing_else(tmp_path: Path) -> None:
    now = [2_000_000_000 * 10**9]
    store = MediaStore(tmp_path, reserve=0, now_ns=lambda: now[0])
    try:
        await store.save("image", "a", in_memory(samples.PNG))
        path = tmp_path / "image" / "a.png"
        os.utime(path, ns=(10**9, 10**9))
        (await store.open("image", "a")).close()
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (now[0], 10**9)

        now[0] += 30 * 10**9
        assert await store.find("image", "a")
        assert path.stat().st_atime_ns == now[0] - 30 * 10**9, "at most once a minute"
    finally:
        await store.aclose()


async def test_the_reserve_of_the_disk_is_kept_free(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, reserve=1 << 60)
    try:
        with pytest.raises(StorageFull):
            await store.save("image", "a", in_memory(samples.PNG))
        assert files(tmp_path) == []
    finally:
        await store.aclose()


async def test_a_folder_that_cannot_be_written_is_told_apart_from_a_full_disk(
    store: MediaStore, tmp_path: Path
) -> None:
    (tmp_path / "image").write_text("a file where the folder should be")

    with pytest.raises(StorageFailed) as caught:
        await store.save("image", "a", in_memory(samples.PNG))
    assert not isinstance(caught.value, StorageFull)


async def test_an_upload_that_cannot_be_given_its_place_leaves_nothing(
    store: MediaStore, tmp_path: Path
) -> None:
    (tmp_path / "image").write_text("a file where the folder should be")
    part = store.part(1 << 20)
    part.write(samples.PNG)
    checked = await store.check(part, PICTURES)

    with pytest.raises(StorageFailed):
        await store.keep(part, checked, "a")
    assert files(tmp_path) == ["image"]


def test_a_part_that_was_discarded_takes_nothing_more(store_root: Path) -> None:
    store = MediaStore(store_root, reserve=0)
    part = store.part(100)
    part.write(b"x")
    part.discard()
    part.discard()

    with pytest.raises(StorageFailed):
        part.write(b"x")
    with pytest.raises(StorageFailed):
        part.commit(store.folders["image"], "a.png", 1)
    assert files(store_root) == []
    store.close()


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    return tmp_path


def test_writing_and_discarding_at_once_leaves_nothing(store_root: Path) -> None:
    store = MediaStore(store_root, reserve=0)
    for _ in range(200):
        part: PartFile = store.part(1 << 20)
        writer = threading.Thread(target=_write_some, args=(part,))
        writer.start()
        part.discard()
        writer.join()
        assert files(store_root) == []
    store.close()


def _write_some(part: PartFile) -> None:
    try:
        for _ in range(20):
            part.write(b"x" * 1000)
    except StorageFailed:
        pass
