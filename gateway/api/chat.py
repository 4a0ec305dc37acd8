"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from gateway.api.errors import shown
from gateway.api.streams import EventStream, collect, stream_chunks
from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.relay import runtime
from gateway.relay.chat import Answer
from gateway.translate.chat_answer import AnswerHead, ThinkingStyle
from gateway.translate.chat_request import to_request
from gateway.wire.chat import ChatCompletionRequest
from gateway.wire.errors import ApiError, bad_request
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
    body = parse(ChatCompletionRequest, request.body)
    gateway = runtime.current()
    config = gateway.config()
    model = _chat_model(body.model, request.auth)  # type: ignore[attr-defined]
    streaming = config.grok.stream if body.stream is None else body.stream
    answer = await gateway.chat.open(to_request(body, stream=streaming), model)
    head = _head(body, answer, _style(body, config))
    if streaming:
        return EventStream(stream_chunks(answer.committed, head))
    return HttpResponse(await collect(answer.committed, head), content_type="application/json")


def _chat_model(model_id: str, key: KeyRecord) -> Model:
    model = runtime.current().catalog.find(model_id)
    if model is None:
        raise bad_request(f"There is no model {shown(model_id)}.", "model_not_found", "model")
    if key.allowed_models is not None and model_id not in key.allowed_models:
        raise ApiError(
            403,
            f"This key may not use the model {shown(model_id)}.",
            type_="permission_error",
            code="model_not_allowed",
            param="model",
        )
    if model.kind != "chat":
        message = f"{shown(model_id)} makes no text; this route serves chat models."
        raise bad_request(message, "model_not_supported", "model")
    return model


def _style(body: ChatCompletionRequest, config: Config) -> ThinkingStyle:
    shown = config.grok.thinking
    if body.thinking in {"enabled", "disabled"}:
        shown = body.thinking == "enabled"
    return config.grok.thinking_format if shown else "hidden"


def _head(body: ChatCompletionRequest, answer: Answer, style: ThinkingStyle) -> AnswerHead:
    options = body.stream_options
    return AnswerHead(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        model=body.model,
        created=int(time.time()),
        thinking=style,
        include_usage=bool(options and options.include_usage),
        prompt_characters=answer.prompt_characters,
    )
