"""``POST /v1/uploads/image``: a client's own picture, to be referred to by its address."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from django.http import HttpRequest, HttpResponse
from ninja import Router

from gateway.api.files import MediaServing
from gateway.api.forms import FileRule, FormRules, UploadedFile, read_form
from gateway.api.media_errors import told_clients
from gateway.media.formats import PICTURES
from gateway.media.store import MAX_BYTES, MIB, Stored
from gateway.wire.errors import bad_request

FIELD = "file"
RULES = FormRules(
    files={FIELD: FileRule(max_bytes=MAX_BYTES["image"])}, max_total=MAX_BYTES["image"] + MIB
)
Admission = Callable[[HttpRequest], AbstractAsyncContextManager[None]]
"""Around a request: it may raise, before anything is read, and hears how it ended."""


def uploads_router(serving: Callable[[], MediaServing], admission: Admission) -> Router:
    """``serving`` is asked on every request."""
    router = Router(tags=["files"])

    @router.post("/uploads/image", url_name="upload_image")
    async def upload(request: HttpRequest) -> HttpResponse:
        """Keep a picture in the cache until it is cleaned."""
        async with admission(request):
            return await _keep(request, serving())

    return router


async def _keep(request: HttpRequest, serving: MediaServing) -> HttpResponse:
    async with read_form(request, RULES, serving.store) as form:
        files = form.files.get(FIELD)
        if not files:
            raise bad_request("There is no file.", "missing_file", FIELD)
        stored = await _store(files[0], serving)
    answer = {
        "url": serving.links.url(stored.kind, stored.name),
        "name": stored.name,
        "size_bytes": stored.size,
    }
    return HttpResponse(json.dumps(answer), content_type="application/json")


async def _store(file: UploadedFile, serving: MediaServing) -> Stored:
    with told_clients(FIELD):
        checked = await serving.store.check(file.part, PICTURES)
        return await serving.store.keep(file.part, checked, f"upload-{uuid.uuid4().hex}")
