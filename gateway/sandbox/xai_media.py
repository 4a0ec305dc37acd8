"""api.x.ai: pictures and videos (upstream-xai 7 and 8)."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from gateway.sandbox.calls import Call, public_endpoint, xai_endpoint, xai_refusal
from gateway.sandbox.media_bytes import jpeg, mp4
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.web_media import withheld_slots
from gateway.sandbox.xai_chat import json_body, send_whole
from gateway.sandbox.xai_models import find_model

IMAGE_RATIOS = frozenset(
    {
        *("1:1", "3:4", "4:3", "9:16", "16:9", "2:3", "3:2", "9:19.5", "19.5:9"),
        *("9:20", "20:9", "1:2", "2:1", "auto", "21:9", "5:2"),
    }
)
VIDEO_RATIOS = frozenset({"1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"})
NOT_TAKEN = ("size", "seed", "style", "mask", "stream")
MAX_EDIT_IMAGES = 3


def prompt_of(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    return prompt if isinstance(prompt, str) else ""


async def generate_images(call: Call) -> web.StreamResponse:
    """``n`` pictures, as links or base64; there is no ``created``."""
    body = call.json()
    _check_image_request(body)
    return await send_whole(call, _images(call, body))


async def edit_images(call: Call) -> web.StreamResponse:
    """JSON only, exactly one of ``image`` and ``images``."""
    body = call.json()
    _check_image_request(body)
    one, many = body.get("image"), body.get("images")
    if (one is None) == (many is None):
        raise _invalid("Exactly one of image and images is required.")
    images = [one] if many is None else many
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_EDIT_IMAGES:
        raise _invalid("images")
    for image in images:
        _check_image_object(image)
    if many is None and "aspect_ratio" in body:
        call.state.violate("edit-ratio", call.request.path, "one picture keeps its own ratio")
    return await send_whole(call, _images(call, body))


def _invalid(message: str) -> Exception:
    return xai_refusal(400, "invalid-argument", message)


def _check_image_request(body: dict[str, Any]) -> None:
    if not prompt_of(body):
        raise xai_refusal(422, "invalid-argument", "prompt: field required")
    if find_model(body.get("model"), "image") is None:
        raise xai_refusal(404, "not-found", "The model does not exist.")
    for name in NOT_TAKEN:
        if name in body:
            raise _invalid(f"Argument not supported: {name}")
    count = body.get("n", 1)
    if not isinstance(count, int) or not 1 <= count <= 10:
        raise _invalid("n is out of range.")
    if body.get("aspect_ratio", "auto") not in IMAGE_RATIOS:
        raise _invalid("aspect_ratio")
    if body.get("resolution", "1k") not in ("1k", "1.5k", "2k"):
        raise _invalid("resolution")
    if body.get("response_format", "url") not in ("url", "b64_json"):
        raise _invalid("response_format")


def _check_image_object(image: Any) -> None:
    """``{"url": https or data URI}`` or ``{"file_id": ...}``."""
    if not isinstance(image, dict):
        raise _invalid("image")
    url = image.get("url") or image.get("image_url")
    if image.get("file_id"):
        return
    if not isinstance(url, str) or not url.startswith(("https://", "http://", "data:image/")):
        raise _invalid("image: url")


def _images(call: Call, body: dict[str, Any]) -> bytes:
    count = int(body.get("n", 1))
    withheld = withheld_slots(call, count)
    inline = body.get("response_format") == "b64_json"
    data = [_image(call, inline, slot in withheld) for slot in range(count)]
    return encode({"data": data, "usage": {"cost_in_usd_ticks": 700_000_000 * count}})


def _image(call: Call, inline: bool, withheld: bool) -> dict[str, Any]:
    image_id = call.state.next_uuid()
    item: dict[str, Any] = {"mime_type": "image/jpeg", "respect_moderation": not withheld}
    if inline:
        item["b64_json"] = "" if withheld else base64.b64encode(jpeg(image_id)).decode()
    else:
        item["url"] = "" if withheld else f"{call.origin}/imgen/{image_id}.jpg"
    return item


async def generate_video(call: Call) -> web.StreamResponse:
    """Starts a job; what becomes of it is asked for by id."""
    body = call.json()
    model = find_model(body.get("model"), "video")
    if model is None:
        raise xai_refusal(404, "not-found", "The model does not exist.")
    duration = _check_video_request(body)
    request_id = call.state.next_uuid()
    call.state.videos[request_id] = {
        "token": call.token,
        "polls": 0,
        "duration": duration,
        "model": model.id,
        "failed": call.behaviour.failed,
        "moderated": call.behaviour.moderated != "none",
    }
    answer = encode({"request_id": request_id})
    # A job that fails is accepted like any other; only asking after it tells.
    return json_body(answer) if call.behaviour.failed else await send_whole(call, answer)


def _check_video_request(body: dict[str, Any]) -> float:
    """The duration in seconds. Raises Refused."""
    if not prompt_of(body) and "image" not in body:
        raise xai_refusal(422, "invalid-argument", "prompt: field required")
    if "image" in body:
        _check_image_object(body["image"])
    try:
        duration = float(body.get("duration", body.get("seconds", 8)))
    except (TypeError, ValueError):
        raise _invalid("duration") from None
    if not 1 <= duration <= 15:
        raise _invalid("duration is out of range.")
    if body.get("aspect_ratio", "16:9") not in VIDEO_RATIOS:
        raise _invalid("aspect_ratio")
    if body.get("resolution", "480p") not in ("480p", "720p", "1080p"):
        raise _invalid("resolution")
    return duration


async def get_video(call: Call) -> web.Response:
    """202 a few times (the first time with an empty body), then the end of the job."""
    request_id = call.request.match_info["id"]
    job = call.state.videos.get(request_id)
    if job is None or job["token"] != call.token:
        raise xai_refusal(404, "not-found", "Video not found.")
    job["polls"] += 1
    if job["polls"] <= call.state.options.video_polls:
        if job["polls"] == 1:
            return web.Response(status=202)
        return web.json_response({"status": "pending", "progress": 37}, status=202)
    return web.json_response(_ended(call, request_id, job))


def _ended(call: Call, request_id: str, job: dict[str, Any]) -> dict[str, Any]:
    if job["failed"]:
        error = {"code": "internal_error", "message": "The video failed."}
        return {"status": "failed", "progress": 0, "error": error}
    url = "" if job["moderated"] else f"{call.origin}/vidgen/{request_id}.mp4"
    video = {"url": url, "duration": job["duration"], "respect_moderation": not job["moderated"]}
    return {
        "status": "done",
        "progress": 100,
        "model": job["model"],
        "video": video,
        "usage": {"cost_in_usd_ticks": 8_400_000_000},
    }


async def public_image(request: web.Request) -> web.Response:
    """A generated picture's short-lived link."""
    return web.Response(body=jpeg(request.match_info["name"]), content_type="image/jpeg")


async def public_video(request: web.Request) -> web.Response:
    """A generated video's short-lived link."""
    return web.Response(body=mp4(request.match_info["name"]), content_type="video/mp4")


ROUTES = (
    web.post("/v1/images/generations", xai_endpoint(generate_images, prompt_of=prompt_of)),
    web.post("/v1/images/edits", xai_endpoint(edit_images, prompt_of=prompt_of)),
    web.post("/v1/videos/generations", xai_endpoint(generate_video, prompt_of=prompt_of)),
    web.get("/v1/videos/{id}", xai_endpoint(get_video)),
    web.get("/imgen/{name}.jpg", public_endpoint(public_image)),
    web.get("/vidgen/{name}.mp4", public_endpoint(public_video)),
)
