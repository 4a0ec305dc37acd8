"""grok.com as an upstream: chat over REST or WebSocket, uploads, quota, identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
from pydantic_core import from_json

from gateway.upstream.errors import (
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
    UpstreamTimeout,
)
from gateway.upstream.events import Event
from gateway.upstream.http import MAX_ERROR_BODY, Http, read_up_to, reads
from gateway.upstream.requests import Account, FetchedFile, WebTarget
from gateway.upstream.taxonomy import classify_web
from gateway.upstream.web import payloads, quota, session, uploads
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.mgw_frames import MgwDecoder
from gateway.upstream.web.quota import QuotaReading
from gateway.upstream.web.session import Identity, is_uuid
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.web.socket import OPEN_TIMEOUT, MgwSocket, SocketOptions, open_socket
from gateway.upstream.web.uploads import upload_all

CHAT_PATH = "/rest/app-chat/conversations/new"
QUOTA_TIMEOUT = 25.0
SESSION_TIMEOUT = 15.0
UPLOAD_TIMEOUT = 60.0
MAX_REPLY = 2 * 1024 * 1024
TAIL_TIMEOUT = 15.0
"""Seconds of silence a complete answer bears for what may follow it (upstream-web 2.7)."""

Batches = AsyncGenerator[list[Event], None]


class WebUpstream:
    """Speaks to grok.com with one account at a time; raises UpstreamError only.

    ``now_ms`` is Unix time in milliseconds, ``new_uuid`` a fresh UUIDv4 as text.
    """

    def __init__(
        self,
        http: Callable[[], Http],
        settings: Callable[[], WebSettings],
        *,
        now_ms: Callable[[], int],
        new_uuid: Callable[[], str],
    ) -> None:
        self._http = http
        self._settings = settings
        self._now_ms = now_ms
        self._new_uuid = new_uuid
        self._last_profile = Profile(WebSettings())

    def chat(
        self, prompt: str, files: Sequence[FetchedFile], target: WebTarget, account: Account
    ) -> Batches:
        """The answer to a flattened conversation, one batch of events per network read.

        ``files`` are uploaded first, with the same account. Closing the generator closes
        the connection at once.
        """
        profile = self._profile()
        if profile.settings.chat_protocol == "mgw":
            return self._chat_mgw(profile, prompt, files, target, account)
        return self._chat_rest(profile, prompt, files, target, account)

    async def rate_limit(self, account: Account, model_or_mode: str) -> QuotaReading:
        """What is left of one mode (Gen 2, 3) or model name (Gen 1), upstream-web 6.1."""
        profile = self._profile()
        settings = profile.settings
        by_mode = settings.chat_protocol == "mgw" or settings.rest_form == "mode_id"
        reply = await self._call(
            profile,
            "POST",
            quota.RATE_LIMITS_PATH,
            headers=profile.json(account, self._new_uuid()),
            content=quota.rate_limit_body(model_or_mode, by_mode=by_mode),
            timeout=QUOTA_TIMEOUT,
        )
        return quota.parse_rate_limit(reply, self._now())

    async def media_quota(self, account: Account) -> dict[str, QuotaReading | None]:
        """What is left of each media bucket, upstream-web 6.3."""
        profile = self._profile()
        reply = await self._call(
            profile,
            "POST",
            quota.MEDIA_QUOTA_PATH,
            headers=profile.media_json(account, self._new_uuid()),
            content=b"{}",
            timeout=QUOTA_TIMEOUT,
        )
        return quota.parse_media_quota(reply, self._now())

    async def identify(self, account: Account) -> Identity:
        """Ask whose session it is and write ``account.user_id``, upstream-web 1.7.

        Raises CredentialRejected for a session that is dead or blocked.
        """
        profile = self._profile()
        reply = await self._call(
            profile,
            "GET",
            session.SESSION_PATH,
            headers=profile.bare(account),
            timeout=SESSION_TIMEOUT,
        )
        identity = session.parse_identity(reply)
        if identity.user_id:
            account.user_id = identity.user_id
        return identity

    def _profile(self) -> Profile:
        settings = self._settings()
        if settings is not self._last_profile.settings:
            self._last_profile = Profile(settings)
        return self._last_profile

    def _now(self) -> float:
        return self._now_ms() / 1000

    async def _chat_rest(
        self,
        profile: Profile,
        prompt: str,
        files: Sequence[FetchedFile],
        target: WebTarget,
        account: Account,
    ) -> Batches:
        settings = profile.settings
        file_ids = await self._upload(profile, files, account) if files else ()
        decoder = RestDecoder(settings.filter_tags, settings.assets_url)
        async with self._http().stream(
            "POST",
            profile.url(CHAT_PATH),
            headers=profile.json(account, self._new_uuid()),
            content=payloads.rest_body(prompt, file_ids, target, settings),
            timeouts=settings.timeouts(),
        ) as response:
            if not response.is_success:
                body = await read_up_to(response, MAX_ERROR_BODY)
                raise self._classify(response, body)
            async with aclosing(reads(response)) as chunks:
                chunk = await anext(chunks, None)
                _refuse_html(response, chunk or b"")
                while chunk is not None:
                    if events := decoder.feed(chunk):
                        yield events
                    if decoder.pending is not None:
                        raise decoder.pending
                    chunk = await _next(chunks, decoder)
            if events := decoder.finish():
                yield events

    async def _chat_mgw(
        self,
        profile: Profile,
        prompt: str,
        files: Sequence[FetchedFile],
        target: WebTarget,
        account: Account,
    ) -> Batches:
        settings = profile.settings
        user_id = await self._uuid_of(account)
        file_ids = await self._upload(profile, files, account) if files else ()
        event_id = f"evt_init_{self._new_uuid()}"
        decoder = MgwDecoder(event_id, settings.filter_tags, settings.assets_url)
        async with open_socket(_socket_options(profile, account, user_id), self._now_ms) as socket:
            await socket.send(payloads.session_frame(event_id, target.mode, settings))
            asked = False
            while not decoder.done and (frames := await socket.read()):
                events, failure = _feed(decoder, frames)
                if events:
                    yield events
                if failure is not None:
                    raise failure
                if decoder.ready and not asked:
                    asked = True
                    await self._ask(socket, decoder.session_id, prompt, file_ids)
            if events := decoder.finish():
                yield events

    async def _ask(
        self, socket: MgwSocket, session_id: str, prompt: str, file_ids: Sequence[str]
    ) -> None:
        now_ms = self._now_ms()
        await socket.send(
            payloads.message_frame(session_id, now_ms, self._new_uuid(), prompt, file_ids),
            payloads.response_frame(session_id, now_ms),
        )

    async def _uuid_of(self, account: Account) -> str:
        """The account's UUID, looked up only when it is not known yet."""
        if not is_uuid(account.user_id or ""):
            await self.identify(account)
        user_id = account.user_id or ""
        if not is_uuid(user_id):
            raise UpstreamFailed(row=12, evidence="the account id is not a UUID")
        return user_id

    async def _upload(
        self, profile: Profile, files: Sequence[FetchedFile], account: Account
    ) -> list[str]:
        upload_one = self._upload_v2 if profile.settings.upload_form == "v2" else self._upload_json
        return await upload_all(files, lambda file: upload_one(profile, account, file))

    async def _upload_v2(self, profile: Profile, account: Account, file: FetchedFile) -> str:
        boundary = f"form-{self._new_uuid()}"
        content_type, content = uploads.multipart_body(file, boundary)
        reply = await self._call(
            profile,
            "POST",
            uploads.MULTIPART_PATH,
            headers=profile.upload(account, content_type),
            content=content,
            timeout=UPLOAD_TIMEOUT,
        )
        return uploads.reference_id(reply)

    async def _upload_json(self, profile: Profile, account: Account, file: FetchedFile) -> str:
        reply = await self._call(
            profile,
            "POST",
            uploads.JSON_PATH,
            headers=profile.json(account, self._new_uuid()),
            content=uploads.json_body(file),
            timeout=UPLOAD_TIMEOUT,
        )
        return uploads.reference_id(reply)

    async def _call(
        self,
        profile: Profile,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        timeout: float,  # noqa: ASYNC109 - handed to the transport, which is what times it
    ) -> dict[str, Any]:
        """One short exchange that answers with a JSON object."""
        response, body = await self._http().send(
            method,
            profile.url(path),
            headers=headers,
            content=content,
            timeouts=profile.settings.timeouts(at_most=timeout),
            limit=MAX_REPLY,
        )
        if not response.is_success:
            raise self._classify(response, body[:MAX_ERROR_BODY])
        _refuse_html(response, body)
        return _json_object(body)

    def _classify(self, response: httpx.Response, body: bytes) -> UpstreamError:
        return classify_web(response.status_code, body, headers=response.headers, now=self._now())


