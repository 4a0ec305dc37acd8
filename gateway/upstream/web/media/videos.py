"""Videos (upstream-web 9): submitted at most once, ended by their address."""

from __future__ import annotations

from contextlib import aclosing

from gateway.upstream.acceptance import submitted
from gateway.upstream.errors import RequestRejected, UpstreamFailed, UpstreamIncomplete
from gateway.upstream.events import Event, Finished, VideoProgress, VideoReady
from gateway.upstream.requests import Account, VideoRequest
from gateway.upstream.web.calls import Batches, WebCalls
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.links import asset_url
from gateway.upstream.web.media import payloads
from gateway.upstream.web.media.inputs import upload_inputs
from gateway.upstream.web.media.posts import create_post

UPSCALE_PATH = "/rest/media/video/upscale"
RATIOS = frozenset({"1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"})
RESOLUTIONS = frozenset({"480p", "720p"})
LONGEST = 15


async def make_video(calls: WebCalls, request: VideoRequest, account: Account) -> Batches:
    """VideoProgress, VideoReady and Finished of one video.

    Errors of the submission itself carry ``maybe_accepted``; what goes wrong before it
    (uploads, media posts) does not. Raises ContentRefused for a moderated video,
    UpstreamIncomplete for one that never got an address.
    """
    profile = calls.profile()
    settings = profile.settings
    _check(request)
    body = await _prepare(calls, profile, request, account)
    decoder = RestDecoder(settings.filter_tags, settings.assets_url)
    answer = calls.converse(
        profile,
        profile.media_json(account, calls.new_uuid()),
        body,
        settings.timeouts(silence=settings.video_timeout),
        decoder,
    )
    with submitted(lambda: decoder.begun):
        async with aclosing(answer):
            async for batch in answer:
                events = _video_events(batch)
                if events:
                    yield events
                if events and isinstance(events[-1], Finished):
                    return
        raise UpstreamIncomplete(row=14, evidence="no video address")


async def upscale(calls: WebCalls, video_id: str, account: Account) -> str:
    """The address of the same video in 720p, made by upstream (9.5)."""
    profile = calls.profile()
    reply = await calls.call(
        profile,
        "POST",
        UPSCALE_PATH,
        headers=profile.media_json(account, calls.new_uuid()),
        content=payloads.encode({"videoId": video_id}),
        timeout=profile.settings.timeout,
    )
    url = asset_url(reply.get("hdMediaUrl"), profile.settings.assets_url)
    if not url:
        raise UpstreamFailed(row=12, evidence="an upscale without an address")
    return url


def _check(request: VideoRequest) -> None:
    if request.ratio not in RATIOS:
        raise RequestRejected("The upstream makes no video in this aspect ratio.", row=8)
    if request.resolution not in RESOLUTIONS:
        raise RequestRejected("The upstream makes no video in this resolution.", row=8)
    if not 1 <= request.seconds <= LONGEST:
        raise RequestRejected(f"The upstream makes videos of 1 to {LONGEST} seconds.", row=8)


async def _prepare(
    calls: WebCalls, profile: Profile, request: VideoRequest, account: Account
) -> bytes:
    """The body to submit, after what has to exist before it."""
    settings = profile.settings
    current = settings.media_protocol == "current"
    if current and request.image is None:
        return payloads.video_body(request)
    if current and not settings.legacy_image_to_video:
        raise RequestRejected("The upstream makes no video from a picture.", row=8)
    url = await _first_frame(calls, profile, request, account)
    post_id = await create_post(calls, profile, account, prompt=request.prompt, media_url=url)
    if current or settings.legacy_media == "gen2":
        return payloads.gen2_video_body(request, post_id, url, settings)
    return payloads.gen1_video_body(request, post_id, settings)


async def _first_frame(
    calls: WebCalls, profile: Profile, request: VideoRequest, account: Account
) -> str:
    """The address of the uploaded first frame, empty where there is none."""
    if request.image is None:
        return ""
    uploaded = await upload_inputs(calls, profile, (request.image,), account)
    if not uploaded[0].url:
        raise UpstreamFailed(row=12, evidence="upload reply without an address")
    return uploaded[0].url


def _video_events(batch: list[Event]) -> list[Event]:
    """Of one batch what is the video's, ended as soon as its address is known."""
    events: list[Event] = []
    for event in batch:
        if isinstance(event, VideoProgress):
            events.append(event)
        elif isinstance(event, VideoReady):
            return [*events, event, Finished()]
    return events
