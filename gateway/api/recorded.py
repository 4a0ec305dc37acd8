"""How a request ends, in the terms of its record, and what its client is told."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.api.errors import translate
from gateway.api.lifetime import current_lifetime
from gateway.exchange import End
from gateway.relay.recording import Recording

CLIENT_CLOSED_REQUEST = 499
"""For the record alone: a client that is gone is sent nothing."""


class Recorded:
    """Around everything before the first byte: an error is translated, recorded and raised.

    The recording stays open when nothing goes wrong: who sends the answer closes it.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    async def __aenter__(self) -> Recording:
        return self._recording

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        recording = self._recording
        if error is None:
            return
        if not isinstance(error, Exception):
            _interrupted(recording, error)
            await recording.close()
            return
        told = translate(error)
        recording.ends(_end_of(recording), told.status, told.code)
        await recording.close()
        raise told from error


def _end_of(recording: Recording) -> End:
    exchange = recording.exchange
    if exchange.first_event is not None:
        return End.BROKEN
    return End.FAILED if exchange.attempts else End.REFUSED


def _interrupted(recording: Recording, error: BaseException) -> None:
    stopping = isinstance(error, asyncio.CancelledError) and not current_lifetime().client_gone
    if stopping:
        recording.ends(End.STOPPED, 503, "service_stopping")
    else:
        recording.ends(End.CLIENT_GONE, CLIENT_CLOSED_REQUEST)
