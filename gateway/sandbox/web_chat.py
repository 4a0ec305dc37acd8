"""grok.com: ``conversations/new``, told apart by its body (upstream-web 2, 7, 9, 13.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import MODES
from gateway.sandbox.answers import web_answer
from gateway.sandbox.calls import Call, web_endpoint
from gateway.sandbox.checks import Expect
from gateway.sandbox.directives import frames_wanted, last_user_text
from gateway.sandbox.faults import BodyForm
from gateway.sandbox.scripts import Script
from gateway.sandbox.web_bodies import (
    chat_script,
    frames_script,
    model_map,
    wrap_end,
    wrap_one,
)
from gateway.sandbox.web_files import require_own_files
from gateway.sandbox.web_media import chat_images, edit_image, legacy_video, text_to_video

MODEL_NAMES = frozenset({"grok-3", "grok-4", "grok-4-mini", "grok-4-1-thinking-1129", "grok-420"})
MODE_ENUMS = frozenset(
    "MODEL_MODE_" + name
    for name in (
        "GROK_3",
        "GROK_3_MINI_THINKING",
        "GROK_3_THINKING",
        "GROK_4",
        "GROK_4_THINKING",
        "GROK_4_MINI_THINKING",
        "HEAVY",
        "GROK_4_1_MINI_THINKING",
        "FAST",
        "EXPERT",
        "GROK_4_1_THINKING",
        "GROK_420",
    )
)
HIGH_EFFORT = frozenset({"MODEL_MODE_HEAVY", "MODEL_MODE_EXPERT", "MODEL_MODE_GROK_4_1_THINKING"})
IMAGE_PREFIXES = ("Image Generation:", "Drawing:")


def prompt_of(body: dict[str, Any]) -> str:
    """The user's own words in a ``conversations/new`` body."""
    message = body.get("message")
    return last_user_text(message) if isinstance(message, str) else ""


def body_form(call: Call) -> BodyForm:
    """The wrapping this call's behaviour has (1.5)."""
    wrap = call.behaviour.wrap
    content_type = "text/event-stream" if wrap == "sse" else "application/json"
    return BodyForm(content_type, lambda frame: wrap_one(frame, wrap), wrap_end(wrap))


async def conversations_new(call: Call) -> web.StreamResponse:
    """Find out what is asked for, then answer that."""
    script = _handler_for(call)(call)
    return await call.stream(script, body_form(call))


def _handler_for(call: Call) -> Callable[[Call], Script]:
    body = call.json()
    media = body.get("mediaGenInput")
    if isinstance(media, dict):
        if "textToVideo" in media:
            return text_to_video
        if "imageToImage" in media:
            return edit_image
        raise call.bad_request("mediaGenInput")
    if "videoGenModelConfig" in model_map(body):
        return legacy_video
    if "imageEditModelConfig" in model_map(body):
        return edit_image
    return chat


def chat(call: Call) -> Script:
    """A turn of chat, in the Gen 1 or the Gen 2 form; pictures where it begs for them."""
    body = call.json()
    message = body.get("message")
    attachments = body.get("fileAttachments", [])
    if not isinstance(message, str) or not isinstance(attachments, list):
        raise call.bad_request("message and fileAttachments")
    if not message and not attachments:
        raise call.bad_request("an empty message")
    if body.get("imageAttachments"):
        raise call.bad_request("imageAttachments must be empty")
    require_own_files(call, attachments)
    call.spend(*_bucket(call, body))
    prompt = prompt_of(body)
    if prompt.startswith(IMAGE_PREFIXES):
        return chat_images(call, int(body.get("imageGenerationCount", 2)))
    return answer_script(call, message, prompt)


def answer_script(call: Call, message: str, prompt: str) -> Script:
    """The stream of a text answer; counted frames come ready-made."""
    answer = web_answer(message)
    frames = None if answer.rich else frames_wanted(prompt)
    if frames is not None:
        return frames_script(frames)
    state = call.state
    return chat_script(answer, state.next_id("conv"), state.next_id("resp"), prompt)


def _bucket(call: Call, body: dict[str, Any]) -> tuple[str, int]:
    """Which counter falls, and by how much (2.8)."""
    mode = body.get("modeId")
    if mode is not None:
        if mode not in MODES or "modelName" in body or "modelMode" in body:
            raise call.bad_request("modeId")
        return mode, 1
    name, mode_enum = body.get("modelName"), body.get("modelMode")
    if name not in MODEL_NAMES or mode_enum not in MODE_ENUMS:
        raise call.bad_request("modelName and modelMode")
    bucket = "grok-4-heavy" if mode_enum == "MODEL_MODE_HEAVY" else str(name)
    return bucket, 4 if mode_enum in HIGH_EFFORT else 1


_EXPECT = Expect(referer_path="*", request_id=True, json=True)
ROUTES = (
    web.post(
        "/rest/app-chat/conversations/new",
        web_endpoint(conversations_new, _EXPECT, prompt_of=prompt_of),
    ),
)
