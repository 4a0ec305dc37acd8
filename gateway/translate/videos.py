"""What clients say of videos, in either dialect, to one order; and the answer as markup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from gateway.translate.chat_request import PRESETS, check_video_config
from gateway.upstream.requests import ChatRequest, ImagePart, StoredFile, TextPart, VideoRequest
from gateway.wire.chat import VideoConfig
from gateway.wire.errors import bad_request
from gateway.wire.videos import CreateVideo

DEFAULT_RATIO = "3:2"
DEFAULT_SECONDS = 6
DEFAULT_PRESET = "custom"
DEFAULT_SIZE = "720x1280"
LONGEST = 15
"""Seconds; neither upstream makes longer ones."""
HD_LINES = 720
MAX_PROMPT = 32_000
"""Characters."""
_SIZE = re.compile(r"([1-9]\d{2,3})x([1-9]\d{2,3})", re.ASCII)
_SECONDS = re.compile(r"\d{1,2}", re.ASCII)
_RATIOS = {
    "1:1": 1.0,
    "16:9": 16 / 9,
    "9:16": 9 / 16,
    "4:3": 4 / 3,
    "3:4": 3 / 4,
    "3:2": 1.5,
    "2:3": 2 / 3,
}
_TOLERANCE = 0.03
"""1792x1024, which OpenAI counts as 16:9, is off by 0.016."""


@dataclass(frozen=True, slots=True)
class VideoOrder:
    """A video as its client wants it. ``hd``: 720 lines, else 480."""

    prompt: str
    ratio: str = DEFAULT_RATIO
    seconds: int = DEFAULT_SECONDS
    hd: bool = False
    preset: str = DEFAULT_PRESET
    user: str = ""

    def request(self, resolution: str, image: StoredFile | None) -> VideoRequest:
        return VideoRequest(
            prompt=self.prompt,
            ratio=self.ratio,
            seconds=self.seconds,
            resolution=resolution,
            preset=self.preset,
            image=image,
            user=self.user,
        )


def chat_order(
    request: ChatRequest, config: VideoConfig | None, *, nsfw: bool
) -> tuple[VideoOrder, ImagePart | None]:
    """The order of a conversation and its first picture; raises ApiError 400.

    The prompt is the text of the last user turn that has any: what came before it was said
    about other videos. ``nsfw`` says whether the operator allows the preset ``spicy``.
    """
    config = config or VideoConfig()
    check_video_config(config)
    allow_preset(config.preset, "video_config.preset", nsfw=nsfw)
    image = _first_picture(request)
    prompt = _last_words(request)
    if not prompt and image is None:
        raise bad_request("The messages hold no content.", "empty_content", "messages")
    user = request.options.get("user")
    order = VideoOrder(
        prompt=prompt,
        ratio=config.aspect_ratio or DEFAULT_RATIO,
        seconds=config.video_length or DEFAULT_SECONDS,
        hd=config.resolution == "HD",
        preset=config.preset or DEFAULT_PRESET,
        user=user if isinstance(user, str) else "",
    )
    return order, image


def _first_picture(request: ChatRequest) -> ImagePart | None:
    """Raises ApiError for what no video is made of."""
    first: ImagePart | None = None
    for turn in request.turns:
        for part in turn.parts:
            if isinstance(part, ImagePart):
                first = first or part
            elif not isinstance(part, TextPart):
                text = "A video is made from text and a picture; sound and files are not used."
                raise bad_request(text, "invalid_value", None)
    return first


def _last_words(request: ChatRequest) -> str:
    for turn in reversed(request.turns):
        if turn.role == "user":
            said = "\n".join(part.text for part in turn.parts if isinstance(part, TextPart))
            if said.strip():
                return said.strip()
    return ""


def allow_preset(preset: str | None, param: str, *, nsfw: bool) -> None:
    """Raises ApiError 400 for ``spicy`` where the operator has not allowed it."""
    if preset == "spicy" and not nsfw:
        text = "The preset spicy is switched off on this service."
        raise bad_request(text, "nsfw_disabled", param)


def job_order(body: CreateVideo, *, nsfw: bool) -> tuple[VideoOrder, str]:
    """The order of a job, and its size as the client is told it; raises ApiError 400."""
    # PostgreSQL keeps no NUL in a text, and no prompt needs one.
    prompt = body.prompt.replace("\0", "").strip()
    if not prompt and not body.input_reference:
        raise bad_request("There is no prompt.", "empty_content", "prompt")
    if len(prompt) > MAX_PROMPT:
        text = f"The prompt has more than {MAX_PROMPT} characters."
        raise bad_request(text, "string_too_long", "prompt")
    if body.preset and body.preset not in PRESETS:
        text = f"preset must be one of: {', '.join(PRESETS)}."
        raise bad_request(text, "invalid_preset", "preset")
    allow_preset(body.preset, "preset", nsfw=nsfw)
    size = body.size or DEFAULT_SIZE
    ratio, hd = _shape(size)
    order = VideoOrder(
        prompt=prompt,
        ratio=ratio,
        seconds=_seconds(body.seconds),
        hd=hd,
        preset=body.preset or DEFAULT_PRESET,
        user=body.user or "",
    )
    return order, size


def _shape(size: str) -> tuple[str, bool]:
    """The aspect ratio that is meant, and whether it takes 720 lines."""
    found = _SIZE.fullmatch(size)
    if found is not None:
        width, height = int(found[1]), int(found[2])
        for ratio, value in _RATIOS.items():
            if abs(width / height / value - 1) <= _TOLERANCE:
                return ratio, min(width, height) >= HD_LINES
    text = f"size must be like 1280x720, in one of the aspect ratios {', '.join(_RATIOS)}."
    raise bad_request(text, "invalid_size", "size")


def _seconds(given: str | int | None) -> int:
    if given is None or given == "":
        return DEFAULT_SECONDS
    text = str(given)
    if _SECONDS.fullmatch(text) and 1 <= int(text) <= LONGEST:
        return int(text)
    message = f"seconds must be a whole number from 1 to {LONGEST}."
    raise bad_request(message, "invalid_seconds", "seconds")


def video_markup(url: str, poster_url: str, *, as_poster: bool) -> str:
    """A ``<video>`` element, or a poster that links to the video; all addresses escaped.

    Without a poster picture the link has words in its place.
    """
    video, poster = escape(url), escape(poster_url)
    if not as_poster:
        shown = f' poster="{poster}"' if poster else ""
        return (
            f'<video id="video" controls preload="none"{shown}>\n'
            f'  <source id="mp4" src="{video}" type="video/mp4">\n</video>'
        )
    inside = f'<img src="{poster}" alt="Video">' if poster else "Video"
    badge = '<span aria-hidden="true">&#9654;</span>'
    return f'<a href="{video}" target="_blank" rel="noopener noreferrer">{inside}{badge}</a>'
