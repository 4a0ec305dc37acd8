"""A request body that is taken part by part, as fast as it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from gateway.api.lifetime import Lifetime
from gateway.wire.errors import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
FORM = b"multipart/form-data"


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a sender may be: seconds without a byte, and bytes per second after ``grace``."""

    silence: float = 30.0
    grace: float = 60.0
    least: int = 16_384


PACE = Pace()


class Incoming:
    """``size`` is what the sender has announced, None if nothing; ``taken`` what has come."""

    def __init__(
        self, receive: Receive, lifetime: Lifetime, size: int | None, pace: Pace = PACE
    ) -> None:
        self._receive = receive
        self._lifetime = lifetime
        self._pace = pace
        self.size = size
        self.taken = 0
        self.finished = asyncio.Event()
        """Set when the whole body has been taken."""

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body, once; raises ApiError 408 for a sender that is too slow.

        A sender who leaves ends the request as if it had been cancelled.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self.finished.is_set():
            message = await self._next(began)
            part: bytes = message.get("body", b"")
            self.taken += len(part)
            if not message.get("more_body", False):
                self.finished.set()
            if part:
                yield part

    async def _next(self, began: float) -> Message:
        try:
            async with asyncio.timeout(self._patience(began)):
                message = await self._receive()
        except TimeoutError:
            text = "The request body did not arrive in time."
            raise ApiError(408, text, code="request_timeout") from None
        if message["type"] == "http.disconnect":
            self._lifetime.disconnect()
            await asyncio.Event().wait()  # Until the cancellation arrives.
        return message

    def _patience(self, began: float) -> float:
        elapsed = asyncio.get_running_loop().time() - began
        allowed = self._pace.grace + self.taken / self._pace.least
        return max(0.0, min(self._pace.silence, allowed - elapsed))


def is_form(scope: MutableMapping[str, Any]) -> bool:
    """Whether the body may be too large for memory, being a form with files."""
    declared = (value for name, value in scope["headers"] if name == b"content-type")
    return next(declared, b"").lstrip().lower().startswith(FORM)


def announced_size(scope: MutableMapping[str, Any]) -> int | None:
    declared = (value for name, value in scope["headers"] if name == b"content-length")
    length: bytes = next(declared, b"")
    return int(length) if length.isdigit() and len(length) < 19 else None


def attach(request: HttpRequest, incoming: Incoming | None) -> None:
    request.incoming = incoming  # type: ignore[attr-defined]


def incoming_of(request: HttpRequest) -> Incoming | None:
    """The body of a form; None for a request of another type, whose body is in ``request``."""
    found: Incoming | None = getattr(request, "incoming", None)
    return found
