"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from gateway.api.auth import require_model
from gateway.api.errors import shown
from gateway.api.recorded import Recorded
from gateway.api.streams import EventStream, collect, stream_chunks
from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.relay import runtime
from gateway.relay.charges import chat_charge
from gateway.relay.chat import Answer
from gateway.relay.image_chat import ImageAnswer
from gateway.relay.recording import Recording
from gateway.translate.chat_answer import AnswerHead, ThinkingStyle
from gateway.translate.chat_request import to_request
from gateway.wire.chat import ChatCompletionRequest
from gateway.wire.errors import bad_request
from gateway.wire.parsing import parse
from pool.keys import KeyRecord

router = Router(tags=["chat"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatCompletionRequest.model_json_schema()}},
    }
}


@router.post("/chat/completions", openapi_extra=_BODY, url_name="chat_completions")
async def create(request: HttpRequest) -> HttpResponseBase:
    """Answer a conversation, whole or as server-sent events."""
    gateway = runtime.current()
    async with Recorded(gateway.record("chat", request)) as recording:
        return await _answer(request, gateway, recording)


async def _answer(
    request: HttpRequest, gateway: runtime.Runtime, recording: Recording
) -> HttpResponseBase:
    body = parse(ChatCompletionRequest, request.body)
    config = gateway.config()
    key: KeyRecord = request.auth  # type: ignore[attr-defined]
    model = _chat_model(body.model, key)
    streaming = config.grok.stream if body.stream is None else body.stream
    recording.exchange.model, recording.exchange.streaming = body.model, streaming
    await recording.admit(key, chat_charge(model))
    answer = await _open(gateway, model, body, recording)
    head = _head(body, answer, _style(body, config), recording.exchange.id)
    if streaming:
        return EventStream(stream_chunks(answer.committed, head, recording))
    whole = await collect(answer.committed, head, recording)
    return HttpResponse(whole, content_type="application/json")


async def _open(
    gateway: runtime.Runtime, model: Model, body: ChatCompletionRequest, recording: Recording
) -> Answer | ImageAnswer:
    request = to_request(body, stream=recording.exchange.streaming)
    match model.kind:
        case "video":
            return await gateway.video_chat.open(request, model, recording, body.video_config)
        case "image" | "image_edit":
            return await gateway.image_chat.open(request, model, recording)
    return await gateway.chat.open(request, model, recording)


def _chat_model(model_id: str, key: KeyRecord) -> Model:
    model = runtime.current().catalog.find(model_id)
    if model is None:
        raise bad_request(f"There is no model {shown(model_id)}.", "model_not_found", "model")
    require_model(key, model_id)
    return model


def _style(body: ChatCompletionRequest, config: Config) -> ThinkingStyle:
    shown = config.grok.thinking
    if body.thinking in {"enabled", "disabled"}:
        shown = body.thinking == "enabled"
    return config.grok.thinking_format if shown else "hidden"


def _head(
    body: ChatCompletionRequest, answer: Answer | ImageAnswer, style: ThinkingStyle, id_: str
) -> AnswerHead:
    options = body.stream_options
    return AnswerHead(
        id=f"chatcmpl-{id_}",
        model=body.model,
        created=int(time.time()),
        thinking=style,
        include_usage=bool(options and options.include_usage),
        prompt_characters=answer.prompt_characters,
    )
