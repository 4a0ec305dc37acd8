"""api.x.ai as an upstream: chat, media, the models of a key, the state of a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from gateway.upstream.errors import UpstreamFailed, UpstreamIncomplete, UpstreamTimeout
from gateway.upstream.events import Event
from gateway.upstream.http import MAX_ERROR_BODY, Http, read_up_to, reads
from gateway.upstream.requests import Account, ChatRequest
from gateway.upstream.xai.calls import XaiCalls, classify, key_headers
from gateway.upstream.xai.decode import XaiStreamDecoder, decode_completion
from gateway.upstream.xai.media import XaiMedia
from gateway.upstream.xai.payload import chat_body
from gateway.upstream.xai.settings import XaiSettings

PROBE_TIMEOUT = 25.0
TAIL_TIMEOUT = 5.0
"""Seconds an ended stream gets to close, so that its connection can be used again."""
MAX_ANSWER = 64 * 1024 * 1024
MAX_LIST = 4 * 1024 * 1024

Batches = AsyncGenerator[list[Event], None]


@dataclass(frozen=True, slots=True)
class XaiModel:
    """A model a key may use (upstream-xai 2.1); ``created`` is Unix time, 0 if unknown."""

    id: str
    aliases: tuple[str, ...] = ()
    created: int = 0
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The state of a key (upstream-xai 2.4): three separate ways to be unusable."""

    key_id: str
    team_id: str
    name: str
    acls: tuple[str, ...]
    disabled: bool
    blocked: bool
    team_blocked: bool

    @property
    def usable(self) -> bool:
        return not (self.disabled or self.blocked or self.team_blocked)


class XaiUpstream(XaiMedia):
    """Speaks to api.x.ai with one key at a time; raises UpstreamError only.

    Finished media come over ``media_http`` where that is given, without a credential.
    """

    def __init__(
        self,
        http: Callable[[], Http],
        settings: Callable[[], XaiSettings],
        *,
        media_http: Callable[[], Http] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(XaiCalls(http, media_http or http, settings, sleep))
        self._http = http
        self._settings = settings

    def chat(self, request: ChatRequest, model: str, account: Account) -> Batches:
        """The answer, streamed from upstream or not as ``request.stream`` says.

        One batch of events per network read (a single one when not streamed). Closing
        the generator closes the connection at once.
        """
        if request.stream:
            return self._chat_streamed(request, model, account)
        return self._chat_whole(request, model, account)

    async def models(self, account: Account) -> list[XaiModel]:
        """The models this key may use."""
        listed = (await self._get("/v1/models", account)).get("data")
        if not isinstance(listed, list):
            raise UpstreamFailed(row=12, evidence="a model list without data")
        return [model for item in listed if (model := _model(item)) is not None]

    async def describe_key(self, account: Account) -> KeyInfo:
        """The key's team, rights and flags; costs no tokens."""
        reply = await self._get("/v1/api-key", account)
        acls = reply.get("acls")
        return KeyInfo(
            key_id=_text(reply.get("api_key_id")),
            team_id=_text(reply.get("team_id")),
            name=_text(reply.get("name")),
            acls=_texts(acls),
            disabled=reply.get("api_key_disabled") is True,
            blocked=reply.get("api_key_blocked") is True,
            team_blocked=reply.get("team_blocked") is True,
        )

    async def _chat_streamed(self, request: ChatRequest, model: str, account: Account) -> Batches:
        settings = self._settings()
        decoder = XaiStreamDecoder()
        async with self._http().stream(
            "POST",
            f"{settings.base_url}/v1/chat/completions",
            headers=key_headers(account, "text/event-stream"),
            content=chat_body(request, model),
            timeouts=settings.timeouts(),
        ) as response:
            if not response.is_success:
                body = await read_up_to(response, MAX_ERROR_BODY)
                raise classify(response, body)
            async with aclosing(reads(response)) as chunks:
                while (chunk := await _next(chunks, decoder)) is not None:
                    if events := decoder.feed(chunk):
                        yield events
            if events := decoder.finish():
                yield events

    async def _chat_whole(self, request: ChatRequest, model: str, account: Account) -> Batches:
        settings = self._settings()
        response, body = await self._http().send(
            "POST",
            f"{settings.base_url}/v1/chat/completions",
            headers=key_headers(account, "application/json"),
            content=chat_body(request, model),
            timeouts=settings.timeouts(),
            limit=MAX_ANSWER,
        )
        if not response.is_success:
            raise classify(response, body)
        yield decode_completion(body)

    async def _get(self, path: str, account: Account) -> dict[str, Any]:
        timeouts = self._settings().timeouts(at_most=PROBE_TIMEOUT)
        return await self._calls.call("GET", path, account, timeouts=timeouts, limit=MAX_LIST)


async def _next(chunks: AsyncGenerator[bytes, None], decoder: XaiStreamDecoder) -> bytes | None:
    """The next read, or None when there is nothing more to wait for.

    An ended stream is still read to its end: a connection closed with bytes in it
    cannot be used again, and a TLS handshake costs more than a whole answer.
    """
    if not decoder.complete:
        return None if decoder.done else await anext(chunks, None)
    with suppress(TimeoutError, UpstreamTimeout, UpstreamIncomplete):
        async with asyncio.timeout(TAIL_TIMEOUT):
            return await anext(chunks, None)
    return None


def _model(item: Any) -> XaiModel | None:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return None
    created, context = item.get("created"), item.get("context_length")
    return XaiModel(
        id=item["id"],
        aliases=_texts(item.get("aliases")),
        created=created if isinstance(created, int) else 0,
        context_length=context if isinstance(context, int) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
