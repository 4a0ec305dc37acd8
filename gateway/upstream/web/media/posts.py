"""Media posts: what the older videos and edits hang on (upstream-web 9.1)."""

from __future__ import annotations

import re

from gateway.upstream.errors import UpstreamFailed
from gateway.upstream.requests import Account
from gateway.upstream.web.calls import WebCalls
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.media import payloads

POST_PATH = "/rest/media/post/create"
POST_TIMEOUT = 60.0
_POST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


async def create_post(
    calls: WebCalls, profile: Profile, account: Account, *, prompt: str = "", media_url: str = ""
) -> str:
    """The id of a new post, of the picture at ``media_url`` or of a video to be made."""
    reply = await calls.call(
        profile,
        "POST",
        POST_PATH,
        headers=profile.media_json(account, calls.new_uuid()),
        content=payloads.post_body(prompt=prompt, media_url=media_url),
        timeout=POST_TIMEOUT,
    )
    post = reply.get("post")
    post_id = post.get("id") if isinstance(post, dict) else None
    if not isinstance(post_id, str) or not _POST_ID.fullmatch(post_id):
        raise UpstreamFailed(row=12, evidence="a media post without an id")
    return post_id
