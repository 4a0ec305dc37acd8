"""Decodes the frames of grok.com's gateway WebSocket (upstream-web 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.upstream.errors import UpstreamFailed, UpstreamIncomplete
from gateway.upstream.events import SEMANTIC, Event, Source
from gateway.upstream.taxonomy import classify_web_event
from gateway.upstream.web.answer import Answer
from gateway.upstream.web.framing import parse_object
from gateway.upstream.web.server_tools import ServerTools, tool_name

_RESULT_KINDS = {"x_post": "x_search"}
"""Results that are not named after the tool they come from."""


class MgwDecoder:
    """Messages in, events out; one per turn on a new socket.

    ``session_id`` is empty until upstream named one. ``ready`` turns true when the
    client may send its turn, ``done`` when the answer is complete and ``Finished`` was
    given out.
    """

    def __init__(self, event_id: str, filter_tags: Sequence[str], assets_url: str) -> None:
        self._event_id = event_id
        self._answer = Answer(filter_tags, assets_url)
        self._created = False
        self._attached_id = ""
        self._text_from = ""
        self.session_id = ""
        self.done = False
        self.committed = False

    @property
    def attached(self) -> bool:
        """True once the session and its conversation were both announced."""
        return self._created and bool(self._attached_id)

    @property
    def ready(self) -> bool:
        return self.attached

    @property
    def tools(self) -> ServerTools:
        return self._answer.tools

    def feed(self, message: str | bytes) -> list[Event]:
        """The events of one message; none for anything unknown or unparseable.

        Raises the taxonomy's error for an error frame, UpstreamFailed for a breach of
        the protocol, UpstreamIncomplete when the session is ended too early.
        """
        events: list[Event] = []
        frame = parse_object(message)
        event = frame.get("event") if frame else None
        if self.done or frame is None or not isinstance(event, dict):
            return events
        kind = _text(event, "type")
        if kind == "session.created":
            self._on_created(_text(frame, "session_id"), event)
        elif handle := _HANDLERS.get(kind):
            handle(self, event, events)
        if events and not self.committed:
            self.committed = any(isinstance(item, SEMANTIC) for item in events)
        return events

    def finish(self) -> list[Event]:
        """The socket is closed; nothing is left to give out.

        Raises UpstreamIncomplete (row 14) unless the answer is complete.
        """
        if not self.done:
            raise UpstreamIncomplete(row=14, evidence="the socket closed before the answer ended")
        return []

    def _on_chunk(self, event: Mapping[str, Any], events: list[Event]) -> None:
        chunk = event.get("chunk")
        if not isinstance(chunk, dict):
            return
        if isinstance(text := chunk.get("text"), dict):
            self._chunk_text(text, events)
        if isinstance(card := chunk.get("tool_usage_card"), dict):
            self._answer.tools.opened(_text(card, "tool_usage_card_id"), tool_name(card))
        if isinstance(result := chunk.get("tool_result"), dict):
            self._tool_result(result, events)
        if isinstance(citation := chunk.get("render_citation"), dict):
            self._citation(citation, events)

    def _chunk_text(self, chunk: Mapping[str, Any], events: list[Event]) -> None:
        text = _text(chunk, "text")
        if not text:
            return
        channel = _text(chunk, "channel").upper()
        self._text_from = self._text_from or "chunk"
        if "ANALYSIS" in channel or "REASONING" in channel:
            self._answer.reasoning(text, events)
        elif channel in {"", "CHANNEL_ASSISTANT_RESPONSE"} and self._text_from == "chunk":
            self._answer.text(text, events)

    def _tool_result(self, result: Mapping[str, Any], events: list[Event]) -> None:
        for kind, value in result.items():
            if isinstance(value, dict):
                name = _RESULT_KINDS.get(kind, kind)
                self._answer.tools.closed(_text(result, "tool_call_id"), name)
                events += self._result_sources(value)

    def _result_sources(self, value: Mapping[str, Any]) -> list[Source]:
        book = self._answer.sources
        pages = book.pages(value.get("webpages") or value.get("results"))
        return pages + book.posts(value.get("posts"))

    def _citation(self, citation: dict[str, Any], events: list[Event]) -> None:
        self._answer.card({"type": "render_inline_citation", **citation}, events)
        self._answer.citation(_text(citation, "url"), _text(citation, "title"), events)

    def _on_created(self, session_id: str, event: Mapping[str, Any]) -> None:
        if _text(event, "client_event_id") not in {"", self._event_id} or self._created:
            return
        if not session_id:
            raise UpstreamFailed(row=12, evidence="session.created without a session id")
        self.session_id = session_id
        self._created = True
        self._check_session()

    def _on_attached(self, event: Mapping[str, Any], events: list[Event]) -> None:
        conversation = event.get("conversation")
        conversation_id = _text(conversation, "id") if isinstance(conversation, dict) else ""
        if not conversation_id:
            raise UpstreamFailed(row=12, evidence="conversation.attached without an id")
        self._attached_id = conversation_id
        self._answer.conversation_id = conversation_id
        self._check_session()

    def _check_session(self) -> None:
        if self.attached and self._attached_id != self.session_id:
            raise UpstreamFailed(row=12, evidence="the conversation is not the session's")

    def _on_delta(self, event: Mapping[str, Any], events: list[Event]) -> None:
        delta = _text(event, "delta")
        if delta and self._text_from != "chunk":
            self._text_from = "delta"
            self._answer.text(delta, events)

    def _on_text_done(self, event: Mapping[str, Any], events: list[Event]) -> None:
        text = _text(event, "text")
        if text and not self._answer.has_text:
            self._text_from = "done"
            self._answer.text(text, events)

    def _on_search_result(self, event: Mapping[str, Any], events: list[Event]) -> None:
        if isinstance(result := event.get("result"), dict):
            book = self._answer.sources
            events += book.page(result) or book.post(result)

    def _on_output(self, event: Mapping[str, Any], events: list[Event]) -> None:
        output = event.get("output")
        if not isinstance(output, dict):
            return
        card = output.get("card_attachment")
        if card is not None:
            self._answer.card(card, events)
        if error := output.get("stream_error"):
            raise classify_web_event(error)

    def _on_done(self, event: Mapping[str, Any], events: list[Event]) -> None:
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        status = response.get("status")
        if status and status != "completed":
            raise UpstreamFailed(row=12, evidence="the response was not completed")
        self._answer.response_id = _text(response, "id")
        self._answer.finish(events)
        self.done = True

    def _on_error(self, event: Mapping[str, Any], events: list[Event]) -> None:
        raise classify_web_event(event.get("error") or {})

    def _on_ended(self, event: Mapping[str, Any], events: list[Event]) -> None:
        raise UpstreamIncomplete(row=14, evidence="the session ended before the answer")


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


_Handler = Callable[[MgwDecoder, Mapping[str, Any], list[Event]], None]
_HANDLERS: dict[str, _Handler] = {
    "response.chunk": MgwDecoder._on_chunk,
    "conversation.attached": MgwDecoder._on_attached,
    "response.output_text.delta": MgwDecoder._on_delta,
    "response.output_text.done": MgwDecoder._on_text_done,
    "response.search.result": MgwDecoder._on_search_result,
    "response.grok.output": MgwDecoder._on_output,
    "response.done": MgwDecoder._on_done,
    "error": MgwDecoder._on_error,
    "session.ended": MgwDecoder._on_ended,
}
