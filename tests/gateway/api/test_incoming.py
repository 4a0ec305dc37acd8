"""A body that comes slowly, in pieces, or not at all; and files that nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from gateway.api import file_responses
from gateway.api.file_responses import FileResponse, send_file
from gateway.api.incoming import Incoming, Pace, announced_size, is_form
from gateway.api.lifetime import Lifetime
from gateway.media.store import MediaStore, in_memory
from gateway.wire.errors import ApiError
from tests.gateway.media import samples

Message = MutableMapping[str, Any]


def lifetime() -> Lifetime:
    task = asyncio.current_task()
    assert task is not None
    return Lifetime(task)


class Sender:
    """Sends ``pieces``, each after a pause; then is silent for ever."""

    def __init__(self, *pieces: bytes, pause: float = 0.0, ends: bool = True) -> None:
        self._pieces = list(pieces)
        self._pause = pause
        self._ends = ends

    async def __call__(self) -> Message:
        await asyncio.sleep(self._pause)
        if not self._pieces:
            await asyncio.Event().wait()
        piece = self._pieces.pop(0)
        more = bool(self._pieces) or not self._ends
        return {"type": "http.request", "body": piece, "more_body": more}


async def test_it_gives_the_parts_as_they_come_and_knows_the_end() -> None:
    incoming = Incoming(Sender(b"a", b"", b"bc"), lifetime(), 3)

    assert [part async for part in incoming.parts()] == [b"a", b"bc"]
    assert incoming.taken == 3
    assert incoming.finished.is_set()


@pytest.mark.parametrize(
    ("sender", "pace"),
    [
        (Sender(b"a", ends=False), Pace(silence=0.02, grace=60)),
        (Sender(*[b"a"] * 1000, pause=0.002), Pace(silence=60, grace=0.05, least=1000)),
    ],
    ids=["silent", "dripping"],
)
async def test_a_sender_that_is_too_slow_is_told(sender: Sender, pace: Pace) -> None:
    incoming = Incoming(sender, lifetime(), None, pace)

    with pytest.raises(ApiError) as caught:
        async for _ in incoming.parts():
            pass
    assert (caught.value.status, caught.value.code) == (408, "request_timeout")
    assert not incoming.finished.is_set()


async def test_a_steady_sender_may_take_longer_than_the_grace() -> None:
    pace = Pace(silence=1, grace=0.02, least=1000)
    incoming = Incoming(Sender(*[b"x" * 1000] * 30, pause=0.002), lifetime(), None, pace)

    assert sum([len(part) async for part in incoming.parts()]) == 30_000


async def test_a_sender_who_leaves_ends_the_request() -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def serve() -> None:
        async for _ in Incoming(gone, lifetime(), None).parts():
            pass

    task = asyncio.create_task(serve())
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"multipart/form-data; boundary=x", True),
        (b" Multipart/Form-Data;boundary=x", True),
        (b"multipart/mixed; boundary=x", False),
        (b"application/json", False),
        (None, False),
    ],
)
def test_only_forms_are_taken_part_by_part(kind: bytes | None, expected: bool) -> None:
    assert is_form({"headers": [(b"content-type", kind)] if kind else []}) is expected


@pytest.mark.parametrize(
    ("length", "expected"), [(b"12", 12), (b"", None), (b"-1", None), (b"9" * 5000, None)]
)
def test_an_announced_size_is_a_number(length: bytes, expected: int | None) -> None:
    assert announced_size({"headers": [(b"content-length", length)]}) == expected


async def test_a_reader_that_takes_nothing_any_more_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_responses, "STALLED", 0.02)
    store = MediaStore(tmp_path, reserve=0)
    await store.save("image", "a", in_memory(samples.PNG))
    opened = await store.open("image", "a")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()
        sent.append(message)

    await send_file(send, FileResponse(opened, 200, 0, opened.size), [], lifetime(), body=True)

    assert [message["type"] for message in sent] == ["http.response.start"]
    with pytest.raises(ValueError, match="closed"):
        await opened.read(0, 1)
    await store.aclose()


async def test_a_stop_ends_a_file_that_is_being_sent(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, reserve=0)
    await store.save("image", "a", in_memory(samples.PNG))
    opened = await store.open("image", "a")
    sending = lifetime()

    async def send(message: Message) -> None:
        sending.interrupt(ApiError(503, "Stopping."))
        await asyncio.sleep(0)

    await send_file(send, FileResponse(opened, 200, 0, opened.size), [], sending, body=True)

    with pytest.raises(ValueError, match="closed"):
        await opened.read(0, 1)
    await store.aclose()
