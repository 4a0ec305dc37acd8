"""From a committed answer to response bodies, with an end in every case."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from django.http import StreamingHttpResponse

from gateway.api.errors import internal_error, translate
from gateway.api.lifetime import Ending, current_lifetime
from gateway.exchange import End
from gateway.relay.hosting import Opened
from gateway.relay.recording import Recording
from gateway.translate.chat_answer import AnswerCollector, AnswerHead, ChunkEncoder
from gateway.upstream.errors import UpstreamError
from gateway.wire.errors import ApiError

logger = logging.getLogger(__name__)


class EventStream(StreamingHttpResponse):
    """Server-sent events. ``chunks`` is the same body, one message per item."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(chunks, content_type="text/event-stream")
        self.chunks = chunks
        self["Cache-Control"] = "no-cache"
        self["X-Accel-Buffering"] = "no"


async def stream_chunks(
    committed: Opened, head: AnswerHead, recording: Recording
) -> AsyncGenerator[bytes, None]:
    """One message per network read of upstream; the last one always holds the end."""
    encoder = ChunkEncoder(head)
    # Unless something else is recorded below, the reader of this has left.
    recording.ends(End.CLIENT_GONE, 200)
    recording.streams()
    opening = encoder.start()
    try:
        await recording.commit()
        with current_lifetime():
            async for batch in committed.batches():
                message = opening + encoder.encode(batch) if opening else encoder.encode(batch)
                opening = b""
                if message:
                    recording.sent(message)
                    yield message
        recording.ends(End.COMPLETED, 200)
    except UpstreamError as error:
        yield opening + _last_words(encoder, recording, End.BROKEN, translate(error))
    except Ending as ending:
        yield opening + _last_words(encoder, recording, End.STOPPED, ending.error)
    except Exception:
        logger.exception("a stream broke")
        yield opening + _last_words(encoder, recording, End.BROKEN, internal_error())
    finally:
        recording.used(encoder.usage)
        try:
            await committed.aclose()
        finally:
            await recording.close()


def _last_words(encoder: ChunkEncoder, recording: Recording, end: End, told: ApiError) -> bytes:
    message = encoder.fail(told)
    recording.ends(end, 200, told.code)
    recording.sent(message)
    return message


async def collect(committed: Opened, head: AnswerHead, recording: Recording) -> bytes:
    """The whole answer; raises UpstreamError when it breaks off."""
    collector = AnswerCollector(head)
    try:
        await recording.commit()
        async for batch in committed.batches():
            collector.add(batch)
    finally:
        recording.used(collector.usage)
        await committed.aclose()
    body = collector.body()
    recording.sent(body)
    recording.ends(End.COMPLETED, 200)
    await recording.close()
    return body
