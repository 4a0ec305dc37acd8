"""Finished media under names and addresses of ours, and what may go wrong with them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.media.checks import check
from gateway.media.formats import PICTURES
from gateway.media.links import LinkPolicy, MediaLinks
from gateway.media.part_file import PartFile
from gateway.media.store import MediaStore
from gateway.relay.hosting import LOST_PICTURE, Hosting, MediaSource, stored_file
from gateway.upstream.downloads import Download, MediaKind
from gateway.upstream.errors import Effect, PostprocessingFailed
from gateway.upstream.events import Event, Finished, ImageReady, Text, VideoReady
from gateway.upstream.requests import Account
from pool.leases import Lane, Lease
from tests.gateway.media import samples

OWNER = Account("sso-of-the-owner", "u-1")
WEB = MediaSource("web", OWNER)
API = MediaSource("api", Account("xai-key"))
ASSET = "https://assets.grok.com/users/u-1/generated/img-1/image.jpg"
DATA = base64.b64encode(samples.JPEG).decode()


@dataclass
class Upstream:
    """Both upstreams' downloads: what they hold, and who asked for it."""

    content: bytes = samples.JPEG
    failure: PostprocessingFailed | None = None
    asked: list[tuple[str, ...]] = field(default_factory=list)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_go_on.set()

    @asynccontextmanager
    async def _open(self, *asked: str) -> AsyncIterator[Download]:
        self.asked.append(asked)
        if self.failure:
            raise self.failure
        yield Download("image/jpeg", len(self.content), self._chunks())

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        await self.may_go_on.wait()
        yield self.content[:100]
        yield self.content[100:]


class Web(Upstream):
    def download(self, url: str, account: Account, kind: MediaKind) -> Any:
        return self._open(url, account.secret, kind)


class Api(Upstream):
    def download(self, url: str, kind: MediaKind) -> Any:
        return self._open(url, kind)


@dataclass
class Rig:
    hosting: Hosting
    web: Web
    api: Api
    root: Path
    keeps: bool = True

    def files(self) -> list[str]:
        found = [path for path in self.root.rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(self.root)) for path in found)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    store = MediaStore(tmp_path, reserve=0)
    policy = LinkPolicy("https://pictures.example", signed=True, lifetime=3600)
    links = MediaLinks(b"k" * 32, lambda: policy, now=lambda: 1_000_000.0)
    web, api = Web(), Api()
    found = Rig(
        Hosting(store, links, web, api, keep_inline=lambda: found.keeps), web, api, tmp_path
    )
    yield found
    await store.aclose()


async def test_a_picture_is_fetched_with_its_owners_account(rig: Rig) -> None:
    kept = await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)

    assert rig.web.asked == [(ASSET, "sso-of-the-owner", "image")]
    assert kept.name == "users-u-1-generated-img-1-image.jpg"
    assert kept.url.startswith(f"https://pictures.example/v1/files/image/{kept.name}?exp=")
    assert await kept.read() == samples.JPEG
    assert (kept.mime, kept.size) == ("image/jpeg", len(samples.JPEG))


async def test_what_api_x_ai_made_is_fetched_without_any(rig: Rig) -> None:
    url = "https://imgen.x.ai/users/u-1/generated/img-1/image.jpg"
    kept = await rig.hosting.keep_image(ImageReady(0, url), API)

    assert rig.api.asked == [(url, "image")]
    assert kept.name == "xai-users-u-1-generated-img-1-image.jpg"


async def test_the_same_path_with_another_query_is_another_picture_there(rig: Rig) -> None:
    one = await rig.hosting.keep_url("image", "https://imgen.x.ai/image.jpg?id=1", API)
    other = await rig.hosting.keep_url("image", "https://imgen.x.ai/image.jpg?id=2", API)

    assert one.name != other.name
    assert len(rig.api.asked) == 2


