"""Chat bodies and frames for grok.com, byte for byte (upstream-web 2.1, 2.2, 3.2).

All that does not change between two calls of one model is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

from gateway.upstream.errors import RequestRejected
from gateway.upstream.requests import WebTarget
from gateway.upstream.web.settings import WebSettings

RestForm = Literal["mode_id", "model_name"]

_CONNECTORS_OFF = {
    "gmailSearch": False,
    "googleCalendarSearch": False,
    "outlookSearch": False,
    "outlookCalendarSearch": False,
    "googleDriveSearch": False,
}
_COMMON: dict[str, Any] = {
    "imageAttachments": [],
    "disableSearch": False,
    "enableImageGeneration": True,
    "returnImageBytes": False,
    "returnRawGrokInXaiRequest": False,
    "enableImageStreaming": True,
    "imageGenerationCount": 2,
    "forceConcise": False,
    "enableSideBySide": True,
    "sendFinalMetadata": True,
    "disableTextFollowUps": False,
    "forceSideBySide": False,
    "isAsyncChat": False,
    "disableSelfHarmShortCircuit": False,
}


def json_text(text: str) -> bytes:
    """``text`` as JSON. Raises RequestRejected for half a surrogate pair."""
    try:
        return to_json(text)
    except PydanticSerializationError as error:
        raise RequestRejected("The text is not valid Unicode.", row=8) from error


def rest_body(
    prompt: str, file_ids: Sequence[str], target: WebTarget, settings: WebSettings
) -> bytes:
    """The body of ``conversations/new``; ``prompt`` is the whole flattened conversation."""
    head = _rest_head(settings.rest_form, settings.temporary, settings.disable_memory, target)
    files = to_json(file_ids) if file_ids else b"[]"
    return b'%b,"message":%b,"fileAttachments":%b}' % (head, json_text(prompt), files)


@lru_cache(maxsize=256)
def _rest_head(form: RestForm, temporary: bool, disable_memory: bool, target: WebTarget) -> bytes:
    """The body without its closing brace, message and attachments."""
    fields = {"temporary": temporary, **_model_fields(form, target), **_COMMON}
    fields["disableMemory"] = disable_memory
    return to_json(fields)[:-1]


def _model_fields(form: RestForm, target: WebTarget) -> dict[str, Any]:
    if form == "mode_id":
        return {
            "modeId": target.mode,
            "collectionIds": [],
            "disabledConnectorIds": [],
            "toolOverrides": _CONNECTORS_OFF,
            "responseMetadata": {},
        }
    return {
        "modelName": target.name,
        "modelMode": target.mode_enum,
        "isReasoning": False,
        "toolOverrides": {},
        "responseMetadata": {
            "modelConfigOverride": {"modelMap": {}},
            "requestModelDetails": {"modelId": target.name},
        },
    }


def session_frame(event_id: str, mode: str, settings: WebSettings) -> bytes:
    """``session.create``: opens the chat; ``event_id`` is echoed by the answer."""
    tail = _session_tail(mode, settings.temporary, settings.disable_memory)
    return b'{"event":{"type":"session.create","event_id":"%b",%b' % (event_id.encode(), tail)


@lru_cache(maxsize=64)
def _session_tail(mode: str, temporary: bool, disable_memory: bool) -> bytes:
    x_grok = {
        "protocol_capabilities": ["conversation_attached", "custom_methods_v1"],
        "use_chunk": True,
        "enable_side_by_side": True,
        "force_side_by_side": False,
        "enable_image_generation": True,
        "image_generation_count": 2,
        "disable_text_follow_ups": False,
        "disable_artifact": True,
        "force_concise": False,
        "keep_context": False,
        "is_temporary": temporary,
        "disable_memory": disable_memory,
    }
    return to_json({"session": {"model": mode, "x_grok": x_grok}})[1:] + b"}"


def message_frame(
    session_id: str, now_ms: int, message_id: str, prompt: str, file_ids: Sequence[str]
) -> bytes:
    """``conversation.item.create``: the user's turn; attachments are named three times."""
    chunks: list[dict[str, Any]] = [
        {"mention": {"target": {"file_mention": {"file_id": file_id}}}} for file_id in file_ids
    ]
    chunks.append({"text": {"text": prompt}})
    attached = {"file_attachment_ids": file_ids} if file_ids else {}
    item = {
        "type": "message",
        "role": "user",
        **attached,
        "x_grok": {"client_message_id": message_id, "input_chunks": chunks},
    }
    event_id = f"evt_msg_{now_ms}"
    return _frame(session_id, {"event_id": event_id, **attached, "item": item}, "item")


def response_frame(session_id: str, now_ms: int) -> bytes:
    """``response.create``: asks for the answer."""
    return _frame(session_id, {"event_id": f"evt_resp_{now_ms}"}, "response")


def ping_frame(now_ms: int) -> bytes:
    """The protocol's own heartbeat, due every 25 s; no answer is awaited."""
    return b'{"event":{"type":"ping","event_id":"evt_hb_%d"}}' % now_ms


def _frame(session_id: str, event: dict[str, Any], kind: Literal["item", "response"]) -> bytes:
    name = "conversation.item.create" if kind == "item" else "response.create"
    try:
        return to_json({"session_id": session_id, "event": {"type": name, **event}})
    except PydanticSerializationError as error:
        raise RequestRejected("The text is not valid Unicode.", row=8) from error
