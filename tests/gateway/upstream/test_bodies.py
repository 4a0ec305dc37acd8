"""Bodies read from disk while they are sent."""

from __future__ import annotations

import base64
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.multipart import form_parts
from gateway.upstream.bodies import READ_SIZE, FilePiece, StreamedBody
from gateway.upstream.errors import NetworkFailed, UpstreamTimeout
from gateway.upstream.requests import StoredFile
from gateway.upstream.web.media import inputs
from tests.gateway.upstream.media import account, running, stored
from tests.gateway.upstream.streams import PROPERTY


async def whole(body: StreamedBody) -> bytes:
    return b"".join([chunk async for chunk in body])


async def test_it_works(tmp_path: Path) -> None:
    file = stored(tmp_path, content=b"picture")
    body = StreamedBody((b"<", FilePiece(file), b"|", FilePiece(file, base64=True), b">"))
    expected = b"<picture|" + base64.b64encode(b"picture") + b">"
    assert await whole(body) == expected
    assert body.size == len(expected)


@PROPERTY
@given(size=st.integers(0, 3 * READ_SIZE), base=st.booleans())
async def test_the_size_is_known_before_the_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, base: bool
) -> None:
    content = bytes(size)
    file = stored(tmp_path_factory.mktemp("f"), content=content)
    body = StreamedBody((FilePiece(file, base64=base),))
    found = await whole(body)
    assert found == (base64.b64encode(content) if base else content)
    assert body.size == len(found)


async def test_the_multipart_form_is_the_file_and_where_it_comes_from(tmp_path: Path) -> None:
    content = b"\x00\r\n--x" * 1000
    file = stored(tmp_path, '海 "a".png', content)
    found = await whole(inputs.multipart_body(file, "bound"))
    parts = form_parts(found, "multipart/form-data; boundary=bound")
    assert [(part.name, part.filename, part.content) for part in parts] == [
        ("file", '海 "a".png', content),
        ("file_source", None, b"IMAGINE_SELF_UPLOAD_FILE_SOURCE"),
    ]


async def test_the_json_form_is_the_older_one(tmp_path: Path) -> None:
    assert json.loads(await whole(inputs.json_body(stored(tmp_path, content=b"hello")))) == {
        "fileName": "cat.png",
        "fileMimeType": "image/png",
        "content": "aGVsbG8=",
    }


@asynccontextmanager
async def counting(received: list[int]) -> AsyncIterator[str]:
    """A server that takes uploads and keeps nothing but their sizes."""

    async def take(request: web.Request) -> web.Response:
        assert "Transfer-Encoding" not in request.headers
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        received.append(size)
        return web.json_response({"fileMetadataId": "f", "fileUri": "users/u/f/content"})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("form", ["v2", "json"])
async def test_a_large_file_goes_over_the_wire_and_not_through_memory(
    tmp_path: Path, form: str
) -> None:
    size = 24 * 1024 * 1024
    received: list[int] = []
    async with counting(received) as url, running() as rig:
        rig.url = url
        calls = rig.web(upload_form=form)._calls
        files = [stored(tmp_path, content=b"\x89PNG" + bytes(size - 4))] * 3
        gc.collect()
        tracemalloc.start()
        await inputs.upload_inputs(calls, calls.profile(), files, account("ok-1"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(received) == 3
    assert min(received) > size
    assert peak < size // 4


@pytest.mark.parametrize("form", ["v2", "json"])
async def test_upstream_gets_what_is_on_disk(tmp_path: Path, form: str) -> None:
    content = bytes(range(256)) * 4000
    files = [stored(tmp_path, f"{number}.png", content) for number in range(5)]
    async with running() as rig:
        calls = rig.web(upload_form=form)._calls
        uploaded = await inputs.upload_inputs(calls, calls.profile(), files, account("ok-1"))
        assets = {asset.asset_id: asset for asset in rig.state.assets.values()}
        for number, one in enumerate(uploaded):
            assert assets[one.file_id].content == content
            assert assets[one.file_id].name == f"{number}.png"
            assert one.url.startswith(f"{rig.url}/users/")
        assert rig.rules_broken() == []


@pytest.mark.parametrize("kind", ["gone", "short"])
async def test_a_file_that_is_not_what_it_was_fails_the_request(tmp_path: Path, kind: str) -> None:
    file = stored(tmp_path, content=b"x" * 1000)
    file = StoredFile(file.name, file.mime_type, file.path, 2000)
    if kind == "gone":
        file.path.unlink()
    async with running() as rig:
        calls = rig.web()._calls
        with pytest.raises(NetworkFailed) as caught:
            await inputs.upload_inputs(calls, calls.profile(), [file], account("ok-1"))
    assert not isinstance(caught.value, UpstreamTimeout)