@pytest.mark.parametrize("url", ["", ASSET.replace("img-1", "img-2")])
async def test_what_came_as_base64_is_not_fetched(rig: Rig, url: str) -> None:
    kept = await rig.hosting.keep_image(ImageReady(0, url, DATA), WEB)

    assert rig.web.asked == []
    assert await kept.read() == samples.JPEG
    assert kept.name.startswith("users-u-1-generated-img-2" if url else "image-")


async def test_the_extension_follows_the_content(rig: Rig) -> None:
    rig.web.content = samples.PNG
    kept = await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)

    assert kept.name.endswith("image.png")
    assert kept.mime == "image/png"


async def test_many_who_ask_at_once_share_one_download(rig: Rig) -> None:
    rig.web.may_go_on.clear()
    tasks = [
        asyncio.create_task(rig.hosting.keep_image(ImageReady(0, ASSET), WEB)) for _ in range(8)
    ]
    while not rig.web.asked:  # noqa: ASYNC110 - there is nothing to wait on
        await asyncio.sleep(0)
    rig.web.may_go_on.set()

    assert len({kept.name for kept in await asyncio.gather(*tasks)}) == 1
    assert len(rig.web.asked) == 1
    await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)
    assert len(rig.web.asked) == 1


async def test_a_video_and_its_poster(rig: Rig) -> None:
    rig.web.content = samples.MP4
    video = VideoReady("https://assets.grok.com/users/u-1/generated/v/video.mp4")
    kept = await rig.hosting.keep_video(video, WEB)

    assert (kept.kind, kept.name) == ("video", "users-u-1-generated-v-video.mp4")
    assert await kept.read() == samples.MP4
    poster = "https://assets.grok.com/users/u-1/generated/v/poster.jpg"
    rig.web.failure = PostprocessingFailed(row=15)
    hosted = await rig.hosting.hosted_video(VideoReady(video.url, poster, "720p", "v"), WEB)
    assert hosted == VideoReady(kept.url, "", "720p", "v")


@pytest.mark.parametrize(
    "content", [b"<html>error</html>" * 20, samples.JPEG[:-50], samples.MP4, b"", samples.PNG[:30]]
)
async def test_what_is_no_picture_is_row_15_and_leaves_nothing(rig: Rig, content: bytes) -> None:
    rig.web.content = content
    with pytest.raises(PostprocessingFailed) as caught:
        await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)

    assert caught.value.row == 15
    assert caught.value.effect is Effect.NONE
    assert caught.value.code == "media_postprocessing_failed"
    assert rig.files() == []


@pytest.mark.parametrize(
    "ready", [ImageReady(0, ""), ImageReady(0, "https://assets.grok.com/"), ImageReady(0, "", "@")]
)
async def test_a_picture_that_is_nowhere_is_row_15(rig: Rig, ready: ImageReady) -> None:
    with pytest.raises(PostprocessingFailed):
        await rig.hosting.keep_image(ready, WEB)


async def test_a_failed_download_is_tried_again_the_next_time(rig: Rig) -> None:
    rig.web.failure = PostprocessingFailed(row=15, evidence="status 403")
    with pytest.raises(PostprocessingFailed, match="could not be fetched"):
        await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)
    rig.web.failure = None

    kept = await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)
    assert kept.size == len(samples.JPEG)


async def test_a_kept_file_that_was_cleaned_is_row_15(rig: Rig) -> None:
    kept = await rig.hosting.keep_image(ImageReady(0, ASSET), WEB)
    (rig.root / "image" / kept.name).unlink()

    with pytest.raises(PostprocessingFailed):
        await kept.read()


@given(st.text(max_size=300), st.sampled_from([WEB, API]))
@settings(max_examples=60, deadline=None)
def test_no_address_leads_out_of_the_cache(
    tmp_path_factory: pytest.TempPathFactory, path: str, source: MediaSource
) -> None:
    root = tmp_path_factory.mktemp("cache")

    async def keep() -> None:
        store = MediaStore(root / "tmp", reserve=0)
        policy = LinkPolicy("", signed=False, lifetime=0)
        hosting = Hosting(store, MediaLinks(b"k" * 32, lambda: policy), Web(), Api())
        try:
            await hosting.keep_url("image", f"https://assets.grok.com/{path}", source)
        except (PostprocessingFailed, ValueError):
            return
        finally:
            await store.aclose()

    asyncio.run(keep())
    found = [path for path in root.rglob("*") if path.is_file()]
    assert all(path.parent == root / "tmp" / "image" for path in found)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("ready", [ImageReady(0, ASSET), ImageReady(0, ASSET, DATA)])
