"""The picture socket: one round, or round after round on the same socket (upstream-web 8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from gateway.upstream.errors import UpstreamError, UpstreamIncomplete, UpstreamTimeout
from gateway.upstream.events import Event
from gateway.upstream.requests import Account, ImageRequest
from gateway.upstream.web.calls import WebCalls
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.media.imagine_frames import RoundDecoder
from gateway.upstream.web.media.imagine_payloads import is_legacy, prompt_frames, round_size
from gateway.upstream.web.settings import WebSettings
from gateway.upstream.web.socket import SocketOptions, WebSocket, open_socket

OPEN_TIMEOUT = 30.0
MAX_FRAME = 64 * 1024 * 1024
MAX_QUEUE = 2
"""A frame may hold a whole picture, so few may wait."""
MAX_PAST = 256

Batches = AsyncGenerator[list[Event], None]


class ImagineSession:
    """An open picture socket, for one round at a time.

    ``alive`` is False once a round was broken off, failed on the wire or was closed by its
    caller before its end: the socket then still carries what nobody waits for, and only a
    new one will do.
    """

    def __init__(self, socket: WebSocket, settings: WebSettings, calls: WebCalls) -> None:
        self._socket = socket
        self._settings = settings
        self._calls = calls
        self._past: dict[str, None] = {}
        self.alive = True

    async def round(self, request: ImageRequest) -> Batches:
        """The pictures of one prompt: ImageProgress, ImageReady, in the end Finished.

        ``Finished`` counts the blocked and failed pictures among those asked for (at most
        10; 6, or 4 with ``pro``, in the older dialect). Pictures given out before an error
        are good. Raises ContentRefused, ImagesIncomplete, RequestRejected, the taxonomy's
        error for an error frame, UpstreamTimeout.
        """
        if not self.alive:
            raise UpstreamIncomplete(row=14, evidence="the picture socket is spent")
        decoder = self._decoder(request)
        frames = prompt_frames(request, self._settings, decoder.request_id, self._calls.now_ms())
        self.alive = False
        await self._socket.send(*frames)
        async with aclosing(self._batches(decoder)) as batches:
            async for batch in batches:
                yield batch
        self.alive = True
        self._remember(decoder)
        yield decoder.finish()

    def _decoder(self, request: ImageRequest) -> RoundDecoder:
        request_id = self._calls.new_uuid()
        if not is_legacy(self._settings):
            request_id = f"img_{request_id.replace('-', '')}"
        wanted = round_size(request, self._settings)
        return RoundDecoder(request_id, wanted, self._settings.assets_url, self._past)

    async def _batches(self, decoder: RoundDecoder) -> Batches:
        """What comes until the round is done, or will get no further."""
        while not decoder.done:
            grace = self._settings.picture_grace if decoder.settled else None
            try:
                frames = await self._socket.read(grace)
            except UpstreamTimeout as error:
                if grace is not None:
                    return
                raise decoder.silent(error) from error
            if not frames:
                raise decoder.closed_early()
            events, failure = _feed(decoder, frames)
            if events:
                yield events
            if failure is not None:
                raise failure

    def _remember(self, decoder: RoundDecoder) -> None:
        self._past.update(dict.fromkeys(decoder.slot_ids))
        while len(self._past) > MAX_PAST:
            del self._past[next(iter(self._past))]


@asynccontextmanager
async def open_imagine(calls: WebCalls, account: Account) -> AsyncIterator[ImagineSession]:
    """An open picture socket; closed at once when its block is left by an error.

    Raises the taxonomy's error for a refused handshake, NetworkFailed, UpstreamTimeout.
    """
    profile = calls.profile()
    async with open_socket(_options(profile, account), calls.now_ms) as socket:
        yield ImagineSession(socket, profile.settings, calls)


async def draw_once(calls: WebCalls, request: ImageRequest, account: Account) -> Batches:
    """One round on a socket of its own."""
    async with (
        open_imagine(calls, account) as session,
        aclosing(session.round(request)) as batches,
    ):
        async for batch in batches:
            yield batch


def _feed(decoder: RoundDecoder, frames: list[str]) -> tuple[list[Event], UpstreamError | None]:
    """The events of ``frames`` up to the first failure, and that failure."""
    events: list[Event] = []
    for frame in frames:
        try:
            events += decoder.feed(frame)
        except UpstreamError as error:
            return events, error
    return events, None


def _options(profile: Profile, account: Account) -> SocketOptions:
    settings = profile.settings
    headers = {"Cookie": profile.cookie(account)}
    if is_legacy(settings):
        headers["Referer"] = f"{profile.base_url}/imagine"
    return SocketOptions(
        url=profile.imagine_url(),
        origin=profile.base_url,
        headers=headers,
        user_agent=profile.user_agent or None,
        proxy_url=settings.proxy_url or None,
        idle_timeout=settings.timeout,
        open_timeout=min(OPEN_TIMEOUT, settings.timeout),
        ping_every=None,
        max_frame=MAX_FRAME,
        max_queue=MAX_QUEUE,
    )
