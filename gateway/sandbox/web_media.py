"""grok.com: pictures and videos over REST (upstream-web 7, 9)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.sandbox.calls import Call, web_endpoint, web_refusal
from gateway.sandbox.checks import Expect
from gateway.sandbox.media_bodies import (
    image_paths,
    image_script,
    poster_path,
    video_path,
    video_script,
)
from gateway.sandbox.media_bytes import jpeg, mp4
from gateway.sandbox.scripts import Script
from gateway.sandbox.state import Asset
from gateway.sandbox.web_bodies import model_map
from gateway.sandbox.web_files import require_own_files

EDIT_KEYS = frozenset(
    {
        "modelName",
        "message",
        "enableImageStreaming",
        "enableSideBySide",
        "sendFinalMetadata",
        "mediaGenInput",
    }
)
VIDEO_KEYS = EDIT_KEYS | {"responseMetadata", "kind"}
VIDEO_RATIOS = frozenset({"1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"})
MAX_INPUTS = 8


def withheld_slots(call: Call, count: int) -> frozenset[int]:
    """Positions of the moderated pictures."""
    chosen = {"none": (), "one": (count - 1,), "all": range(count)}[call.behaviour.moderated]
    return frozenset(chosen)


def keep_images(call: Call, image_ids: list[str]) -> None:
    """Make the generated pictures downloadable by their owner."""
    for image_id in image_ids:
        for path in image_paths(call.account.user_id, image_id):
            asset = Asset(image_id, call.token, jpeg(path), "image/jpeg", "image.jpg")
            call.state.put_asset(path, asset)


def chat_images(call: Call, count: int) -> Script:
    """The "lite" pictures of a chat turn (7.1)."""
    image_ids = [call.state.next_uuid() for _ in range(min(max(count, 1), 4))]
    keep_images(call, image_ids)
    withheld = withheld_slots(call, len(image_ids))
    return image_script(call.account.user_id, image_ids, withheld, call.state.next_id("resp"))


def edit_image(call: Call) -> Script:
    """Image edit, told apart by generation (7.3, 7.4)."""
    body = call.json()
    if "mediaGenInput" in body:
        refuse_generation(call, "legacy")
        _check_edit(call, body)
    else:
        refuse_generation(call, "current")
        _check_legacy_edit(call, body)
    bucket = "image_pro" if call.account.shape == "basic" else "image_edit"
    call.spend(bucket)
    return chat_images(call, 2)


def refuse_generation(call: Call, only: str) -> None:
    """Raise Refused where the options speak ``only`` the other generation."""
    if call.state.options.media_protocol == only:
        call.state.violate("wrong-generation", call.request.path, only)
        raise web_refusal(404, 5, "Not found.")


def _check_edit(call: Call, body: dict[str, Any]) -> None:
    wanted = body["mediaGenInput"]["imageToImage"]
    if set(body) != EDIT_KEYS or body["modelName"] != "imagine-image-edit":
        raise call.bad_request("exactly six keys are expected")
    inputs = wanted.get("inputAssets") if isinstance(wanted, dict) else None
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MAX_INPUTS:
        raise call.bad_request("inputAssets")
    require_own_files(call, inputs)
    if not wanted.get("prompt"):
        raise call.bad_request("prompt")


def _check_legacy_edit(call: Call, body: dict[str, Any]) -> None:
    config = model_map(body)["imageEditModelConfig"]
    references = config.get("imageReferences") if isinstance(config, dict) else None
    if not isinstance(references, list) or not references:
        raise call.bad_request("imageReferences")
    for reference in references:
        _require_own_asset(call, str(reference))
    post_id = config.get("parentPostId")
    if post_id is not None and post_id not in call.account.posts:
        raise call.bad_request("parentPostId")


def _require_own_asset(call: Call, url: str) -> None:
    path = "users/" + url.partition("/users/")[2]
    asset = call.state.assets.get(path)
    if asset is None or asset.owner != call.token:
        call.state.violate("foreign-upload", call.request.path, url)
        raise web_refusal(404, 5, "File not found.")


def text_to_video(call: Call) -> Script:
    """Gen 3: one step, exactly eight keys (9.3)."""
    refuse_generation(call, "legacy")
    body = call.json()
    wanted = body["mediaGenInput"]["textToVideo"]
    if set(body) != VIDEO_KEYS or body["modelName"] != "imagine-video-gen":
        raise call.bad_request("exactly eight keys are expected")
    if body["kind"] != "CONVERSATION_KIND_IMAGINE" or not isinstance(wanted, dict):
        raise call.bad_request("kind")
    duration = wanted.get("duration")
    if not isinstance(duration, int) or not 1 <= duration <= 15:
        raise call.bad_request("duration")
    if wanted.get("aspectRatio") not in VIDEO_RATIOS or not wanted.get("prompt"):
        raise call.bad_request("aspectRatio and prompt")
    return _video(call, str(wanted.get("resolutionName")), call.state.next_id("post"))


def legacy_video(call: Call) -> Script:
    """Gen 1 and 2: the media post must exist (9.1, 9.2)."""
    refuse_generation(call, "current")
    config = model_map(call.json())["videoGenModelConfig"]
    post_id = config.get("parentPostId") if isinstance(config, dict) else None
    if post_id not in call.account.posts:
        raise call.bad_request("parentPostId")
    resolution = config.get("resolutionName") or config.get("videoResolution")
    resolution = {"SD": "480p", "HD": "720p"}.get(resolution, resolution)
    return _video(call, str(resolution), str(post_id))


def _video(call: Call, resolution: str, post_id: str) -> Script:
    if resolution not in ("480p", "720p"):
        raise call.bad_request("resolutionName")
    user_id, video_id = call.account.user_id, call.state.next_uuid()
    call.spend("video" if resolution == "480p" else "video_720p")
    path, poster = video_path(user_id, video_id), poster_path(user_id, video_id)
    state = call.state
    state.put_asset(path, Asset(video_id, call.token, mp4(path), "video/mp4", "video.mp4"))
    state.put_asset(poster, Asset(video_id, call.token, jpeg(poster), "image/jpeg", "poster.jpg"))
    moderated = call.behaviour.moderated != "none"
    return video_script(user_id, video_id, post_id, moderated, state.next_id("resp"))


async def create_post(call: Call) -> web.Response:
    """A media post for the older video and edit calls (9.1)."""
    refuse_generation(call, "current")
    body = call.json()
    if body.get("mediaType") == "MEDIA_POST_TYPE_IMAGE":
        _require_own_asset(call, str(body.get("mediaUrl")))
    elif body.get("mediaType") != "MEDIA_POST_TYPE_VIDEO" or not body.get("prompt"):
        raise call.bad_request("mediaType and prompt")
    post_id = call.state.next_id("post")
    call.account.posts.add(post_id)
    return web.json_response({"post": {"id": post_id}})


async def upscale(call: Call) -> web.Response:
    """A 720p twin of the account's own video (9.5)."""
    video_id = str(call.json().get("videoId"))
    path = video_path(call.account.user_id, video_id)
    if path not in call.state.assets:
        raise web_refusal(404, 5, "Video not found.")
    hd_path = path.replace("generated_video.mp4", "generated_video_hd.mp4")
    content = mp4(hd_path)
    asset = Asset(f"{video_id}-hd", call.token, content, "video/mp4", "video_hd.mp4")
    call.state.put_asset(hd_path, asset)
    return web.json_response({"hdMediaUrl": f"{call.origin}/{hd_path}"})


_MEDIA = Expect(json=True, referer_path="/imagine")
ROUTES = (
    web.post("/rest/media/post/create", web_endpoint(create_post, _MEDIA)),
    web.post(
        "/rest/media/video/upscale", web_endpoint(upscale, Expect(json=True, referer_path="*"))
    ),
)