async def _next(chunks: AsyncGenerator[bytes, None], decoder: RestDecoder) -> bytes | None:
    """The next read, or None at the end.

    Once the answer is complete, neither a break nor silence can spoil it.
    """
    if not decoder.complete:
        return await anext(chunks, None)
    with suppress(TimeoutError, UpstreamTimeout, UpstreamIncomplete):
        async with asyncio.timeout(TAIL_TIMEOUT):
            return await anext(chunks, None)
    return None


def _feed(decoder: MgwDecoder, frames: Sequence[str]) -> tuple[list[Event], UpstreamError | None]:
    """The events of ``frames`` up to the first failure, and that failure."""
    events: list[Event] = []
    for frame in frames:
        try:
            events += decoder.feed(frame)
        except UpstreamError as error:
            return events, error
    return events, None


def _refuse_html(response: httpx.Response, body: bytes) -> None:
    """A page instead of data: the browser session is not accepted (row 9)."""
    if response.headers.get("content-type", "").startswith("text/html") or (
        body.lstrip()[:1] == b"<"
    ):
        raise SessionRejected(row=9, upstream_status=response.status_code, evidence="html")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body)
    except ValueError as error:
        raise UpstreamFailed(row=12, evidence="the reply is not JSON") from error
    if not isinstance(value, dict):
        raise UpstreamFailed(row=12, evidence="the reply is not a JSON object")
    return value


def _socket_options(profile: Profile, account: Account, user_id: str) -> SocketOptions:
    return SocketOptions(
        url=profile.mgw_url(user_id),
        origin=profile.base_url,
        headers={"Cookie": profile.cookie(account, user_id)},
        user_agent=profile.user_agent or None,
        proxy_url=profile.settings.proxy_url or None,
        idle_timeout=profile.settings.timeout,
        open_timeout=min(OPEN_TIMEOUT, profile.settings.timeout),
    )
