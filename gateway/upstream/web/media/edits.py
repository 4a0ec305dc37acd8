"""Pictures made from pictures (upstream-web 7.3, 7.4)."""

from __future__ import annotations

from contextlib import aclosing

from gateway.upstream.errors import RequestRejected, UpstreamFailed
from gateway.upstream.requests import Account, EditRequest
from gateway.upstream.web.calls import Batches, WebCalls
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.media import drawing, payloads
from gateway.upstream.web.media.inputs import upload_inputs
from gateway.upstream.web.media.posts import create_post
from gateway.upstream.web.settings import WebSettings

MAX_INPUTS = 8
MAX_LEGACY_INPUTS = 16
MAX_POSTED_INPUTS = 7


def max_inputs(settings: WebSettings) -> int:
    """How many pictures one edit may start from."""
    if settings.media_protocol == "current":
        return MAX_INPUTS
    return MAX_POSTED_INPUTS if settings.legacy_media == "gen2" else MAX_LEGACY_INPUTS


async def edit(calls: WebCalls, request: EditRequest, account: Account) -> Batches:
    """The edited pictures, at most two a call, after the uploads with the same account.

    Submitted once and in one form: a refusal is not tried again in an older one.
    """
    profile = calls.profile()
    if not 1 <= len(request.images) <= max_inputs(profile.settings):
        most = max_inputs(profile.settings)
        raise RequestRejected(f"The upstream edits from 1 to {most} pictures.", row=8)
    page, body = await _prepare(calls, profile, request, account)
    answer = calls.converse(
        profile,
        profile.media_json(account, calls.new_uuid(), page),
        body,
        profile.settings.timeouts(),
        RestDecoder(profile.settings.filter_tags, profile.settings.assets_url),
    )
    wanted = min(request.count, drawing.PER_CALL)
    async with aclosing(drawing.pictures(answer, wanted)) as batches:
        async for batch in batches:
            yield batch


async def _prepare(
    calls: WebCalls, profile: Profile, request: EditRequest, account: Account
) -> tuple[str, bytes]:
    """The page an edit comes from, and its body."""
    inputs = await upload_inputs(calls, profile, request.images, account)
    settings = profile.settings
    if settings.media_protocol == "current":
        return "/imagine", payloads.edit_body(request, [one.file_id for one in inputs])
    urls = [one.url for one in inputs]
    if not all(urls):
        raise UpstreamFailed(row=12, evidence="upload reply without an address")
    post_id = ""
    if settings.legacy_media == "gen2":
        post_id = await create_post(calls, profile, account, media_url=urls[0])
    page = f"/imagine/post/{post_id}" if post_id else "/imagine"
    return page, payloads.legacy_edit_body(request, urls, post_id, settings)
