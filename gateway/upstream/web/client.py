"""grok.com as an upstream: chat over REST or WebSocket, uploads, quota, identity, media."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from gateway.upstream.errors import UpstreamError, UpstreamFailed
from gateway.upstream.events import Event
from gateway.upstream.http import Http
from gateway.upstream.requests import Account, FetchedFile, ImageRequest, WebTarget
from gateway.upstream.web import payloads, quota, session, uploads
from gateway.upstream.web.calls import Batches, Seams, WebCalls
from gateway.upstream.web.frames import RestDecoder
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.media import drawing
from gateway.upstream.web.media.client import WebMedia
from gateway.upstream.web.mgw_frames import MgwDecoder
from gateway.upstream.web.quota import QuotaReading
from gateway.upstream.web.session import Identity, is_uuid
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.web.socket import OPEN_TIMEOUT, SocketOptions, WebSocket, open_socket
from gateway.upstream.web.uploads import upload_all

QUOTA_TIMEOUT = 25.0
SESSION_TIMEOUT = 15.0
UPLOAD_TIMEOUT = 60.0


class WebUpstream(WebMedia):
    """Speaks to grok.com with one account at a time; raises UpstreamError only.

    ``now_ms`` is Unix time in milliseconds, ``new_uuid`` a fresh UUIDv4 as text. Assets
    come over ``asset_http`` where that is given, since they may have a proxy of their own.
    """

    def __init__(
        self,
        http: Callable[[], Http],
        settings: Callable[[], WebSettings],
        *,
        now_ms: Callable[[], int],
        new_uuid: Callable[[], str],
        asset_http: Callable[[], Http] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        seams = Seams(http, asset_http or http, settings, now_ms, new_uuid, sleep)
        self._calls = WebCalls(seams)
        super().__init__(self._calls)

    def chat(
        self, prompt: str, files: Sequence[FetchedFile], target: WebTarget, account: Account
    ) -> Batches:
        """The answer to a flattened conversation, one batch of events per network read.

        ``files`` are uploaded first, with the same account. Closing the generator closes
        the connection at once.
        """
        profile = self._calls.profile()
        if profile.settings.chat_protocol == "mgw":
            return self._chat_mgw(profile, prompt, files, target, account)
        return self._chat_rest(profile, prompt, files, target, account)

    def draw(
        self, request: ImageRequest, account: Account, target: WebTarget = drawing.TARGET
    ) -> Batches:
        """Pictures by way of chat (upstream-web 7.1): at most two a call.

        Yields ImageProgress, ImageReady and Finished only. Raises ImagesIncomplete where
        no picture came, ContentRefused where moderation left none.
        """
        settings = self._calls.profile().settings
        chat = self.chat(drawing.message(request.prompt, settings), (), target, account)
        return drawing.pictures(chat, min(request.count, drawing.PER_CALL))

    async def rate_limit(self, account: Account, model_or_mode: str) -> QuotaReading:
        """What is left of one mode (Gen 2, 3) or model name (Gen 1), upstream-web 6.1."""
        profile = self._calls.profile()
        settings = profile.settings
        by_mode = settings.chat_protocol == "mgw" or settings.rest_form == "mode_id"
        reply = await self._calls.call(
            profile,
            "POST",
            quota.RATE_LIMITS_PATH,
            headers=profile.json(account, self._calls.new_uuid()),
            content=quota.rate_limit_body(model_or_mode, by_mode=by_mode),
            timeout=QUOTA_TIMEOUT,
        )
        return quota.parse_rate_limit(reply, self._calls.now())

    async def media_quota(self, account: Account) -> dict[str, QuotaReading | None]:
        """What is left of each media bucket, upstream-web 6.3."""
        profile = self._calls.profile()
        reply = await self._calls.call(
            profile,
            "POST",
            quota.MEDIA_QUOTA_PATH,
            headers=profile.media_json(account, self._calls.new_uuid()),
            content=b"{}",
            timeout=QUOTA_TIMEOUT,
        )
        return quota.parse_media_quota(reply, self._calls.now())

    async def identify(self, account: Account) -> Identity:
        """Ask whose session it is and write ``account.user_id``, upstream-web 1.7.

        Raises CredentialRejected for a session that is dead or blocked.
        """
        profile = self._calls.profile()
        reply = await self._calls.call(
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
        batches = self._calls.converse(
            profile,
            profile.json(account, self._calls.new_uuid()),
            payloads.rest_body(prompt, file_ids, target, settings),
            settings.timeouts(),
            RestDecoder(settings.filter_tags, settings.assets_url),
        )
        async with aclosing(batches):
            async for events in batches:
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
        event_id = f"evt_init_{self._calls.new_uuid()}"
        decoder = MgwDecoder(event_id, settings.filter_tags, settings.assets_url)
        async with open_socket(
            _socket_options(profile, account, user_id), self._calls.now_ms
        ) as socket:
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
        self, socket: WebSocket, session_id: str, prompt: str, file_ids: Sequence[str]
    ) -> None:
        now_ms = self._calls.now_ms()
        await socket.send(
            payloads.message_frame(session_id, now_ms, self._calls.new_uuid(), prompt, file_ids),
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
        boundary = f"form-{self._calls.new_uuid()}"
        content_type, content = uploads.multipart_body(file, boundary)
        reply = await self._calls.call(
            profile,
            "POST",
            uploads.MULTIPART_PATH,
            headers=profile.upload(account, content_type),
            content=content,
            timeout=UPLOAD_TIMEOUT,
        )
        return uploads.reference_id(reply)

    async def _upload_json(self, profile: Profile, account: Account, file: FetchedFile) -> str:
        reply = await self._calls.call(
            profile,
            "POST",
            uploads.JSON_PATH,
            headers=profile.json(account, self._calls.new_uuid()),
            content=uploads.json_body(file),
            timeout=UPLOAD_TIMEOUT,
        )
        return uploads.reference_id(reply)


def _feed(decoder: MgwDecoder, frames: Sequence[str]) -> tuple[list[Event], UpstreamError | None]:
    """The events of ``frames`` up to the first failure, and that failure."""
    events: list[Event] = []
    for frame in frames:
        try:
            events += decoder.feed(frame)
        except UpstreamError as error:
            return events, error
    return events, None


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
