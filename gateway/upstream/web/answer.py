"""The answer in the making: what both web protocols do once they know what a frame means."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.upstream.errors import ContentRefused, QuotaExhausted, UpstreamIncomplete
from gateway.upstream.events import Event, Finished, Reasoning, Text
from gateway.upstream.web.cards import CardCache, decode_card, picture
from gateway.upstream.web.markup import MarkupFilter
from gateway.upstream.web.pictures import Pictures, Video
from gateway.upstream.web.server_tools import ServerTools
from gateway.upstream.web.sources import SourceBook

MAX_LATE_REASONING = 256 * 1024


class Answer:
    """Collects one answer; every method appends the events it causes to ``events``.

    Reasoning that comes after answer text is not streamed, so that a client's output
    only ever moves forward; it is kept in ``late_reasoning`` (upstream-web 2.5).
    """

    def __init__(self, filter_tags: Sequence[str], assets_url: str) -> None:
        self._cards = CardCache()
        self._markup = MarkupFilter(self._cards, filter_tags)
        self._thinking = MarkupFilter(self._cards, filter_tags, inline=False)
        self._raw: list[str] = []
        self._late: list[str] = []
        self._late_size = 0
        self.sources = SourceBook()
        self.pictures = Pictures(assets_url)
        self.video = Video(assets_url)
        self.tools = ServerTools()
        self.begun = False
        self.response_id = ""
        self.fingerprint = ""
        self.conversation_id = ""

    @property
    def late_reasoning(self) -> str:
        return "".join(self._late)

    @property
    def has_text(self) -> bool:
        return bool(self._raw)

    @property
    def media_complete(self) -> bool:
        """Media is there, none is in the making, and no text was begun that could be cut short."""
        pictures = self.pictures
        return self.video.ready or (pictures.any_ready and not pictures.in_making and not self._raw)

    def text(self, raw: str, events: list[Event]) -> None:
        """A piece of raw answer text."""
        self._raw.append(raw)
        clean = self._markup.feed(raw)
        if clean:
            if not self.begun:
                self._begin(events)
            events.append(Text(clean))
        if self._markup.citations:
            self._tell_citations(events)

    def reasoning(self, raw: str, events: list[Event]) -> None:
        """A piece of thinking."""
        clean = self._thinking.feed(raw)
        if clean and not self.begun:
            events.append(Reasoning(clean))
        elif clean and self._late_size < MAX_LATE_REASONING:
            self._late_size += len(clean)
            self._late.append(clean)

    def reconcile(self, message: object, events: list[Event]) -> None:
        """Emit what ``message``, the whole answer, has beyond the streamed text (2.4)."""
        if not isinstance(message, str) or not message:
            return
        streamed = "".join(self._raw)
        if len(message) > len(streamed) and message.startswith(streamed):
            self.text(message[len(streamed) :], events)

    def citation(self, url: str, title: str, events: list[Event]) -> None:
        """A citation that came beside the text and belongs at its present end."""
        if shown := self._markup.cite(url, title):
            if not self.begun:
                self._begin(events)
            events.append(Text(shown))
        self._tell_citations(events)

    def card(self, attachment: object, events: list[Event]) -> None:
        """A card attachment. Raises QuotaExhausted (row 5) for one that reports a limit."""
        card = decode_card(attachment)
        if card is None:
            return
        self._cards.add(card)
        chunk = picture(card)
        if chunk is None:
            return
        if chunk.failure == "rate_limit":
            raise QuotaExhausted(row=5, evidence="card reports rate_limit")
        events += self.pictures.chunk(chunk)

    def finish(self, events: list[Event]) -> None:
        """The end of a complete answer: what was held back, then ``Finished``.

        Raises ContentRefused (row 7) when moderation left nothing, UpstreamIncomplete
        (row 14) when promised media never came.
        """
        self._flush(events)
        self.check_video()
        self._check_pictures()
        extra = {"conversation_id": self.conversation_id} if self.conversation_id else {}
        if self._late:
            extra["late_reasoning"] = self.late_reasoning
        events.append(
            Finished(
                "stop",
                self.response_id,
                fingerprint=self.fingerprint,
                extra=extra,
                blocked=self.pictures.blocked,
            )
        )

    def _begin(self, events: list[Event]) -> None:
        if rest := self._thinking.finish():
            events.append(Reasoning(rest))
        self.begun = True

    def _flush(self, events: list[Event]) -> None:
        if rest := self._markup.finish():
            if not self.begun:
                self._begin(events)
            events.append(Text(rest))
        if rest := self._thinking.finish():
            if self.begun:
                self._late.append(rest)
            else:
                events.append(Reasoning(rest))
        events += self.pictures.last_resort("".join(self._raw))

    def check_video(self) -> None:
        """Raises for a video turn without a video, as ``finish`` does (upstream-web 9.4)."""
        if not self.video.expected or self.video.ready:
            return
        if self.video.moderated:
            raise ContentRefused(row=7, evidence="the video was moderated")
        raise UpstreamIncomplete(row=14, evidence="no video address")

    def _check_pictures(self) -> None:
        if self.begun or self.pictures.any_ready:
            return
        if self.pictures.blocked:
            raise ContentRefused(row=7, evidence="every picture was moderated")
        if self.pictures.expected:
            raise UpstreamIncomplete(row=14, evidence="no picture address")

    def _tell_citations(self, events: list[Event]) -> None:
        for source in self._markup.drain():
            source.title = source.title or self.sources.title_of(source.url)
            events.append(source)
