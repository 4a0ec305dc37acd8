"""Pictures of a client's on their way to grok.com, straight from disk (upstream-web 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from gateway.upstream.bodies import FilePiece, StreamedBody
from gateway.upstream.errors import UpstreamFailed
from gateway.upstream.requests import Account, StoredFile
from gateway.upstream.web import uploads
from gateway.upstream.web.calls import WebCalls
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.links import asset_url

UPLOAD_TIMEOUT = 60.0
FILE_SOURCE = "IMAGINE_SELF_UPLOAD_FILE_SOURCE"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An uploaded picture: ``file_id`` for the current payloads, ``url`` for the older."""

    file_id: str
    url: str


async def upload_inputs(
    calls: WebCalls, profile: Profile, images: Sequence[StoredFile], account: Account
) -> list[Uploaded]:
    """The uploads, in the order of ``images``; the first failure cancels the rest.

    Raises RequestRejected for a picture upstream does not take.
    """
    send = _send_multipart if profile.settings.upload_form == "v2" else _send_json

    async def upload_one(image: StoredFile) -> Uploaded:
        file_id, uri = await send(calls, profile, image, account)
        return _uploaded(file_id, uri, profile, account)

    return await uploads.in_order(images, upload_one)


async def _send_multipart(
    calls: WebCalls, profile: Profile, image: StoredFile, account: Account
) -> tuple[str, str]:
    boundary = f"form-{calls.new_uuid()}"
    reply = await calls.call(
        profile,
        "POST",
        uploads.MULTIPART_PATH,
        headers=profile.upload(account, uploads.multipart_type(boundary), for_media=True),
        content=multipart_body(image, boundary),
        timeout=UPLOAD_TIMEOUT,
    )
    return uploads.media_reference(reply)


async def _send_json(
    calls: WebCalls, profile: Profile, image: StoredFile, account: Account
) -> tuple[str, str]:
    reply = await calls.call(
        profile,
        "POST",
        uploads.JSON_PATH,
        headers=profile.json(account, calls.new_uuid()),
        content=json_body(image),
        timeout=UPLOAD_TIMEOUT,
    )
    return uploads.media_reference(reply)


def multipart_body(image: StoredFile, boundary: str) -> StreamedBody:
    """The Gen 3 form: the file, then where it comes from."""
    tail = (
        f"\r\n--{boundary}\r\n"
        'Content-Disposition: form-data; name="file_source"\r\n\r\n'
        f"{FILE_SOURCE}\r\n--{boundary}--\r\n"
    )
    head = uploads.multipart_head(image.name, image.mime_type, boundary)
    return StreamedBody((head, FilePiece(image), tail.encode()))


def json_body(image: StoredFile) -> StreamedBody:
    """The Gen 1 form: base64 inside JSON."""
    name, mime_type = uploads.safe_name(image.name), uploads.safe_mime(image.mime_type)
    head = to_json({"fileName": name, "fileMimeType": mime_type})
    return StreamedBody((head[:-1] + b',"content":"', FilePiece(image, base64=True), b'"}'))


def _uploaded(file_id: str, uri: str, profile: Profile, account: Account) -> Uploaded:
    if not file_id:
        raise UpstreamFailed(row=12, evidence="upload reply without a fileMetadataId")
    if not uri and account.user_id:
        uri = f"users/{account.user_id}/{file_id}/content"
    return Uploaded(file_id, asset_url(uri, profile.settings.assets_url))
