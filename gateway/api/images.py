"""``/v1/images/*``: pictures from a prompt, and from pictures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from gateway.api.auth import require_model
from gateway.api.errors import shown, translate
from gateway.api.forms import FileRule, Form, FormRules, UploadedFile, read_form
from gateway.api.incoming import incoming_of
from gateway.api.lifetime import Ending, current_lifetime
from gateway.api.media_errors import translate_media
from gateway.api.recorded import Recorded
from gateway.api.streams import EventStream
from gateway.catalog import Model
from gateway.exchange import End
from gateway.media.errors import MediaError, WrongType
from gateway.media.store import MIB
from gateway.relay import runtime
from gateway.relay.hosting import stored_file
from gateway.relay.image_chat import INPUT_FORMATS, MAX_INPUT_BYTES, loaded_inputs
from gateway.relay.images import Bill, HostedAnswer, ImageJob
from gateway.relay.recording import Recording
from gateway.translate.images import (
    VARIATION_PROMPT,
    ImageEvents,
    ImageFormat,
    ImageHead,
    answer_body,
    ratio_of,
)
from gateway.upstream.attachments import AttachmentError
from gateway.upstream.errors import UpstreamError
from gateway.upstream.requests import ImagePart, StoredFile
from gateway.wire.errors import ApiError, bad_request
from gateway.wire.images import (
    DEFAULT_SIZE,
    EDIT_MODEL,
    GENERATION_MODEL,
    MAX_INPUTS,
    ImageEditBody,
    ImageEditFields,
    ImageGenerationBody,
    ImageOptions,
    ImageVariationFields,
    check_options,
    check_prompt,
    parse_fields,
)
from gateway.wire.parsing import parse
from pool.keys import KeyRecord

router = Router(tags=["images"])
FIELD = "image"
MASK = "mask"
_FILES = FileRule(MAX_INPUTS, MAX_INPUT_BYTES, (f"{FIELD}[]",), "invalid_image_count")
_FORM = FormRules(
    files={FIELD: _FILES, MASK: FileRule(max_bytes=MAX_INPUT_BYTES)},
    max_total=(MAX_INPUTS + 1) * MAX_INPUT_BYTES + 4 * MIB,
)
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ImageGenerationBody.model_json_schema()}},
    }
}


@dataclass(slots=True)
class _Order:
    """One request for pictures, checked."""

    gateway: runtime.Runtime
    recording: Recording
    key: KeyRecord
    model: Model
    head: ImageHead
    job: ImageJob


@router.get("/images/method", url_name="image_method")
async def method(request: HttpRequest) -> HttpResponse:
    """The configured way to pictures."""
    answer = {"image_generation_method": runtime.current().config().grok.image_generation_method}
    return HttpResponse(json.dumps(answer), content_type="application/json")


@router.post("/images/generations", openapi_extra=_BODY, url_name="image_generations")
async def generate(request: HttpRequest) -> HttpResponseBase:
    """Make pictures from a prompt."""
    gateway = runtime.current()
    async with Recorded(gateway.record("image", request)) as recording:
        body = parse(ImageGenerationBody, request.body)
        prompt = check_prompt(body.prompt)
        order = _order(request, recording, body, GENERATION_MODEL, "image")
        order.job = replace(order.job, prompt=prompt, ratio=ratio_of(body.size or DEFAULT_SIZE))
        async with _handing_over() as undo:
            return await _answer(order, undo, stream=body.streams)


@router.post("/images/edits", url_name="image_edits")
async def edit(request: HttpRequest) -> HttpResponseBase:
    """Make pictures from pictures and a prompt: a form, or JSON with addresses."""
    async with Recorded(runtime.current().record("image_edit", request)) as recording:
        if incoming_of(request) is None:
            return await _edit_json(request, recording)
        return await _edit_form(request, recording, ImageEditFields)


@router.post("/images/variations", url_name="image_variations")
async def vary(request: HttpRequest) -> HttpResponseBase:
    """Make pictures like a picture."""
    async with Recorded(runtime.current().record("image_variation", request)) as recording:
        return await _edit_form(request, recording, ImageVariationFields)


async def _edit_json(request: HttpRequest, recording: Recording) -> HttpResponseBase:
    body = parse(ImageEditBody, request.body)
    prompt = check_prompt(body.prompt)
    order = _order(request, recording, body, EDIT_MODEL, "image_edit")
    sources = body.sources
    _check_count(order, len(sources))
    if not all(sources):
        raise bad_request("A picture has no address.", "missing_url", FIELD)
    if body.mask is not None:
        order.head = replace(order.head, ignored=(MASK,))
    parts = [ImagePart(source) for source in sources]
    store, new_loader = order.gateway.hosting.store, order.gateway.chat.new_loader
    async with _handing_over() as undo, AsyncExitStack() as files:
        with _told_of_pictures():
            inputs = await files.enter_async_context(loaded_inputs(parts, new_loader, store))
        order.job = replace(order.job, prompt=prompt, inputs=inputs)
        return await _answer(order, undo, stream=body.streams)


async def _edit_form(
    request: HttpRequest, recording: Recording, shape: type[ImageOptions]
) -> HttpResponseBase:
    store = runtime.current().hosting.store
    async with _handing_over() as undo, read_form(request, _FORM, store) as form:
        recording.exchange.bytes_in = _size_of(request)
        values = {name: given[-1] for name, given in form.values.items()}
        fields = parse_fields(shape, values)
        prompt = VARIATION_PROMPT
        if isinstance(fields, ImageEditFields):
            prompt = check_prompt(fields.prompt)
        order = _order(request, recording, fields, EDIT_MODEL, "image_edit")
        files = form.files.get(FIELD, [])
        _check_count(order, len(files))
        inputs = [await _checked(order, file) for file in files]
        order.head = replace(order.head, ignored=_ignored(form))
        order.job = replace(order.job, prompt=prompt, inputs=tuple(inputs))
        return await _answer(order, undo, stream=fields.streams)


def _ignored(form: Form) -> tuple[str, ...]:
    return (MASK,) if MASK in form.files or MASK in form.values else ()


def _size_of(request: HttpRequest) -> int:
    incoming = incoming_of(request)
    return 0 if incoming is None else incoming.taken


def _check_count(order: _Order, count: int) -> None:
    """Before anything is charged; raises ApiError 400."""
    if not count:
        raise bad_request("There is no picture.", "missing_image", FIELD)
    most = min(MAX_INPUTS, order.gateway.images.max_inputs(order.model))
    if count > most:
        text = f"At most {most} pictures can be edited at once."
        raise bad_request(text, "invalid_image_count", FIELD)


async def _checked(order: _Order, file: UploadedFile) -> StoredFile:
    with _told_of_pictures():
        checked = await order.gateway.hosting.store.check(file.part, INPUT_FORMATS)
        return stored_file(file.part, checked, f"image.{checked.format.extension}")


@contextmanager
def _told_of_pictures() -> Iterator[None]:
    """Around work on a client's pictures: its failures in the contract's words."""
    try:
        yield
    except WrongType as error:
        raise bad_request(error.message, "invalid_image_type", FIELD) from error
    except MediaError as error:
        raise translate_media(error, FIELD) from error
    except AttachmentError as error:
        wrong = error.code == "unsupported_file_type"
        code = "invalid_image_type" if wrong else error.code
        raise bad_request(error.message, code, FIELD) from error


def _order(
    request: HttpRequest, recording: Recording, options: ImageOptions, usual: str, kind: str
) -> _Order:
    """Everything but the prompt and the pictures; raises ApiError."""
    gateway = runtime.current()
    key: KeyRecord = request.auth  # type: ignore[attr-defined]
    recording.exchange.model = options.model or usual
    recording.exchange.streaming = options.streams
    model = _image_model(gateway, recording.exchange.model, kind, key)
    format_ = check_options(options, gateway.config().app.image_format)
    head = ImageHead(
        created=int(time.time()),
        format=cast("ImageFormat", format_),
        size=options.size or DEFAULT_SIZE,
        quality=options.quality or "standard",
        count=options.count,
        partials=options.partial_images != 0,
    )
    job = ImageJob(
        prompt="",
        count=options.count,
        inline=format_ != "url",
        previews=bool(options.partial_images),
        at_once=options.concurrency or 1,
        user=options.user or "",
    )
    return _Order(gateway, recording, key, model, head, job)


def _image_model(gateway: runtime.Runtime, model_id: str, kind: str, key: KeyRecord) -> Model:
    model = gateway.catalog.find(model_id)
    if model is None or model.kind != kind:
        text = f"{shown(model_id)} does not serve this route."
        raise bad_request(text, "model_not_supported", "model")
    require_model(key, model_id)
    return model


@asynccontextmanager
async def _handing_over() -> AsyncGenerator[AsyncExitStack, None]:
    """What is pushed is undone by an error; without one, who sends the answer sees to it."""
    async with AsyncExitStack() as undo:
        yield undo
        undo.pop_all()


async def _answer(order: _Order, undo: AsyncExitStack, *, stream: bool) -> HttpResponseBase:
    bill = await Bill.open(order.gateway.limiter, order.key, order.job.count)
    if not stream:
        try:
            return await _whole(order, bill)
        finally:
            await bill.close()
    undo.push_async_callback(bill.close)
    answer = await order.gateway.images.open(order.job, order.model, order.recording)
    undo.push_async_callback(answer.aclose)
    return EventStream(_stream(answer, order.head, order.recording, bill))


async def _whole(order: _Order, bill: Bill) -> HttpResponse:
    recording = order.recording
    try:
        drawn = await order.gateway.images.draw(order.job, order.model, recording)
    except asyncio.CancelledError:
        if recording.exchange.first_event is not None and current_lifetime().client_gone:
            # Upstream has worked for a client that did not wait for it.
            await bill.settle(order.job.count)
        raise
    await bill.settle(len(drawn.pictures))
    body = answer_body(order.head, drawn.pictures, drawn.blocked, drawn.failed)
    recording.sent(body)
    recording.ends(End.COMPLETED, 200)
    await recording.close()
    return HttpResponse(body, content_type="application/json")


async def _stream(
    answer: HostedAnswer, head: ImageHead, recording: Recording, bill: Bill
) -> AsyncGenerator[bytes, None]:
    """The events of a drawing; with an end of it in every case."""
    events = ImageEvents(head)
    # Unless something else is recorded below, the reader of this has left.
    recording.ends(End.CLIENT_GONE, 200)
    recording.streams()
    used = head.count
    try:
        with current_lifetime():
            async for batch in answer.batches():
                if message := events.encode(batch):
                    recording.sent(message)
                    yield message
        used = events.delivered
        recording.ends(End.COMPLETED, 200)
    except UpstreamError as error:
        used = events.delivered
        yield _last_words(events, recording, End.BROKEN, translate(error))
    except Ending as ending:
        used = events.delivered
        yield _last_words(events, recording, End.STOPPED, ending.error)
    finally:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(recording.close)
            stack.push_async_callback(bill.close)
            stack.push_async_callback(answer.aclose)
            await bill.settle(used)


def _last_words(events: ImageEvents, recording: Recording, end: End, told: ApiError) -> bytes:
    message = events.fail(told)
    recording.ends(end, 200, told.code)
    recording.sent(message)
    return message
