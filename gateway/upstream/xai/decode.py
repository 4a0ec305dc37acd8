"""api.x.ai's chat completions, streamed and whole, as events (upstream-xai 3.3, 10.1)."""

from __future__ import annotations

from pydantic_core import from_json

from gateway.upstream.errors import UpstreamError, UpstreamFailed, UpstreamIncomplete
from gateway.upstream.events import Event
from gateway.upstream.xai.answer import Answer
from gateway.upstream.xai.sse import MAX_EVENT, SseDecoder


class XaiStreamDecoder:
    """Turns the bytes of a streamed answer into events.

    An answer that is JSON although a stream was asked for is read as a whole. An error
    met after other events of the same ``feed`` is raised by the next call, so that no
    event is lost; ``done`` says that there is nothing more to wait for.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_body_size",
        "_ended",
        "_error",
        "_is_json",
        "_sse",
        "_started",
    )

    def __init__(self) -> None:
        self._sse = SseDecoder()
        self._answer = Answer()
        self._body: list[bytes] = []
        self._body_size = 0
        self._error: UpstreamError | None = None
        self._ended = False
        self._started = False
        self._is_json = False

    @property
    def complete(self) -> bool:
        """Whether the answer itself is whole, so that a break no longer matters."""
        return self._ended or (self._answer.reason is not None and self._error is None)

    @property
    def done(self) -> bool:
        return self._ended or self._error is not None

    def feed(self, chunk: bytes) -> list[Event]:
        """Raises the error upstream reported, or UpstreamFailed for an oversized event."""
        if self._error is not None:
            raise self._error
        if not self._started:
            self._start(chunk)
        if self._is_json:
            self._hold(chunk)
            return []
        events: list[Event] = []
        try:
            for data in self._sse.feed(chunk):
                self._take(data, events)
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        return events

    def finish(self) -> list[Event]:
        """The end of the body. Raises UpstreamIncomplete when the answer is not whole."""
        if self._error is not None:
            raise self._error
        if self._is_json:
            return decode_completion(b"".join(self._body))
        events: list[Event] = []
        for data in self._sse.finish():
            self._take(data, events)
        if not self.complete:
            raise UpstreamIncomplete(row=14, evidence="no finish_reason and no [DONE]")
        self._end(events)
        return events

    def _start(self, chunk: bytes) -> None:
        first = chunk.lstrip()[:1]
        self._started = bool(first)
        if first == b"{":
            self._is_json = True
        elif first == b"<":
            raise UpstreamFailed(row=12, upstream_status=200, evidence="html")

    def _hold(self, chunk: bytes) -> None:
        self._body.append(chunk)
        self._body_size += len(chunk)
        if self._body_size > MAX_EVENT:
            raise UpstreamFailed(row=12, evidence="the answer is too large")

    def _take(self, data: bytes, events: list[Event]) -> None:
        if self._ended:
            return
        if data.strip() == b"[DONE]":
            if not self._answer.begun:
                raise UpstreamIncomplete(row=14, evidence="[DONE] before any chunk")
            self._end(events)
            return
        try:
            chunk = from_json(data)
        except ValueError:
            return
        if isinstance(chunk, dict):
            self._answer.take(chunk, data, events)

    def _end(self, events: list[Event]) -> None:
        if not self._ended:
            self._ended = True
            self._answer.close(events)


def decode_completion(body: bytes) -> list[Event]:
    """The events of an answer that was not streamed.

    Raises the error an HTTP 200 may carry, UpstreamFailed for what is not JSON and
    UpstreamIncomplete for an answer without choices.
    """
    try:
        value = from_json(body)
    except ValueError as error:
        raise UpstreamFailed(row=12, evidence="the answer is not JSON") from error
    if not isinstance(value, dict):
        raise UpstreamFailed(row=12, evidence="the answer is not a JSON object")
    answer = Answer()
    events: list[Event] = []
    answer.take(value, body, events)
    if not value.get("choices"):
        raise UpstreamIncomplete(row=14, evidence="an answer without choices")
    answer.close(events)
    return events
