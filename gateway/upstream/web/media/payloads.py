"""Bodies of picture edits and videos, in every generation (upstream-web 7.3, 7.4, 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from gateway.upstream.errors import RequestRejected
from gateway.upstream.requests import EditRequest, VideoRequest
from gateway.upstream.web.settings import WebSettings

_MODES = {
    "normal": "--mode=normal",
    "fun": "--mode=extremely-crazy",
    "spicy": "--mode=extremely-spicy-or-crazy",
}
_OTHER_MODE = "--mode=custom"
_OLD_RESOLUTIONS = {"480p": "SD", "720p": "HD"}


def encode(body: Mapping[str, Any]) -> bytes:
    """``body`` as JSON. Raises RequestRejected for half a surrogate pair."""
    try:
        return to_json(body)
    except PydanticSerializationError as error:
        raise RequestRejected("The text is not valid Unicode.", row=8) from error


def edit_body(request: EditRequest, file_ids: Sequence[str]) -> bytes:
    """The current edit: exactly six keys, pictures by id."""
    wanted: dict[str, Any] = {"prompt": request.prompt, "inputAssets": list(file_ids)}
    if request.ratio:
        wanted["aspectRatio"] = request.ratio
    return encode(
        {
            "modelName": "imagine-image-edit",
            "message": request.prompt,
            "enableImageStreaming": True,
            "enableSideBySide": True,
            "sendFinalMetadata": True,
            "mediaGenInput": {"imageToImage": wanted},
        }
    )


def legacy_edit_body(
    request: EditRequest, urls: Sequence[str], post_id: str, settings: WebSettings
) -> bytes:
    """The older edits: pictures by address; ``post_id`` is Gen 2's media post, else empty."""
    config: dict[str, Any] = {"imageReferences": list(urls)}
    if post_id:
        config["parentPostId"] = post_id
        config |= {"aspectRatio": request.ratio} if request.ratio else {}
    return encode(
        {
            "temporary": settings.temporary,
            "modelName": "imagine-image-edit",
            "message": request.prompt,
            "fileAttachments": [],
            "imageAttachments": [],
            "disableSearch": False,
            "enableImageGeneration": True,
            "returnImageBytes": False,
            "returnRawGrokInXaiRequest": False,
            "enableImageStreaming": True,
            "imageGenerationCount": 2,
            "forceConcise": False,
            "toolOverrides": {"imageGen": True},
            "enableSideBySide": True,
            "sendFinalMetadata": True,
            "isReasoning": False,
            "disableTextFollowUps": bool(post_id),
            "disableMemory": False,
            "forceSideBySide": False,
            "isAsyncChat": False,
            "responseMetadata": {
                "modelConfigOverride": {
                    "modelMap": {"imageEditModel": "imagine", "imageEditModelConfig": config}
                },
                "requestModelDetails": {"modelId": "imagine-image-edit"},
            },
        }
    )


def post_body(*, prompt: str = "", media_url: str = "") -> bytes:
    """A media post: of the picture at ``media_url``, else of a video to be made."""
    if media_url:
        return encode({"mediaType": "MEDIA_POST_TYPE_IMAGE", "mediaUrl": media_url})
    return encode({"mediaType": "MEDIA_POST_TYPE_VIDEO", "prompt": prompt})


def video_body(request: VideoRequest) -> bytes:
    """The current text-to-video: exactly eight keys; only ``message`` has the mode."""
    wanted = {
        "prompt": request.prompt,
        "aspectRatio": request.ratio,
        "duration": request.seconds,
        "resolutionName": request.resolution,
    }
    return encode(
        {
            "modelName": "imagine-video-gen",
            "message": video_message(request),
            "enableImageStreaming": True,
            "enableSideBySide": True,
            "sendFinalMetadata": True,
            "responseMetadata": {"experiments": [], "modelConfigOverride": {"modelMap": {}}},
            "mediaGenInput": {"textToVideo": wanted},
            "kind": "CONVERSATION_KIND_IMAGINE",
        }
    )


def gen1_video_body(request: VideoRequest, post_id: str, settings: WebSettings) -> bytes:
    """Gen 1's second step; ``post_id`` names the prompt or the first frame."""
    config = {
        "parentPostId": post_id,
        "aspectRatio": request.ratio,
        "videoLength": request.seconds,
        "videoResolution": _OLD_RESOLUTIONS[request.resolution],
    }
    fields = {
        "temporary": settings.temporary,
        "modelName": "grok-3",
        "message": video_message(request),
        "toolOverrides": {"videoGen": True},
    }
    return encode(fields | _with_video_config(config))


def gen2_video_body(
    request: VideoRequest, post_id: str, image_url: str, settings: WebSettings
) -> bytes:
    """Gen 2's second step; ``image_url`` is the first frame's, empty for text alone."""
    config: dict[str, Any] = {
        "parentPostId": post_id,
        "aspectRatio": request.ratio,
        "videoLength": request.seconds,
        "resolutionName": request.resolution,
    }
    if image_url:
        config |= {
            "isVideoEdit": False,
            "isReferenceToVideo": True,
            "imageReferences": [image_url],
        }
    fields = {
        "temporary": settings.temporary,
        "modelName": "imagine-video-gen",
        "message": video_message(request),
    }
    return encode(fields | _with_video_config(config))


def video_message(request: VideoRequest) -> str:
    """The prompt and the flag of its preset."""
    return f"{request.prompt} {_MODES.get(request.preset, _OTHER_MODE)}".strip()


def _with_video_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "enableSideBySide": True,
        "responseMetadata": {
            "experiments": [],
            "modelConfigOverride": {"modelMap": {"videoGenModelConfig": dict(config)}},
        },
    }
