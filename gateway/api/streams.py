"""From a committed answer to response bodies, with an end in every case."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from django.http import StreamingHttpResponse

from gateway.api.errors import internal_error, translate
from gateway.api.lifetime import Ending, current_lifetime
from gateway.relay.attempts import Committed
from gateway.translate.chat_answer import AnswerCollector, AnswerHead, ChunkEncoder
from gateway.upstream.errors import UpstreamError

logger = logging.getLogger(__name__)


class EventStream(StreamingHttpResponse):
    """Server-sent events. ``chunks`` is the same body, one message per item."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(chunks, content_type="text/event-stream")
        self.chunks = chunks
        self["Cache-Control"] = "no-cache"
        self["X-Accel-Buffering"] = "no"


async def stream_chunks(committed: Committed, head: AnswerHead) -> AsyncGenerator[bytes, None]:
    """One message per network read of upstream; the last one always holds the end."""
    encoder = ChunkEncoder(head)
    opening = encoder.start()
    try:
        with current_lifetime():
            async for batch in committed.batches():
                message = opening + encoder.encode(batch) if opening else encoder.encode(batch)
                opening = b""
                if message:
                    yield message
    except UpstreamError as error:
        yield opening + encoder.fail(translate(error))
    except Ending as ending:
        yield opening + encoder.fail(ending.error)
    except Exception:
        logger.exception("a stream broke")
        yield opening + encoder.fail(internal_error())
    finally:
        await committed.aclose()


async def collect(committed: Committed, head: AnswerHead) -> bytes:
    """The whole answer; raises UpstreamError when it breaks off."""
    collector = AnswerCollector(head)
    try:
        async for batch in committed.batches():
            collector.add(batch)
    finally:
        await committed.aclose()
    return collector.body()
