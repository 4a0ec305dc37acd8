"""Pictures out of a conversation's events (upstream-web 7.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.upstream.errors import ContentRefused, ImagesIncomplete, UpstreamIncomplete
from gateway.upstream.events import Event, Finished, ImageProgress, ImageReady
from gateway.upstream.requests import WebTarget
from gateway.upstream.web.settings import WebSettings

PER_CALL = 2
"""Pictures that one call makes, asked for or not."""
TARGET = WebTarget("grok-3", "MODEL_MODE_FAST", "fast")

Batches = AsyncGenerator[list[Event], None]


def message(prompt: str, settings: WebSettings) -> str:
    """What makes a chat draw: Gen 1 has its own words for it, the later ones theirs."""
    gen1 = settings.chat_protocol == "rest" and settings.rest_form == "model_name"
    return f"Image Generation: {prompt}" if gen1 else f"Drawing: {prompt}"


async def pictures(answer: Batches, wanted: int) -> Batches:
    """The pictures of ``answer``, whose text is dropped.

    Closes ``answer`` once there are ``wanted`` of them. Ends with Finished; raises
    ImagesIncomplete or ContentRefused where it would have nothing to count.
    """
    ready = 0
    async with aclosing(_with_our_words(answer)) as batches:
        async for batch in batches:
            events: list[Event] = []
            for event in batch:
                if isinstance(event, ImageReady) and ready < wanted:
                    ready += 1
                    events.append(event)
                elif isinstance(event, ImageProgress) and ready < wanted:
                    events.append(event)
            last = batch[-1]
            if ready >= wanted or isinstance(last, Finished):
                yield [*events, _ending(last, ready, wanted)]
                return
            if events:
                yield events
    raise ImagesIncomplete(row=14, evidence="the answer ended without an end")


async def _with_our_words(answer: Batches) -> Batches:
    """``answer``, an early end of it told as one without a picture."""
    try:
        async with aclosing(answer):
            async for batch in answer:
                yield batch
    except UpstreamIncomplete as error:
        raise ImagesIncomplete(row=14, evidence=error.evidence) from error


def _ending(last: Event, ready: int, wanted: int) -> Finished:
    """The end, with what is missing counted."""
    finished = last if isinstance(last, Finished) else Finished()
    if not ready:
        if finished.blocked:
            raise ContentRefused(row=7, evidence="every picture was moderated")
        raise ImagesIncomplete(row=14, evidence="an answer without a picture")
    missing = wanted - ready
    finished.blocked = min(finished.blocked, missing)
    finished.failed = missing - finished.blocked
    return finished
