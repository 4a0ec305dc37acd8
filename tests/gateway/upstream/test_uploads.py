"""Attachments: limits, bodies, ids, concurrency."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import CredentialRejected, RequestRejected, UpstreamFailed
from gateway.upstream.requests import FetchedFile
from gateway.upstream.web import uploads


def file(name: str = "a.png", mime: str = "image/png", content: bytes = b"hello") -> FetchedFile:
    return FetchedFile(name, mime, content)


def test_it_writes_the_json_form() -> None:
    assert json.loads(uploads.json_body(file())) == {
        "fileName": "a.png",
        "fileMimeType": "image/png",
        "content": base64.b64encode(b"hello").decode(),
    }


def test_it_writes_the_multipart_form_byte_for_byte() -> None:
    content_type, body = uploads.multipart_body(file('海 "a".png', content=b"\x00\r\n--x"), "bound")
    assert content_type == "multipart/form-data; boundary=bound"
    assert body == (
        b"--bound\r\n"
        b'Content-Disposition: form-data; name="file"; filename="\xe6\xb5\xb7 \\"a\\".png"\r\n'
        b"Content-Type: image/png\r\n\r\n"
        b"\x00\r\n--x\r\n"
        b"--bound--\r\n"
    )


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.pdf", "y.pdf"),
        ("a\r\nb\x00.txt", "ab.txt"),
        ("", "file"),
        ("..", "file"),
        ("x/", "file"),
        ("n" * 300 + ".pdf", "n" * 156 + ".pdf"),
        ("n" * 300, "n" * 160),
    ],
)
def test_it_cleans_names(name: str, safe: str) -> None:
    assert uploads.safe_name(name) == safe


@given(st.text(), st.text())
def test_it_lets_no_name_or_type_break_the_body(name: str, mime: str) -> None:
    _, body = uploads.multipart_body(file(name, mime, b"DATA"), "bound")
    head, _, rest = body.partition(b"\r\n\r\n")
    assert head.count(b"\r\n") == 2
    assert rest == b"DATA\r\n--bound--\r\n"
    assert len(uploads.safe_name(name)) <= uploads.MAX_NAME
    json.loads(uploads.json_body(file(name, mime)))


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ({"fileMetadataId": "m", "fileUri": "u"}, "m"),
        ({"fileId": "f"}, "f"),
        ({"uploadId": "u", "fileMetadata": {"fileMetadataId": "m", "fileId": "f"}}, "m"),
        ({"uploadId": "u", "fileMetadata": {"fileId": "f"}}, "f"),
        ({"uploadId": "u", "terminalError": None, "fileMetadata": None}, "u"),
        ({"uploadId": "u", "terminalError": False}, "u"),
        ({"uploadId": "u", "terminalError": 0}, "u"),
        ({"uploadId": "u", "terminalError": ""}, "u"),
        ({"uploadId": "u", "terminalError": {}}, "u"),
        ({"uploadId": "u", "terminalError": []}, "u"),
    ],
)
def test_it_takes_the_first_id_there_is(reply: dict[str, Any], found: str) -> None:
    assert uploads.reference_id(reply) == found


@pytest.mark.parametrize("error", ["bad", True, {"code": 1}, ["x"], 7])
def test_it_blames_the_request_for_a_terminal_error(error: Any) -> None:
    with pytest.raises(RequestRejected):
        uploads.reference_id({"uploadId": "u", "terminalError": error})


def test_it_fails_without_an_id() -> None:
    with pytest.raises(UpstreamFailed):
        uploads.reference_id({"fileMetadata": {"fileMetadataId": 4}})


@pytest.mark.parametrize(
    "sizes",
    [[1] * 9, [uploads.MAX_FILE_BYTES + 1], [uploads.MAX_FILE_BYTES] * 2 + [1]],
)
def test_it_refuses_more_than_upstream_takes(sizes: list[int]) -> None:
    content = bytes(max(sizes))
    files = [file(content=content[:size]) for size in sizes]
    with pytest.raises(RequestRejected):
        uploads.check_limits(files)


async def test_it_uploads_four_at_once_and_keeps_the_order() -> None:
    running = peak = 0

    async def one(item: FetchedFile) -> str:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return f"id-{item.name}"

    names = [str(number) for number in range(8)]
    ids = await uploads.upload_all([file(name) for name in names], one)
    assert ids == [f"id-{name}" for name in names]
    assert peak == uploads.AT_ONCE


async def test_it_cancels_the_others_when_one_fails() -> None:
    cancelled: list[str] = []

    async def one(item: FetchedFile) -> str:
        if item.name == "bad":
            await asyncio.sleep(0)
            raise CredentialRejected
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(item.name)
        return ""

    with pytest.raises(CredentialRejected):
        await uploads.upload_all([file("a"), file("bad"), file("b")], one)
    assert sorted(cancelled) == ["a", "b"]


async def test_it_cancels_every_upload_with_its_caller() -> None:
    started = asyncio.Semaphore(0)
    cancelled: list[str] = []

    async def one(item: FetchedFile) -> str:
        started.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(item.name)
        return ""

    task = asyncio.create_task(uploads.upload_all([file("a"), file("b")], one))
    await started.acquire()
    await started.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cancelled) == ["a", "b"]
