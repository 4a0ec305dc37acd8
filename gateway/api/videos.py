"""``/v1/videos``: videos as jobs, in OpenAI's shape."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any
from uuid import uuid4

from django.http import HttpRequest, HttpResponse
from ninja import Router
from pydantic import ValidationError

from gateway.api.auth import require_model
from gateway.api.errors import not_found, shown
from gateway.api.file_responses import answer_with
from gateway.api.forms import FileRule, Form, FormRules, read_form
from gateway.api.incoming import incoming_of
from gateway.api.media_errors import told_clients
from gateway.api.recorded import Recorded
from gateway.catalog import Model
from gateway.exchange import End
from gateway.media.formats import PICTURES
from gateway.media.store import MAX_BYTES, MIB
from gateway.relay import runtime
from gateway.relay.recording import Recording
from gateway.translate.videos import job_order
from gateway.upstream.attachments import AttachmentError
from gateway.upstream.requests import ImagePart
from gateway.videos.jobs import Job, NewJob, Status
from gateway.videos.table import Busy, UnknownCursor
from gateway.wire.errors import bad_request
from gateway.wire.parsing import first_problem, parse
from gateway.wire.videos import CreateVideo, deletion, listing
from pool.keys import KeyRecord

DEFAULT_MODEL = "grok-imagine-1.0-video"
REFERENCE = "input_reference"
RULES = FormRules(
    files={REFERENCE: FileRule(max_bytes=MAX_BYTES["image"])}, max_total=MAX_BYTES["image"] + MIB
)
MOST_LISTED = 100
DEFAULT_LISTED = 20
PRIVATE = "private, max-age=3600"
_ID = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_STATUS = {
    Status.QUEUED: "queued",
    Status.SUBMITTING: "in_progress",
    Status.RUNNING: "in_progress",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
}
router = Router(tags=["videos"])


@router.post("/videos", url_name="videos")
async def create(request: HttpRequest) -> HttpResponse:
    """Begin a video; ask for it by its id."""
    gateway = runtime.current()
    async with Recorded(gateway.record("videos", request)) as recording:
        if incoming_of(request) is None:
            body = parse(CreateVideo, request.body)
            job = await _create(gateway, _key(request), body, recording, None)
        else:
            async with read_form(request, RULES, gateway.hosting.store) as form:
                body = _body_of(form)
                job = await _create(gateway, _key(request), body, recording, form)
        answer = _answer(shape(job))
        recording.ends(End.COMPLETED, 200)
        recording.sent(answer.content)
        await recording.close()
        return answer


def _key(request: HttpRequest) -> KeyRecord:
    key: KeyRecord = request.auth  # type: ignore[attr-defined]
    return key


def _body_of(form: Form) -> CreateVideo:
    """A form's fields; ``input_reference[image_url]`` is how the SDK writes an object."""
    values: dict[str, Any] = {name: given[-1] for name, given in form.values.items()}
    for name in ("image_url", "file_id"):
        if (inner := values.pop(f"{REFERENCE}[{name}]", None)) is not None:
            values[REFERENCE] = {name: inner}
    try:
        return CreateVideo.model_validate(values)
    except ValidationError as error:
        raise first_problem(error, values) from None


async def _create(
    gateway: runtime.Runtime,
    key: KeyRecord,
    body: CreateVideo,
    recording: Recording,
    form: Form | None,
) -> Job:
    model_id = body.model or DEFAULT_MODEL
    model = _video_model(gateway, model_id, key)
    recording.exchange.model = model_id
    files = form.files.get(REFERENCE) if form else None
    if not isinstance(body.input_reference, str | None) and body.input_reference.file_id:
        text = "Files by id are not kept here; send the picture itself or its address."
        raise bad_request(text, "invalid_value", f"{REFERENCE}.file_id")
    order, size = job_order(body, nsfw=gateway.config().grok.nsfw_enabled)
    from_picture = bool(files or body.reference_url)
    gateway.video_jobs.expect(gateway.videos.lanes(model, order, from_picture=from_picture))
    input_name = await _keep_input(gateway, body, form) if from_picture else ""
    new = NewJob(
        public_id=f"video_{secrets.token_hex(24)}",
        key_id=key.id,
        key_name=key.name[:100],
        model=model_id,
        prompt=order.prompt,
        ratio=order.ratio,
        seconds=order.seconds,
        size=size,
        hd=order.hd,
        preset=order.preset,
        input_name=input_name,
    )
    return await gateway.video_jobs.create(new, key)


def _video_model(gateway: runtime.Runtime, model_id: str, key: KeyRecord) -> Model:
    model = gateway.catalog.find(model_id)
    if model is None:
        raise bad_request(f"There is no model {shown(model_id)}.", "model_not_found", "model")
    require_model(key, model_id)
    if model.kind != "video":
        text = f"{shown(model_id)} makes no videos."
        raise bad_request(text, "model_not_supported", "model")
    return model