async def test_base64_is_kept_if_the_operator_wants_that(
    rig: Rig, ready: ImageReady, keeps: bool
) -> None:
    rig.keeps = keeps

    assert await rig.hosting.encoded(ready, WEB) == DATA
    assert len(rig.files()) == (1 if keeps else 0)


async def test_base64_that_is_here_survives_a_disk_that_refuses(rig: Rig) -> None:
    (rig.root / "image").write_bytes(b"in the way")

    assert await rig.hosting.encoded(ImageReady(0, ASSET, DATA), WEB) == DATA
    with pytest.raises(PostprocessingFailed, match="could not be stored"):
        await rig.hosting.encoded(ImageReady(0, ASSET), WEB)


async def test_previews_are_best_effort(rig: Rig) -> None:
    assert await rig.hosting.preview(ASSET, WEB) == DATA
    rig.web.failure = PostprocessingFailed(row=15)
    assert await rig.hosting.preview(ASSET, WEB) == ""
    assert rig.files() == []


async def batches(*given: list[Event]) -> AsyncGenerator[list[Event], None]:
    for batch in given:
        yield batch


@pytest.mark.parametrize("inline", [True, False])
async def test_the_pictures_of_an_answer_leave_with_our_addresses(rig: Rig, inline: bool) -> None:
    answer = batches([Text("Here: "), ImageReady(0, ASSET, revised_prompt="a cat")], [Finished()])
    (text, picture), end = [b async for b in rig.hosting.rehosted(answer, WEB, inline=inline)]

    assert text == Text("Here: ")
    assert isinstance(picture, ImageReady)
    assert picture.revised_prompt == "a cat"
    assert picture.mime_type == "image/jpeg"
    assert picture.data == (DATA if inline else "")
    assert picture.url.startswith("https://pictures.example/") is not inline
    assert end == [Finished()]


async def test_a_picture_that_cannot_be_had_does_not_break_the_answer(rig: Rig) -> None:
    rig.web.failure = PostprocessingFailed(row=15)
    answer = batches([Text("Here: "), ImageReady(0, ASSET)], [Text("and more"), Finished()])
    found = [event async for batch in rig.hosting.rehosted(answer, WEB) for event in batch]

    assert found == [Text("Here: "), Text(LOST_PICTURE), Text("and more"), Finished()]


async def test_closing_a_rehosted_answer_closes_what_it_comes_from(rig: Rig) -> None:
    answer = batches([Text("a")], [Text("b")])
    rehosted = rig.hosting.rehosted(answer, WEB)
    await anext(rehosted)

    await rehosted.aclose()

    with pytest.raises(StopAsyncIteration):
        await anext(answer)


def test_the_source_is_the_leases(rig: Rig) -> None:
    def lease(kind: str) -> Lease:
        return Lease(1, 1, Lane(kind, "fast"), "grok-4", "secret", "", "", "cret")

    web, api = MediaSource.of(lease("ssoSuper")), MediaSource.of(lease("api"))
    assert (web.upstream, web.account.secret, web.account.user_id) == ("web", "secret", None)
    assert api.upstream == "api"


async def test_a_part_is_read_where_it_lies(rig: Rig) -> None:
    part: PartFile = rig.hosting.store.part(1 << 20)
    part.write(samples.PNG)
    stored = stored_file(part, check(part.file, PICTURES), "cat.png")
    os.lseek(part.file.fileno(), 0, os.SEEK_END)

    assert stored.path.read_bytes() == samples.PNG
    assert (stored.size, stored.mime_type) == (len(samples.PNG), "image/png")
    await rig.hosting.store.discard(part)
    assert rig.files() == []
