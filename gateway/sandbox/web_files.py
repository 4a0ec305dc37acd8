"""grok.com: uploads and private assets (upstream-web 5 and 10)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import WebAccount
from gateway.sandbox.asset_faults import ACCESS_DENIED, send_asset
from gateway.sandbox.behaviours import Refusal
from gateway.sandbox.calls import Call, Refused, web_endpoint, web_refusal
from gateway.sandbox.checks import Expect
from gateway.sandbox.media_bytes import png
from gateway.sandbox.multipart import FormPart, form_parts
from gateway.sandbox.state import Asset, SandboxState

IMAGINE_SOURCE = "IMAGINE_SELF_UPLOAD_FILE_SOURCE"
SEEDED_ASSETS = 3
PAGE_TOKEN = "tok-2"  # noqa: S105  # a page, no secret


def store_upload(call: Call, name: str, mime_type: str, content: bytes) -> tuple[str, str]:
    """Keep an uploaded file for its account; returns its metadata id and its path."""
    account = call.account
    file_id = call.state.next_id("file-meta")
    account.files.add(file_id)
    path = f"users/{account.user_id}/{file_id}/content"
    call.state.put_asset(path, Asset(file_id, call.token, content, mime_type, name))
    return file_id, path


def require_own_files(call: Call, file_ids: Iterable[Any]) -> None:
    """Raise Refused with 404 for an upload id that this account did not get."""
    for file_id in file_ids:
        if file_id not in call.account.files:
            call.state.violate("foreign-upload", call.request.path, str(file_id))
            raise web_refusal(404, 5, "File not found.")


async def upload_v1(call: Call) -> web.Response:
    """Base64 in JSON (5.2)."""
    body = call.json()
    try:
        content = base64.b64decode(body["content"], validate=True)
        name, mime_type = str(body["fileName"]), str(body["fileMimeType"])
    except (KeyError, TypeError, binascii.Error):
        raise call.bad_request("fileName, fileMimeType and content are needed") from None
    file_id, path = store_upload(call, name, mime_type, content)
    return web.json_response({"fileMetadataId": file_id, "fileUri": path})


async def upload_v2(call: Call) -> web.Response:
    """Multipart, the ``file`` part first (5.3)."""
    if "x-xai-request-id" in call.request.headers:
        call.state.violate("unexpected-header", call.request.path, "x-xai-request-id")
    parts = form_parts(call.record.body, call.request.headers.get("Content-Type", ""))
    upload = _checked_parts(call, parts)
    assert upload.filename is not None  # noqa: S101  # _checked_parts saw to it
    file_id, path = store_upload(call, upload.filename, upload.content_type, upload.content)
    metadata = {"fileMetadataId": file_id, "fileId": f"id-{file_id}", "fileUri": path}
    return web.json_response(
        {"uploadId": f"up-{file_id}", "terminalError": None, "fileMetadata": metadata}
    )


def _checked_parts(call: Call, parts: list[FormPart]) -> FormPart:
    """The ``file`` part. Raises Refused where the form is not that of 5.3."""
    names = [part.name for part in parts]
    if names not in (["file"], ["file", "file_source"]) or not parts[0].filename:
        raise call.bad_request("expected the parts file and, at most, file_source")
    if len(parts) == 2 and parts[1].content != IMAGINE_SOURCE.encode():
        raise call.bad_request("file_source")
    if "filename*" in parts[0].disposition or not parts[0].content_type:
        raise call.bad_request("the file part")
    wanted = "/imagine" if len(parts) == 2 else "/"
    if not call.request.headers.get("Referer", "").endswith(wanted):
        call.state.violate("wrong-header", call.request.path, "Referer")
    return parts[0]


def _owned(call: Call) -> list[tuple[str, Asset]]:
    """The account's assets, a few of them there from the start."""
    account = call.account
    if "assets_seeded" not in account.settings:
        account.settings["assets_seeded"] = True
        _seed(call.state, account)
    return [(path, asset) for path, asset in call.state.assets.items() if asset.owner == call.token]


def _seed(state: SandboxState, account: WebAccount) -> None:
    for number in range(SEEDED_ASSETS):
        asset_id = state.next_id("asset")
        path = f"users/{account.user_id}/{asset_id}/content"
        name = f"picture-{number}.png"
        state.put_asset(path, Asset(asset_id, account.token, png(asset_id), "image/png", name))


async def list_assets(call: Call) -> web.Response:
    """Two pages; the second repeats its own token, which must end the walk (section 10)."""
    owned = _owned(call)
    middle = (len(owned) + 1) // 2
    second = call.request.query.get("pageToken") == PAGE_TOKEN
    page = owned[middle:] if second else owned[:middle]
    entries = [_entry(path, asset) for path, asset in page]
    return web.json_response({"assets": entries, "nextPageToken": PAGE_TOKEN if owned else ""})


def _entry(path: str, asset: Asset) -> dict[str, Any]:
    return {
        "assetId": asset.asset_id,
        "fileName": asset.name,
        "filePath": path,
        "contentType": asset.content_type,
        "fileSize": len(asset.content),
        "createdAt": "2026-02-01T00:00:00Z",
    }


async def delete_asset(call: Call) -> web.Response:
    """Deletes one of the account's own assets."""
    wanted = call.request.match_info["asset_id"]
    for path, asset in _owned(call):
        if asset.asset_id == wanted:
            del call.state.assets[path]
            call.account.files.discard(wanted)
            return web.json_response({})
    raise web_refusal(404, 5, "Asset not found.")


async def download(call: Call) -> web.StreamResponse:
    """Private bytes: 403 without the owner's cookie, 404 for a path nobody has."""
    asset = call.state.assets.get(call.request.path.lstrip("/"))
    if asset is None:
        raise Refused(Refusal(404, ACCESS_DENIED, "application/xml"))
    if asset.owner != call.token:
        call.state.violate("foreign-asset", call.request.path)
        raise Refused(Refusal(403, ACCESS_DENIED, "application/xml"))
    return await send_asset(call, asset)


ROUTES = (
    web.post("/rest/app-chat/upload-file", web_endpoint(upload_v1, Expect(json=True))),
    web.post("/http/upload-file-v2/direct", web_endpoint(upload_v2, Expect(referer_path="*"))),
    web.get("/rest/assets", web_endpoint(list_assets, Expect(referer_path="/files", origin=False))),
    web.delete(
        "/rest/assets-metadata/{asset_id}",
        web_endpoint(delete_asset, Expect(referer_path="/files")),
    ),
    web.get("/users/{path:.*}", web_endpoint(download, Expect("asset", origin=False))),
)