async def _keep_input(gateway: runtime.Runtime, body: CreateVideo, form: Form | None) -> str:
    """The name of the first frame in the cache."""
    name = f"input-{uuid4().hex}"
    files = form.files.get(REFERENCE) if form else None
    with told_clients(REFERENCE):
        if files:
            store = gateway.hosting.store
            checked = await store.check(files[0].part, PICTURES)
            return (await store.keep(files[0].part, checked, name)).name
        try:
            file = await gateway.chat.new_loader().load(ImagePart(body.reference_url))
            return (await gateway.videos.keep_input(file.content, name)).name
        except AttachmentError as error:
            raise bad_request(error.message, error.code, REFERENCE) from error


def _answer(value: dict[str, Any]) -> HttpResponse:
    return HttpResponse(json.dumps(value), content_type="application/json")


def shape(job: Job) -> dict[str, Any]:
    """OpenAI's ``video`` object; ``note`` is ours, there when something is to be said."""
    failed = job.status is Status.FAILED
    told: dict[str, Any] = {
        "id": job.public_id,
        "object": "video",
        "created_at": int(job.created_at.timestamp()),
        "completed_at": _seconds(job.completed_at) if not failed else None,
        "expires_at": _seconds(job.expires_at),
        "status": _STATUS[job.status],
        "model": job.model,
        "progress": job.progress,
        "prompt": job.prompt,
        "seconds": str(job.seconds),
        "size": job.size,
        "remixed_from_video_id": None,
        "error": {"code": job.error_code, "message": job.error_message} if failed else None,
    }
    return told | {"note": job.note} if job.note else told


def _seconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp())


@router.get("/videos", url_name="video_list")
async def list_videos(request: HttpRequest) -> HttpResponse:
    """The key's own jobs, the newest first unless ``order=asc``."""
    asked = request.GET
    limit = _limit(asked.get("limit", ""))
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise bad_request("order must be asc or desc.", "invalid_value", "order")
    after, jobs = asked.get("after", ""), runtime.current().video_jobs
    try:
        if after and not _ID.fullmatch(after):
            raise UnknownCursor
        found, more = await jobs.page(_key(request).id, after, limit, ascending=order == "asc")
    except UnknownCursor:
        raise bad_request(
            "There is no such video to go on from.", "invalid_value", "after"
        ) from None
    return _answer(listing([shape(job) for job in found], has_more=more))


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LISTED
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_LISTED):
        message = f"limit must be a whole number from 1 to {MOST_LISTED}."
        raise bad_request(message, "invalid_value", "limit")
    return int(text)


@router.get("/videos/{video_id}", url_name="video")
async def retrieve(request: HttpRequest, video_id: str) -> HttpResponse:
    """How a job stands."""
    return _answer(shape(await _own(request, video_id)))


async def _own(request: HttpRequest, video_id: str) -> Job:
    """Another key's job is as unknown as none."""
    job = None
    if _ID.fullmatch(video_id):
        job = await runtime.current().video_jobs.find(_key(request).id, video_id)
    if job is None:
        raise not_found()
    return job


@router.api_operation(["GET", "HEAD"], "/videos/{video_id}/content", url_name="video_content")
async def content(request: HttpRequest, video_id: str) -> HttpResponse:
    """The video itself, whole or in part; ``variant=thumbnail`` for its poster."""
    variant = request.GET.get("variant", "video")
    if variant not in ("video", "thumbnail"):
        raise bad_request("variant must be video or thumbnail.", "invalid_value", "variant")
    job = await _own(request, video_id)
    if job.status is not Status.COMPLETED:
        text = f"The video is not there: the job is {_STATUS[job.status]}."
        raise bad_request(text, "video_not_ready", None)
    name = job.video_name if variant == "video" else job.poster_name
    if not name:
        raise not_found()
    with told_clients():
        store = runtime.current().hosting.store
        opened = await store.open("video" if variant == "video" else "image", name)
    return answer_with(request, opened, PRIVATE)


@router.delete("/videos/{video_id}", url_name="video_delete")
async def delete(request: HttpRequest, video_id: str) -> HttpResponse:
    """Forget a job that has ended or not begun, and its files."""
    await _own(request, video_id)
    try:
        removed = await runtime.current().video_jobs.remove(_key(request).id, video_id)
    except Busy:
        text = "The video is being made; it can be deleted when that has ended."
        raise bad_request(text, "video_in_progress", None) from None
    if not removed:
        raise not_found()
    return _answer(deletion(video_id))
