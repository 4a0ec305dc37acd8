"""Pictures made from pictures, in every generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    ImagesIncomplete,
    NetworkFailed,
    QuotaExhausted,
    RequestRejected,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.upstream.events import Finished, ImageProgress, ImageReady
from gateway.upstream.requests import EditRequest
from tests.gateway.upstream.media import (
    Rig,
    account,
    events_of,
    only,
    outcome,
    patience,
    running,
    stored,
    until,
)

CHAT = "/rest/app-chat/conversations/new"
POST = "/rest/media/post/create"
FORMS: dict[str, dict[str, Any]] = {
    "current": {"media_protocol": "current"},
    "gen1": {"media_protocol": "legacy", "upload_form": "json"},
    "gen2": {"media_protocol": "legacy", "upload_form": "json", "legacy_media": "gen2"},
}
LEGACY_KEYS = {
    *("temporary", "modelName", "message", "fileAttachments", "imageAttachments"),
    *("disableSearch", "enableImageGeneration", "returnImageBytes", "returnRawGrokInXaiRequest"),
    *("enableImageStreaming", "imageGenerationCount", "forceConcise", "toolOverrides"),
    *("enableSideBySide", "sendFinalMetadata", "isReasoning", "disableTextFollowUps"),
    *("disableMemory", "forceSideBySide", "isAsyncChat", "responseMetadata"),
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as found:
        yield found


def request(folder: Path, images: int = 1, **fields: Any) -> EditRequest:
    files = tuple(stored(folder, f"{number}.png") for number in range(images))
    return EditRequest("make it blue", files, **fields)


@pytest.mark.parametrize("form", FORMS)
async def test_it_works(rig: Rig, tmp_path: Path, form: str) -> None:
    web = rig.web(**FORMS[form])
    events = await events_of(web.edit(request(tmp_path, 3, count=2), account("ok-1")))
    assert len(only(ImageReady, events)) == 2
    assert {type(event) for event in events} == {ImageProgress, ImageReady, Finished}
    assert rig.rules_broken() == []


async def test_the_current_form_has_exactly_six_keys(rig: Rig, tmp_path: Path) -> None:
    await events_of(rig.web().edit(request(tmp_path, 2, ratio="1:1"), account("ok-1")))
    (sent,) = rig.state.requests_to(CHAT)
    body = sent.json()
    inputs = body["mediaGenInput"]["imageToImage"].pop("inputAssets")
    assert len(set(inputs)) == 2
    assert all(file_id.startswith("file-meta-") for file_id in inputs)
    assert body == {
        "modelName": "imagine-image-edit",
        "message": "make it blue",
        "enableImageStreaming": True,
        "enableSideBySide": True,
        "sendFinalMetadata": True,
        "mediaGenInput": {"imageToImage": {"prompt": "make it blue", "aspectRatio": "1:1"}},
    }
    assert sent.headers["Referer"] == f"{rig.url}/imagine"


async def test_a_ratio_nobody_asked_for_is_not_sent(rig: Rig, tmp_path: Path) -> None:
    await events_of(rig.web().edit(request(tmp_path), account("ok-1")))
    (sent,) = rig.state.requests_to(CHAT)
    assert set(sent.json()["mediaGenInput"]["imageToImage"]) == {"prompt", "inputAssets"}


@pytest.mark.parametrize("form", ["gen1", "gen2"])
async def test_the_older_forms_refer_to_uploads_by_address(
    rig: Rig, tmp_path: Path, form: str
) -> None:
    web = rig.web(**FORMS[form])
    await events_of(web.edit(request(tmp_path, 2, ratio="1:1"), account("ok-1")))
    (sent,) = rig.state.requests_to(CHAT)
    body = sent.json()
    assert set(body) == LEGACY_KEYS
    details = body["responseMetadata"]
    config = details["modelConfigOverride"]["modelMap"]["imageEditModelConfig"]
    assert details["requestModelDetails"] == {"modelId": "imagine-image-edit"}
    urls = config["imageReferences"]
    assert all(url.startswith(f"{rig.url}/users/") for url in urls)
    posts = rig.state.requests_to(POST)
    if form == "gen1":
        assert posts == []
        assert set(config) == {"imageReferences"}
        assert sent.headers["Referer"] == f"{rig.url}/imagine"
        return
    assert posts[0].json() == {"mediaType": "MEDIA_POST_TYPE_IMAGE", "mediaUrl": urls[0]}
    assert set(config) == {"imageReferences", "parentPostId", "aspectRatio"}
    assert body["disableTextFollowUps"] is True
    assert sent.headers["Referer"] == f"{rig.url}/imagine/post/{config['parentPostId']}"


@pytest.mark.parametrize(("form", "most"), [("current", 8), ("gen1", 16), ("gen2", 7)])
async def test_more_pictures_than_the_form_takes_are_refused(
    rig: Rig, tmp_path: Path, form: str, most: int
) -> None:
    web = rig.web(**FORMS[form])
    await events_of(web.edit(request(tmp_path, most), account("ok-1")))
    rig.state.reset()
    for count in (0, most + 1):
        with pytest.raises(RequestRejected):
            await events_of(web.edit(request(tmp_path, count), account("ok-1")))
    assert list(rig.state.requests) == []


@pytest.mark.parametrize("form", FORMS)
async def test_half_a_character_is_refused(rig: Rig, tmp_path: Path, form: str) -> None:
    edit = EditRequest("\ud800", (stored(tmp_path),))
    with pytest.raises(RequestRejected):
        await events_of(rig.web(**FORMS[form]).edit(edit, account("ok-1")))
    assert rig.state.requests_to(CHAT) == []


FAILURES: list[tuple[str, type[UpstreamError], int]] = [
    ("expired", CredentialRejected, 1),
    ("blocked", CredentialRejected, 2),
    ("limited", QuotaExhausted, 5),
    ("midlimit", QuotaExhausted, 5),
    ("moderated", ContentRefused, 7),
    ("inband-moderated", ContentRefused, 7),
    ("badreq", RequestRejected, 8),
    ("challenge", SessionRejected, 9),
    ("html", SessionRejected, 9),
    ("error500", UpstreamFailed, 12),
    ("inband-error", UpstreamFailed, 12),
    ("failed", UpstreamFailed, 12),
    ("reset", NetworkFailed, 13),
    ("hang", UpstreamTimeout, 13),
    ("silent", UpstreamTimeout, 13),
    ("cut", ImagesIncomplete, 14),
    ("cutclean", ImagesIncomplete, 14),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("behaviour", "expected", "row"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_every_failure_has_its_row_and_is_not_tried_in_another_form(
    rig: Rig,
    tmp_path: Path,
    form: str,
    behaviour: str,
    expected: type[UpstreamError],
    row: int,
) -> None:
    web = rig.web(**FORMS[form] | {"timeout": patience(behaviour)})
    _, error = await outcome(web.edit(request(tmp_path), account(f"{behaviour}-1")))
    assert isinstance(error, expected)
    assert error.row == row
    assert len(rig.state.requests_to(CHAT)) <= 1


async def test_the_wrong_generation_is_refused_once(tmp_path: Path) -> None:
    async with running(media_protocol="legacy") as rig:
        with pytest.raises(RequestRejected):
            await events_of(rig.web().edit(request(tmp_path), account("ok-1")))
        assert len(rig.state.requests_to(CHAT)) == 1


async def test_a_cancelled_edit_closes_its_connection(rig: Rig, tmp_path: Path) -> None:
    batches = rig.web().edit(request(tmp_path), account("hang-1"))
    waiting = asyncio.ensure_future(anext(batches))
    await until(lambda: len(rig.state.requests_to(CHAT)) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await rig.left(CHAT)
