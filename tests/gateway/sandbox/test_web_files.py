"""Uploads and assets of grok.com."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import GEN2, Caller

V1 = "/rest/app-chat/upload-file"
V2 = "/http/upload-file-v2/direct"


async def upload(caller: Caller, token: str) -> dict[str, Any]:
    body = {"fileName": "file.png", "fileMimeType": "image/png", "content": "aGVsbG8="}
    async with caller.web_post(token, V1, body) as reply:
        found: dict[str, Any] = await reply.json()
        return found


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    found = await upload(caller, "ok-1")
    async with caller.web_get("ok-1", "/" + found["fileUri"]) as reply:
        assert await reply.read() == b"hello"
        assert reply.content_type == "image/png"
    assert sandbox.state.violations == []


@pytest.mark.parametrize("source", [None, "IMAGINE_SELF_UPLOAD_FILE_SOURCE"])
async def test_a_multipart_upload(
    caller: Caller, sandbox: RunningSandbox, source: str | None
) -> None:
    with aiohttp.MultipartWriter("form-data") as form:
        part = form.append(b"\x89PNG\r\n--x", {"Content-Type": "image/png"})
        part.headers["Content-Disposition"] = 'form-data; name="file"; filename="日 \\"q\\".png"'
        if source:
            part = form.append(source)
            part.headers["Content-Disposition"] = 'form-data; name="file_source"'
    headers = caller.web_headers("ok-1", "/imagine" if source else "/")
    async with caller.session.post(sandbox.url + V2, data=form, headers=headers) as reply:
        body = await reply.json()
    assert body["terminalError"] is None
    path = body["fileMetadata"]["fileUri"]
    assert sandbox.state.assets[path].content == b"\x89PNG\r\n--x"
    assert sandbox.state.assets[path].name == '日 "q".png'
    assert sandbox.state.violations == []


async def test_a_multipart_upload_with_the_parts_swapped_is_refused(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    form = aiohttp.FormData()
    form.add_field("file_source", "IMAGINE_SELF_UPLOAD_FILE_SOURCE")
    form.add_field("file", b"x", filename="a.png", content_type="image/png")
    headers = caller.web_headers("ok-1", "/imagine")
    async with caller.session.post(sandbox.url + V2, data=form, headers=headers) as reply:
        assert reply.status == 400


async def test_an_upload_belongs_to_its_account(caller: Caller, sandbox: RunningSandbox) -> None:
    file_id = (await upload(caller, "ok-1"))["fileMetadataId"]
    body = {**GEN2, "fileAttachments": [file_id]}
    async with caller.chat("ok-1", **body) as reply:
        assert reply.status == 200
    async with caller.chat("ok-2", **body) as reply:
        assert reply.status == 404
    assert [violation.rule for violation in sandbox.state.violations] == ["foreign-upload"]


async def test_asset_bytes_need_the_owners_cookie(caller: Caller, sandbox: RunningSandbox) -> None:
    path = "/" + (await upload(caller, "ok-1"))["fileUri"]
    async with caller.web_get("ok-2", path) as reply:
        assert reply.status == 403
        assert (await reply.read()).startswith(b"<")
    async with caller.session.get(sandbox.url + path) as reply:
        assert reply.status == 401
    async with caller.web_get("ok-1", "/users/nobody/x") as reply:
        assert reply.status == 404


async def test_assets_come_in_two_pages_and_a_repeated_token(caller: Caller) -> None:
    seen, tokens, token = [], [], ""
    for _ in range(2):
        async with caller.web_get("ok-1", f"/rest/assets?pageToken={token}", "/files") as reply:
            page = await reply.json()
        seen += [asset["assetId"] for asset in page["assets"]]
        token = page["nextPageToken"]
        tokens.append(token)
    assert len(seen) == len(set(seen)) == 3
    assert tokens[0] == tokens[1] != ""


async def test_assets_can_be_deleted_until_none_is_left(caller: Caller) -> None:
    for _ in range(3):
        async with caller.web_get("ok-1", "/rest/assets", "/files") as reply:
            asset_id = (await reply.json())["assets"][0]["assetId"]
        headers = caller.web_headers("ok-1", "/files")
        url = f"{caller.url}/rest/assets-metadata/{asset_id}"
        async with caller.session.delete(url, headers=headers) as reply:
            assert reply.status == 200
        async with caller.session.delete(url, headers=headers) as reply:
            assert reply.status == 404
    async with caller.web_get("ok-1", "/rest/assets", "/files") as reply:
        assert await reply.json() == {"assets": [], "nextPageToken": ""}
