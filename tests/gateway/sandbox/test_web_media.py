"""Image edit and video over REST, in every generation."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller, json_lines, responses

EDIT: dict[str, Any] = {
    "modelName": "imagine-image-edit",
    "enableImageStreaming": True,
    "enableSideBySide": True,
    "sendFinalMetadata": True,
}
VIDEO: dict[str, Any] = {
    **EDIT,
    "modelName": "imagine-video-gen",
    "responseMetadata": {"experiments": [], "modelConfigOverride": {"modelMap": {}}},
    "kind": "CONVERSATION_KIND_IMAGINE",
}
TEXT_TO_VIDEO = {
    "prompt": "waves",
    "aspectRatio": "16:9",
    "duration": 6,
    "resolutionName": "720p",
}


def model_map(**config: Any) -> dict[str, Any]:
    return {"responseMetadata": {"modelConfigOverride": {"modelMap": config}}}


async def stream(caller: Caller, token: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with caller.chat(token, "make it blue", **body) as response:
        assert response.status == 200, await response.text()
        return responses(json_lines(await response.read()))


async def uploaded(caller: Caller, token: str) -> dict[str, str]:
    body = {"fileName": "file.png", "fileMimeType": "image/png", "content": "aGVsbG8="}
    async with caller.web_post(token, "/rest/app-chat/upload-file", body) as reply:
        found: dict[str, str] = await reply.json()
        return found


def edit(*file_ids: str) -> dict[str, Any]:
    wanted = {"prompt": "make it blue", "inputAssets": list(file_ids)}
    return {**EDIT, "mediaGenInput": {"imageToImage": wanted}}


def video(**change: Any) -> dict[str, Any]:
    return {**VIDEO, "mediaGenInput": {"textToVideo": {**TEXT_TO_VIDEO, **change}}}


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    file_id = (await uploaded(caller, "ok-1"))["fileMetadataId"]
    parts = await stream(caller, "ok-1", edit(file_id))
    assert len(parts[-1]["modelResponse"]["generatedImageUrls"]) == 2
    assert sandbox.state.violations == []


async def test_an_edit_takes_exactly_six_keys_and_own_files(caller: Caller) -> None:
    file_id = (await uploaded(caller, "ok-1"))["fileMetadataId"]
    for token, body, status in (
        ("ok-1", {**edit(file_id), "temporary": True}, 400),
        ("ok-1", edit(), 400),
        ("ok-2", edit(file_id), 404),
    ):
        async with caller.chat(token, "x", **body) as response:
            assert response.status == status


async def test_the_older_edit_refers_to_uploads_by_address(caller: Caller) -> None:
    path = (await uploaded(caller, "ok-1"))["fileUri"]
    config = {"imageReferences": [f"https://assets.grok.com/{path}"]}
    body = {"modelName": "imagine-image-edit", **model_map(imageEditModelConfig=config)}
    parts = await stream(caller, "ok-1", body)
    assert parts[-1]["modelResponse"]["generatedImageUrls"]
    async with caller.chat("ok-2", "x", **body) as response:
        assert response.status == 404


async def test_text_to_video_takes_one_step(caller: Caller) -> None:
    parts = await stream(caller, "ok-1", video())
    key = "streamingVideoGenerationResponse"
    frames = [part[key] for part in parts if key in part]
    assert [frame["progress"] for frame in frames] == [1, 50, 95, 100]
    async with caller.web_get("ok-1", "/" + frames[-1]["videoUrl"]) as reply:
        assert reply.content_type == "video/mp4"
        assert (await reply.read())[4:8] == b"ftyp"


@pytest.mark.parametrize(
    "body",
    [
        {**video(), "extra": 1},
        video(duration=16),
        video(aspectRatio="5:1"),
        video(resolutionName="1080p"),
        {**video(), "kind": "OTHER"},
    ],
)
async def test_a_wrong_video_body_is_refused(caller: Caller, body: dict[str, Any]) -> None:
    async with caller.chat("ok-1", "x", **body) as response:
        assert response.status == 400


async def test_the_older_video_needs_its_media_post(caller: Caller) -> None:
    body = {"mediaType": "MEDIA_POST_TYPE_VIDEO", "prompt": "waves"}
    async with caller.web_post("ok-1", "/rest/media/post/create", body, "/imagine") as reply:
        post_id = (await reply.json())["post"]["id"]
    config = {"parentPostId": post_id, "aspectRatio": "3:2", "videoResolution": "SD"}
    request = {"modelName": "grok-3", **model_map(videoGenModelConfig=config)}
    parts = await stream(caller, "ok-1", request)
    assert parts[-1]["modelResponse"]["fileAttachments"]
    async with caller.chat("ok-2", "x", **request) as response:
        assert response.status == 400


async def test_a_moderated_video_never_has_an_address(caller: Caller) -> None:
    parts = await stream(caller, "moderated-one-1", video())
    finals = [p["streamingVideoGenerationResponse"] for p in parts if "videoUrl" in str(p)]
    assert finals[-1]["moderated"] is True
    assert finals[-1]["videoUrl"] == ""
    assert parts[-1]["modelResponse"]["fileAttachments"] == []


async def test_a_moderated_picture_is_not_among_the_results(caller: Caller) -> None:
    file_id = (await uploaded(caller, "moderated-one-1"))["fileMetadataId"]
    parts = await stream(caller, "moderated-one-1", edit(file_id))
    assert len(parts[-1]["modelResponse"]["generatedImageUrls"]) == 1


async def test_only_the_chosen_generation_answers(caller: Caller, sandbox: RunningSandbox) -> None:
    sandbox.state.options.media_protocol = "current"
    body = {"mediaType": "MEDIA_POST_TYPE_VIDEO", "prompt": "waves"}
    async with caller.web_post("ok-1", "/rest/media/post/create", body, "/imagine") as reply:
        assert reply.status == 404
    sandbox.state.options.media_protocol = "legacy"
    async with caller.chat("ok-1", "x", **video()) as response:
        assert response.status == 404


async def test_a_video_can_be_upscaled_by_its_owner(caller: Caller) -> None:
    parts = await stream(caller, "ok-1", video())
    video_id = parts[0]["streamingVideoGenerationResponse"]["videoId"]
    body = {"videoId": video_id}
    async with caller.web_post("ok-1", "/rest/media/video/upscale", body) as reply:
        url = (await reply.json())["hdMediaUrl"]
    async with caller.web_get("ok-1", url.removeprefix(caller.url)) as reply:
        assert reply.status == 200
    async with caller.web_post("ok-2", "/rest/media/video/upscale", body) as reply:
        assert reply.status == 404
