"""Decodes the body of ``POST /rest/app-chat/conversations/new`` (upstream-web 2.3-2.9).

Nearly every frame is one text token; such a frame is recognised by its keys and takes
the short way. All others have every key looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.upstream.errors import UpstreamError, UpstreamIncomplete
from gateway.upstream.events import SEMANTIC, Event
from gateway.upstream.taxonomy import classify_web_event
from gateway.upstream.web.answer import Answer
from gateway.upstream.web.framing import ObjectScanner
from gateway.upstream.web.links import identifier
from gateway.upstream.web.server_tools import ServerTools, tool_name
from gateway.upstream.web.sources import RESULT_KEYS

_TOKEN_KEYS = frozenset(
    {"token", "isThinking", "isSoftStop", "messageTag", "messageStepId", "responseId", "rolloutId"}
)
_HIDDEN_TAGS = frozenset({"tool_usage_card", "raw_function_result"})


class RestDecoder:
    """Bytes in, events out; one per stream.

    An error found behind events of the same read is kept in ``pending`` and raised by
    the next call, so that nothing decoded before it is lost. ``begun`` turns true with
    the first frame of an answer that is not an error.
    """

    def __init__(self, filter_tags: Sequence[str], assets_url: str) -> None:
        self._scanner = ObjectScanner()
        self._answer = Answer(filter_tags, assets_url)
        self._locked = ""
        self._ended = False
        self.begun = False
        self.committed = False
        self.pending: UpstreamError | None = None

    @property
    def complete(self) -> bool:
        """True once the end of the answer was seen: a break after that spoils nothing (2.7)."""
        return self._ended or self._answer.media_complete

    @property
    def tools(self) -> ServerTools:
        return self._answer.tools

    def feed(self, data: bytes) -> list[Event]:
        """The events of one network read. Raises the taxonomy's error for an error frame."""
        self._raise_pending()
        events: list[Event] = []
        try:
            for frame in self._scanner.feed(data):
                self._frame(frame, events)
        except UpstreamError as error:
            if not any(isinstance(event, SEMANTIC) for event in events):
                raise
            self.pending = error
        if events and not self.committed:
            self.committed = any(isinstance(event, SEMANTIC) for event in events)
        return events

    def finish(self) -> list[Event]:
        """The last events, ending with ``Finished``, after the body ended.

        Raises UpstreamIncomplete when it ended too early, ContentRefused when moderation
        left nothing.
        """
        self._raise_pending()
        if not self.complete:
            self._scanner.finish()
            self._answer.check_video()
            raise UpstreamIncomplete(row=14, evidence="the body ended before the answer")
        events: list[Event] = []
        self._answer.finish(events)
        return events

    def _raise_pending(self) -> None:
        if self.pending is not None:
            raise self.pending

    def _frame(self, frame: dict[str, Any], events: list[Event]) -> None:
        result = frame.get("result", frame)
        if "error" in frame:
            _raise_error(frame["error"])
        if not isinstance(result, dict):
            return
        response = result.get("response")
        if isinstance(response, dict):
            self._response(response, events)
        conversation = result.get("conversation")
        if isinstance(conversation, dict) and not self._answer.conversation_id:
            self._answer.conversation_id = _text(conversation.get("conversationId"))
        self.begun = self.begun or isinstance(response, dict) or isinstance(conversation, dict)

    def _response(self, response: dict[str, Any], events: list[Event]) -> None:
        response_id = response.get("responseId")
        if response_id and response_id != self._answer.response_id:
            if self._locked:
                return
            self._answer.response_id = _text(response_id)
        if not _TOKEN_KEYS.issuperset(response):
            self._extras(response, events)
        if response.get("isSoftStop") is True:
            self._ended = True
        token = response.get("token")
        if token and isinstance(token, str):
            self._token(token, response, events)

    def _token(self, token: str, response: dict[str, Any], events: list[Event]) -> None:
        """The classifier of 2.5."""
        tag = response.get("messageTag")
        if isinstance(tag, str) and tag in _HIDDEN_TAGS:
            return
        if "toolUsageCardId" in response and RESULT_KEYS.isdisjoint(response):
            return
        if response.get("isThinking") is True:
            self._answer.reasoning(token, events)
        elif tag is None or tag == "final" or tag == "":
            if not self._locked:
                self._locked = self._answer.response_id
            self._answer.text(token, events)

    def _extras(self, response: dict[str, Any], events: list[Event]) -> None:
        answer = self._answer
        for key in ("cardAttachment", "cardAttachments"):
            if (attachment := response.get(key)) is not None:
                for card in attachment if isinstance(attachment, list) else (attachment,):
                    answer.card(card, events)
        _raise_errors(response)
        info = response.get("llmInfo")
        if isinstance(info, dict):
            self._fingerprint(info)
        if response.get("messageTag") == "tool_usage_card" or "toolUsageCard" in response:
            self._tool(response)
        if not RESULT_KEYS.isdisjoint(response):
            events += answer.sources.results(response)
        self._media(response, events)
        if isinstance(model_response := response.get("modelResponse"), dict):
            self._model_response(model_response, events)
        if response.get("finalMetadata") is not None:
            self._ended = True

    def _media(self, response: dict[str, Any], events: list[Event]) -> None:
        answer = self._answer
        if "imageAttachmentInfo" in response:
            answer.pictures.expected = True
        if isinstance(image := response.get("streamingImageGenerationResponse"), dict):
            events += answer.pictures.live(image)
        elif answer.pictures.expected and not answer.pictures.any_ready:
            answer.pictures.note_strays(response)
        if isinstance(video := response.get("streamingVideoGenerationResponse"), dict):
            events += answer.video.live(video)

    def _model_response(self, whole: dict[str, Any], events: list[Event]) -> None:
        answer = self._answer
        response_id = _text(whole.get("responseId"))
        if self._locked and response_id and response_id != self._locked:
            return
        _raise_errors(whole)
        answer.response_id = response_id or answer.response_id
        metadata = whole.get("metadata")
        if isinstance(metadata, dict) and isinstance(info := metadata.get("llm_info"), dict):
            self._fingerprint(info)
        events += answer.sources.results(whole)
        events += answer.pictures.urls(whole.get("generatedImageUrls"))
        for card in _list(whole.get("cardAttachmentsJson")):
            answer.card(card, events)
        events += answer.video.attachments(whole.get("fileAttachments"))
        answer.reconcile(whole.get("message"), events)
        if answer.begun and not self._locked:
            self._locked = answer.response_id
        self._ended = True

    def _fingerprint(self, info: Mapping[str, Any]) -> None:
        if not self._answer.fingerprint:
            self._answer.fingerprint = _text(info.get("modelHash"))

    def _tool(self, response: dict[str, Any]) -> None:
        card = response.get("toolUsageCard")
        card = card if isinstance(card, dict) else {}
        token = response.get("token")
        parts = (response.get(key) for key in ("rolloutId", "responseId", "toolUsageCardId"))
        step = identifier(response.get("messageStepId"))
        key = "|".join(map(identifier, parts)) + (f":{step}" if step else "")
        named = response.get("toolName") or response.get("tool_name")
        self._answer.tools.opened(key, tool_name(response if named else card, _text(token)))


def _raise_errors(fields: Mapping[str, Any]) -> None:
    """Raise for ``error`` or ``streamErrors`` of a response (2.9)."""
    for key in ("error", "streamErrors"):
        if fields.get(key):
            _raise_error(fields[key])


def _raise_error(error: object) -> None:
    if error:
        raise classify_web_event(error)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
