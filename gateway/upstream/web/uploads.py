"""Attachments on their way to grok.com: limits, bodies, and the id that comes back.

Sources: upstream-web 5.1-5.3. Ids are valid only for the account that uploaded them.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic_core import to_json

from gateway.upstream.errors import RequestRejected, UpstreamError, UpstreamFailed
from gateway.upstream.requests import FetchedFile

JSON_PATH = "/rest/app-chat/upload-file"
MULTIPART_PATH = "/http/upload-file-v2/direct"
MAX_FILES = 8
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_NAME = 160
AT_ONCE = 4

_MIME = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")

T = TypeVar("T")
R = TypeVar("R")
UploadOne = Callable[[FetchedFile], Awaitable[str]]


def check_limits(files: Sequence[FetchedFile]) -> None:
    """Raise RequestRejected for more than upstream takes: 8 files, 32 MiB each, 64 MiB."""
    if len(files) > MAX_FILES:
        raise RequestRejected(f"At most {MAX_FILES} attachments are accepted.", row=8)
    if any(len(file.content) > MAX_FILE_BYTES for file in files):
        raise RequestRejected("An attachment is larger than 32 MiB.", row=8)
    if sum(len(file.content) for file in files) > MAX_TOTAL_BYTES:
        raise RequestRejected("The attachments are larger than 64 MiB together.", row=8)


async def upload_all(files: Sequence[FetchedFile], upload_one: UploadOne) -> list[str]:
    """The reference ids, in the order of ``files``; the first failure cancels the rest.

    Raises RequestRejected over a limit, and whatever ``upload_one`` raises.
    """
    check_limits(files)
    return await in_order(files, upload_one)


async def in_order(items: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R]:
    """``work`` done on every item, a few at once; the first failure cancels the rest."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def guarded(item: T) -> R:
        async with gate:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(guarded(item)) for item in items]
    except ExceptionGroup as failures:
        raise _first(failures.exceptions) from None
    return [task.result() for task in tasks]


def _first(errors: Sequence[Exception]) -> Exception:
    return next((error for error in errors if isinstance(error, UpstreamError)), errors[0])


def json_body(file: FetchedFile) -> bytes:
    """The Gen 1 body: base64 inside JSON."""
    head = to_json({"fileName": safe_name(file.name), "fileMimeType": safe_mime(file.mime_type)})
    return b'%b,"content":"%b"}' % (head[:-1], base64.b64encode(file.content))


def multipart_body(file: FetchedFile, boundary: str) -> tuple[str, bytes]:
    """The Gen 3 body and its ``Content-Type``; ``boundary`` must not occur in the file."""
    head = multipart_head(file.name, file.mime_type, boundary)
    body = b"%b%b\r\n--%b--\r\n" % (head, file.content, boundary.encode())
    return multipart_type(boundary), body


def multipart_type(boundary: str) -> str:
    return f"multipart/form-data; boundary={boundary}"


def multipart_head(file_name: str, mime_type: str, boundary: str) -> bytes:
    """What precedes the bytes of the ``file`` part."""
    name = safe_name(file_name).replace("\\", "\\\\").replace('"', '\\"')
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {safe_mime(mime_type)}\r\n\r\n"
    )
    return head.encode()


def safe_name(name: str) -> str:
    """The last path part without control characters, at most 160 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable()).strip()
    if not kept.strip("."):
        return "file"
    return _shorten(kept)


def _shorten(name: str) -> str:
    if len(name) <= MAX_NAME:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 16:
        return name[:MAX_NAME]
    return stem[: MAX_NAME - len(suffix) - 1] + dot + suffix


def safe_mime(mime_type: str) -> str:
    bare = mime_type.partition(";")[0].strip()
    return bare if _MIME.fullmatch(bare) else "application/octet-stream"


def reference_id(reply: Mapping[str, Any]) -> str:
    """The id to attach, from either generation's reply.

    Raises RequestRejected for a ``terminalError`` (any value that is not empty), and
    UpstreamFailed when no id came back.
    """
    metadata = _accepted_metadata(reply)
    found = (
        metadata.get("fileMetadataId"),
        metadata.get("fileId"),
        reply.get("fileMetadataId"),
        reply.get("fileId"),
        reply.get("uploadId"),
    )
    for candidate in found:
        if isinstance(candidate, str) and candidate:
            return candidate
    raise UpstreamFailed(row=12, evidence="upload reply without an id")


def media_reference(reply: Mapping[str, Any]) -> tuple[str, str]:
    """The ``fileMetadataId`` and the ``fileUri`` of an upload, empty where there is none.

    No other id will do for media (upstream-web 5.3). Raises RequestRejected for a
    ``terminalError``.
    """
    metadata = _accepted_metadata(reply)
    found = [metadata.get(name) or reply.get(name) for name in ("fileMetadataId", "fileUri")]
    file_id, uri = (value if isinstance(value, str) else "" for value in found)
    return file_id, uri


def _accepted_metadata(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    if reply.get("terminalError"):
        raise RequestRejected("The upstream did not accept an attachment.", row=8)
    metadata = reply.get("fileMetadata")
    return metadata if isinstance(metadata, dict) else {}
