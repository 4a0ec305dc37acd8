"""The media side of grok.com as one object: pictures, videos, assets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

from gateway.upstream.downloads import Download, MediaKind
from gateway.upstream.requests import Account, EditRequest, ImageRequest, VideoRequest
from gateway.upstream.web.calls import Batches, WebCalls
from gateway.upstream.web.media import assets, edits, imagine, videos
from gateway.upstream.web.media.assets import AssetPage, Assets, Deletion
from gateway.upstream.web.media.imagine import ImagineSession


class WebMedia:
    """What grok.com does with pictures and videos, one account at a time.

    Generators yield batches of events that end with Finished; closing one closes its
    connection at once. Raises UpstreamError only.
    """

    def __init__(self, calls: WebCalls) -> None:
        self._calls = calls

    def imagine(self, request: ImageRequest, account: Account) -> Batches:
        """The pictures of one prompt from the picture socket (upstream-web 8).

        Yields and raises what ``ImagineSession.round`` does.
        """
        return imagine.draw_once(self._calls, request, account)

    def imagine_session(self, account: Account) -> AbstractAsyncContextManager[ImagineSession]:
        """A picture socket for many rounds."""
        return imagine.open_imagine(self._calls, account)

    def edit(self, request: EditRequest, account: Account) -> Batches:
        """Pictures made from pictures (7.3, 7.4), at most two a call.

        Yields and raises what ``WebUpstream.draw`` does; RequestRejected for more inputs
        than the protocol takes.
        """
        return edits.edit(self._calls, request, account)

    def video(self, request: VideoRequest, account: Account) -> Batches:
        """One video (9). An error with ``maybe_accepted`` forbids another submission.

        Yields VideoProgress, VideoReady and Finished.
        """
        return videos.make_video(self._calls, request, account)

    async def upscale(self, video_id: str, account: Account) -> str:
        """The address of a video's 720p twin (9.5); ``video_id`` is VideoReady's."""
        return await videos.upscale(self._calls, video_id, account)

    async def assets(self, account: Account, token: str = "") -> AssetPage:
        """One page of the account's assets (10); ``token`` is the page before's."""
        return await Assets(self._calls, account).page(token)

    async def count_assets(self, account: Account) -> int:
        """How many assets the account has."""
        return await Assets(self._calls, account).count()

    async def delete_asset(self, asset_id: str, account: Account) -> bool:
        """Delete one asset; False when it was gone already."""
        return await Assets(self._calls, account).delete(asset_id)

    def delete_all_assets(
        self, account: Account, *, at_once: int = 10
    ) -> AsyncGenerator[Deletion, None]:
        """Delete every asset of the account, with progress; see ``Assets.delete_all``."""
        return Assets(self._calls, account).delete_all(at_once)

    def download(
        self, url: str, account: Account, kind: MediaKind
    ) -> AbstractAsyncContextManager[Download]:
        """The bytes of a generated picture or video, checked; ``url`` may be a path.

        Raises PostprocessingFailed only, from here, on entering and from its chunks.
        """
        return assets.download(self._calls, url, account, kind)
