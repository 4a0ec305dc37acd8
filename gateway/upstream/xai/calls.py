"""What every short call to api.x.ai is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic_core import from_json

from gateway.upstream.bodies import StreamedBody
from gateway.upstream.errors import CredentialRejected, UpstreamError, UpstreamFailed
from gateway.upstream.http import MAX_ERROR_BODY, Http, Timeouts
from gateway.upstream.requests import Account
from gateway.upstream.taxonomy import classify_xai
from gateway.upstream.xai.answer import is_failure
from gateway.upstream.xai.settings import XaiSettings


@dataclass(frozen=True, slots=True)
class XaiCalls:
    """Sends requests with one key at a time; raises UpstreamError only.

    ``media_http`` gives the way to finished media, ``sleep`` waits seconds.
    """

    http: Callable[[], Http]
    media_http: Callable[[], Http]
    settings: Callable[[], XaiSettings]
    sleep: Callable[[float], Awaitable[None]]

    async def call(
        self,
        method: str,
        path: str,
        account: Account,
        *,
        content: bytes | StreamedBody | None = None,
        timeouts: Timeouts,
        limit: int,
    ) -> dict[str, Any]:
        """One exchange that answers with a JSON object."""
        response, body = await self.exchange(
            method, path, account, content=content, timeouts=timeouts, limit=limit
        )
        reply = json_object(body)
        if is_failure(reply):
            raise classify(response, body)
        return reply

    async def exchange(
        self,
        method: str,
        path: str,
        account: Account,
        *,
        content: bytes | StreamedBody | None = None,
        timeouts: Timeouts,
        limit: int,
    ) -> tuple[httpx.Response, bytes]:
        """One exchange whose status is a success, and its body as far as ``limit`` bytes."""
        response, body = await self.http().send(
            method,
            self.settings().base_url + path,
            headers=key_headers(account, "application/json"),
            content=content,
            timeouts=timeouts,
            limit=limit,
        )
        if not response.is_success:
            raise classify(response, body)
        return response, body


def classify(response: httpx.Response, body: bytes) -> UpstreamError:
    """The verdict on an answer that is no success."""
    return classify_xai(response.status_code, body[:MAX_ERROR_BODY], headers=response.headers)


def key_headers(account: Account, accept: str) -> dict[str, str]:
    """The headers of a JSON call. Raises CredentialRejected for a key that is no header value."""
    secret = account.secret
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialRejected(row=1, evidence="the secret is not a header value")
    return {
        "Authorization": f"Bearer {secret}",
        "Accept": accept,
        "Content-Type": "application/json",
        "User-Agent": "grok2api",
    }


def json_object(body: bytes) -> dict[str, Any]:
    """Raises UpstreamFailed for anything else."""
    try:
        reply = from_json(body)
    except ValueError as error:
        raise UpstreamFailed(row=12, evidence="the reply is not JSON") from error
    if not isinstance(reply, dict):
        raise UpstreamFailed(row=12, evidence="the reply is not a JSON object")
    return reply
