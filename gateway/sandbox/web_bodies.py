"""REST stream objects of grok.com (upstream-web 1.5, 2.3, 2.9), one ``bytes`` each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.sandbox.answers import (
    CARD_ID,
    POST,
    REASONING,
    RENDER_TAG,
    SOURCE_TITLE,
    SOURCE_URL,
    Answer,
    counted,
)
from gateway.sandbox.behaviours import Wrap
from gateway.sandbox.directives import Frames
from gateway.sandbox.scripts import Script

GARBAGE = (
    b'{"result":{"response":{"token": oops}}}',
    b'{"unknown":{"kind":[1,2,{"deep":"}"}]}}',
    b"\xff\xfe\x00 not json at all",
    b'{"result":{"response":{"surprise":{"token":"no"}}}}',
)
MODEL_HASH = "hash-abc"
TOOL_MARKUP = "<xai:tool_usage_card><xai:tool_name>web_search</xai:tool_name></xai:tool_usage_card>"


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def response_object(response_id: str, **keys: Any) -> bytes:
    return encode({"result": {"response": {**keys, "responseId": response_id}}})


def said(response_id: str, text: str, **keys: Any) -> bytes:
    """A frame that carries a piece of text, of whatever class (2.5)."""
    return encode({"result": {"response": {"token": text, **keys, "responseId": response_id}}})


def conversation_object(conversation_id: str) -> bytes:
    return encode(
        {
            "result": {
                "conversation": {
                    "conversationId": conversation_id,
                    "title": "New conversation",
                    "temporary": True,
                }
            }
        }
    )


def error_object(code: int | str, message: str) -> bytes:
    return encode({"error": {"code": code, "message": message, "details": []}})


def model_response(
    response_id: str, message: str, *, errors: tuple[Any, ...] = (), **keys: Any
) -> bytes:
    """The complete answer (upstream-web 2.4)."""
    value = {
        "responseId": response_id,
        "parentResponseId": "user-1",
        "sender": "ASSISTANT",
        "message": message,
        "generatedImageUrls": [],
        "fileAttachments": [],
        "cardAttachmentsJson": [],
        "webSearchResults": [],
        "streamErrors": list(errors),
        "metadata": {"llm_info": {"modelHash": MODEL_HASH}},
        **keys,
    }
    return encode({"result": {"response": {"modelResponse": value}}})


def token_object(response_id: str, token: str) -> bytes:
    return said(response_id, token, isThinking=False, messageTag="final")


def _opening(conversation_id: str, response_id: str, prompt: str) -> Iterator[bytes]:
    yield conversation_object(conversation_id)
    user = {"responseId": "user-1", "message": prompt, "sender": "human"}
    yield encode({"result": {"response": {"userResponse": user}}})
    yield said(
        response_id,
        "",
        isThinking=False,
        isSoftStop=False,
        llmInfo={"modelHash": MODEL_HASH},
    )


def _thinking(response_id: str) -> Iterator[bytes]:
    """Reasoning, a server tool and its results, hidden from the answer (upstream-web 2.5)."""
    yield said(response_id, REASONING[0], isThinking=True, messageTag="header", messageStepId=0)
    yield said(
        response_id,
        "<xai:tool_usage_card><xai:tool_name>web_search</xai:tool_name></xai:tool_usage_card>",
        isThinking=True,
        messageTag="tool_usage_card",
        messageStepId=1,
        rolloutId="Grok",
        toolUsageCardId="card-1",
        toolUsageCard={
            "toolUsageCardId": "card-1",
            "webSearch": {"args": {"query": "tide definition"}},
        },
    )
    results = [{"url": SOURCE_URL, "title": SOURCE_TITLE, "preview": "..."}]
    yield response_object(
        response_id,
        toolUsageCardId="card-1",
        messageTag="raw_function_result",
        webSearchResults={"results": results},
    )
    yield response_object(response_id, xSearchResults={"results": [POST]})
    yield said(response_id, REASONING[1], isThinking=True, messageStepId=2)
    yield said(response_id, REASONING[2], isThinking=True, messageTag="summary", messageStepId=2)
    yield said(response_id, "Heading", isThinking=False, messageTag="header")


def _citation_card(response_id: str) -> bytes:
    card = {
        "id": CARD_ID,
        "type": "render_inline_citation",
        "cardType": "citation_card",
        "url": SOURCE_URL,
    }
    return response_object(response_id, cardAttachment={"jsonData": json.dumps(card)})


def raw_tokens(answer: Answer) -> list[str]:
    """The answer's tokens with the citation markup in place, cut inside the tag."""
    tokens = list(answer.tokens)
    if answer.citation_after is not None:
        tokens[answer.citation_after : answer.citation_after] = [RENDER_TAG[:20], RENDER_TAG[20:]]
    return tokens


def _closing(response_id: str, text: str) -> tuple[bytes, ...]:
    metadata: dict[str, Any] = {"followUpSuggestions": [], "feedbackLabels": []}
    return (
        said(response_id, "", isThinking=False, isSoftStop=True),
        response_object(response_id, finalMetadata=metadata),
        model_response(response_id, text),
        encode({"result": {"title": {"newTitle": "Tides"}}}),
    )


def chat_script(answer: Answer, conversation_id: str, response_id: str, prompt: str) -> Script:
    """The whole stream of one chat answer, in the order of upstream-web 2.7."""
    before = list(_opening(conversation_id, response_id, prompt)) if answer.rich else []
    if answer.rich:
        before += _thinking(response_id)
    if answer.citation_after is not None:
        before.append(_citation_card(response_id))
    if not before:
        before.append(conversation_object(conversation_id))
    tokens = [token_object(response_id, token) for token in raw_tokens(answer)]
    frames = (*before, *tokens, *_closing(response_id, answer.text))
    failed = {"message": "upstream stream failed", "code": 13}
    return Script(
        frames=frames,
        cut_at=len(before) + (len(tokens) + 1) // 2,
        answer_end=len(before) + len(tokens),
        complete_at=len(frames) - 1,
        error=error_object,
        failure=(model_response(response_id, "", errors=(failed,)),),
        garbage=GARBAGE,
        pause_ms=answer.pause_ms,
    )


@lru_cache(maxsize=64)
def frames_script(frames: Frames) -> Script:
    """The stream of ``FRAMES:``, encoded once, its body ready to be written."""
    script = chat_script(counted(frames), "conv-frames", "resp-frames", "")
    return replace(script, whole=wrapped(script.frames, "lines"))


def model_map(body: dict[str, Any]) -> dict[str, Any]:
    """``responseMetadata.modelConfigOverride.modelMap``, empty where there is none."""
    found: Any = body
    for key in ("responseMetadata", "modelConfigOverride", "modelMap"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def wrap_one(frame: bytes, wrap: Wrap) -> bytes:
    """One object in one of the three wrappings (upstream-web 1.5)."""
    if wrap == "sse":
        return b"event: message\ndata: " + frame + b"\n\n"
    return frame + b"\n" if wrap == "lines" else frame


def wrap_end(wrap: Wrap) -> bytes:
    """What follows the last object."""
    return b"data: [DONE]\n\n" if wrap == "sse" else b""


def wrapped(frames: tuple[bytes, ...], wrap: Wrap) -> bytes:
    """A whole body."""
    return b"".join(wrap_one(frame, wrap) for frame in frames) + wrap_end(wrap)
