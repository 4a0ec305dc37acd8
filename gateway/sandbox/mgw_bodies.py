"""Frames of grok.com's chat socket (upstream-web 3.3), one ``bytes`` of JSON each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gateway.sandbox.answers import (
    POST,
    REASONING,
    RENDER_TAG,
    SOURCE_TITLE,
    SOURCE_URL,
    Answer,
    counted,
)
from gateway.sandbox.directives import Frames
from gateway.sandbox.media_bodies import image_paths
from gateway.sandbox.scripts import Script
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.ws_frames import BINARY, TEXT, ws_frame

SESSION_STAND_IN = "conv-000000000000"
"""As long as any session id, so that ready-made WebSocket frames keep their lengths."""
GARBAGE = (
    b'{"session_id": oops',
    b'{"session_id":"other","event":{"type":"surprise.event","value":[1,2]}}',
    b"\x00 a binary frame",
    b"[]",
    b'{"session_id":"other"}',
)


def session_id(number: int) -> str:
    """The id of a session, SESSION_STAND_IN's length."""
    return f"conv-{number:012d}"


def event(session: str, kind: str, **keys: Any) -> bytes:
    """One server frame."""
    return encode({"session_id": session, "event": {"type": kind, **keys}})


def error_event(session: str, code: int | str, message: str) -> bytes:
    return event(session, "error", error={"code": code, "message": message})


def done_event(session: str, response_id: str, status: str = "completed") -> bytes:
    return event(session, "response.done", response={"id": response_id, "status": status})


def _chunk(session: str, **chunk: Any) -> bytes:
    return event(session, "response.chunk", chunk=chunk)


def _text(session: str, text: str, channel: str) -> bytes:
    return _chunk(session, text={"text": text, "channel": channel})


def _preamble(session: str) -> Iterator[bytes]:
    """Thinking, two server tools, their results and a source."""
    yield event(session, "response.created", response={"id": "resp-0"})
    yield _text(session, REASONING[0], "CHANNEL_ANALYSIS")
    page = {"url": SOURCE_URL, "title": SOURCE_TITLE, "snippet": "..."}
    web_search = {"tool_usage_card_id": "t1", "web_search": {"args": {"query": "tide"}}}
    yield _chunk(session, tool_usage_card=web_search)
    result = {"tool_call_id": "t1", "web_search": {"webpages": [page]}}
    yield _chunk(session, tool_result=result)
    x_search = {"tool_usage_card_id": "t2", "x_search": {"args": {"query": "from:sea"}}}
    yield _chunk(session, tool_usage_card=x_search)
    post = {
        "userhandle": POST["username"],
        "name": "Sea",
        "post_id": POST["postId"],
        "text": POST["text"],
    }
    yield _chunk(session, tool_result={"x_post": {"posts": [post]}})
    source = {"url": SOURCE_URL, "title": SOURCE_TITLE}
    yield event(session, "response.search.result", result=source)
    yield _text(session, REASONING[1], "channel_reasoning")
    yield _text(session, REASONING[2], "CHANNEL_ANALYSIS")
    yield _text(session, "Heading", "CHANNEL_COMMENTARY")


def _tokens(session: str, answer: Answer) -> Iterator[bytes]:
    """Answer text; the citation's markup is cut in two, its card is not sent here."""
    for number, token in enumerate(answer.tokens):
        if number == answer.citation_after:
            for part in (RENDER_TAG[:20], RENDER_TAG[20:]):
                yield _text(session, part, "CHANNEL_ASSISTANT_RESPONSE")
        yield _text(session, token, "CHANNEL_ASSISTANT_RESPONSE" if number % 2 == 0 else "")


def chat_script(answer: Answer, session: str, response_id: str) -> Script:
    """One turn's answer, from the first chunk to ``response.done``."""
    before = tuple(_preamble(session)) if answer.rich else ()
    tokens = tuple(_tokens(session, answer))
    closing: tuple[bytes, ...] = ()
    if answer.citation_after is not None:
        citation = {
            "id": "c1",
            "kind": "CITATION_KIND_WEB_PAGE",
            "url": SOURCE_URL,
            "citation_id": 0,
        }
        closing += (_chunk(session, render_citation=citation),)
    if answer.rich:
        closing += (event(session, "response.output_text.done", text=answer.text),)
    closing += (done_event(session, response_id),)
    cut_at = len(before) + (len(tokens) + 1) // 2
    return _script(session, response_id, (*before, *tokens, *closing), cut_at, answer.pause_ms)


def _script(
    session: str, response_id: str, frames: tuple[bytes, ...], cut_at: int, pause_ms: int = 0
) -> Script:
    return Script(
        frames=frames,
        cut_at=cut_at,
        answer_end=len(frames) - 1,
        complete_at=len(frames),
        error=lambda code, message: error_event(session, code, message),
        failure=(done_event(session, response_id, "failed"),),
        garbage=GARBAGE,
        pause_ms=pause_ms,
    )


def images_script(
    session: str, user_id: str, image_ids: list[str], withheld: frozenset[int], response_id: str
) -> Script:
    """Pictures as cards: a placeholder, a preview and the finished one for each."""
    frames: list[bytes] = [_text(session, "Drawing.", "CHANNEL_ANALYSIS")]
    for slot, image_id in enumerate(image_ids):
        preview, final = image_paths(user_id, image_id)
        card = f"card-{image_id}"
        frames.append(_image_card(session, card, None))
        half = {"imageUuid": image_id, "progress": 50, "imageUrl": preview, "moderated": False}
        frames.append(_image_card(session, card, half))
        moderated = slot in withheld
        whole = {"imageUuid": image_id, "progress": 100, "imageUrl": final, "moderated": moderated}
        frames.append(_image_card(session, card, whole))
    frames.append(_text(session, "Here it is.", "CHANNEL_ASSISTANT_RESPONSE"))
    frames.append(done_event(session, response_id))
    return _script(session, response_id, tuple(frames), 3)


def _image_card(session: str, card_id: str, chunk: dict[str, Any] | None) -> bytes:
    card = {"id": card_id, "cardType": "generated_image_card", "image_chunk": chunk}
    return event(session, "response.grok.output", output={"card_attachment": {"jsonData": card}})


def on_wire(payload: bytes) -> bytes:
    """A WebSocket frame; what begins with NUL goes as binary."""
    return ws_frame(payload, BINARY if payload[:1] == b"\x00" else TEXT)


@lru_cache(maxsize=64)
def counted_on_wire(frames: Frames) -> bytes:
    """All WebSocket frames of a ``FRAMES:`` answer, for SESSION_STAND_IN."""
    script = chat_script(counted(frames), SESSION_STAND_IN, "resp-frames")
    return b"".join(map(on_wire, script.frames))
