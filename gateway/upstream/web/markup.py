"""Takes grok.com's markup out of an answer while it streams (upstream-web 2.6).

Text runs through a small state machine that remembers where it stands between feeds, so
the result does not depend on how the answer was cut. Of a hidden tag only its opening
part is kept, for the card it names; its content is passed over, never stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.upstream.events import Source
from gateway.upstream.values import web_url
from gateway.upstream.web.cards import CardCache, link_target, searched_image
from gateway.upstream.web.links import clip_title
from gateway.upstream.web.tags import RENDER_TAG, hidden_tags

MAX_OPENER = 256 * 1024
"""Characters of an opening tag that are kept; a longer one is dropped unread."""
MAX_CITED_URLS = 256
MAX_CITATIONS = 2048

# Possessive and anchored at a word's start, so that a long word costs no backtracking.
_ATTRIBUTE = re.compile(r"""(?<![\w:-])([\w:-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)')""")
_OPENER_MARK = {
    "": re.compile("[<>\"']"),
    '"': re.compile('[<"]'),
    "'": re.compile("[<']"),
}
_CLOSER_MARK = re.compile("[<>]")
_TEXT, _OPENER, _BODY, _CLOSER = range(4)


class MarkupFilter:
    """Feeds on raw answer text and gives back what a client may see.

    ``cards`` resolves ``<grok:render>`` tags; without ``inline`` they all render as
    nothing. Citations become ``[[n]](url)`` and a ``Source`` each in ``citations``, with
    offsets in code points into the whole cleaned text.
    """

    def __init__(
        self, cards: CardCache, filter_tags: Sequence[str] = (), *, inline: bool = True
    ) -> None:
        self._cards = cards
        self._inline = inline
        self._tags = hidden_tags(filter_tags)
        self._state = _TEXT
        self._idle = True
        self._held = ""
        self._tail = ""
        self._length = 0
        self._name = ""
        self._opener: list[str] = []
        self._opener_size = 0
        self._quote = ""
        self._slash = False
        self._closer = self._tags.start
        self._numbers: dict[str, int] = {}
        self.citations: list[Source] = []
        self._cited = 0
        self._last_url = ""
        self._last_end = -1

    def feed(self, text: str) -> str:
        """The clean text that ``text`` makes certain; may be empty, may include held text."""
        if self._idle and "<" not in text:
            self._length += len(text)
            return text
        text = self._held + text
        self._held = ""
        out: list[str] = []
        step = (self._in_text, self._in_opener, self._in_body, self._in_closer)
        position = 0
        while position < len(text):
            position = step[self._state](text, position, out)
        self._idle = not (self._held or self._tail) and self._state == _TEXT
        return "".join(out)

    def finish(self) -> str:
        """What was held back and turned out harmless; an unfinished hidden tag is dropped."""
        rest = self._held if self._state == _TEXT else ""
        self._held = self._tail = ""
        self._state = _TEXT
        self._idle = True
        self._length += len(rest)
        return rest

    def cite(self, url: str, title: str = "") -> str:
        """A citation that came beside the text: what to put at the current place."""
        if self._state != _TEXT:
            return ""
        held, self._held = self._put(self._held), ""
        shown = self._put(self._citation(url, title))
        self._idle = not self._tail
        return held + shown

    def drain(self) -> list[Source]:
        """Take the citations placed since the last call."""
        placed, self.citations = self.citations, []
        return placed

    def _put(self, text: str) -> str:
        self._length += len(text)
        self._tail = (self._tail + text)[-self._tags.longest :]
        self._tail = self._tail[self._tags.partial(self._tail) :]
        return text

    def _in_text(self, text: str, at: int, out: list[str]) -> int:
        if self._tail:
            joint = self._tail + text[at : at + self._tags.longest]
            if start := self._tags.start.match(joint):
                self._enter(start[1], start[2])
                return at + start.end() - len(self._tail)
            if self._tags.is_partial(joint):
                self._held = text[at:]
                return len(text)
        start = self._tags.start.search(text, at)
        if start is None:
            stop = max(at, self._tags.partial(text))
            out.append(self._put(text[at:stop]))
            self._held = text[stop:]
            return len(text)
        out.append(self._put(text[at : start.start()]))
        self._enter(start[1], start[2])
        return start.end()

    def _enter(self, slash: str, name: str) -> None:
        self._name = name.lower()
        self._opener = []
        self._opener_size = 0
        self._quote = ""
        self._slash = False
        self._closer = self._tags.closer(name)
        self._state = _CLOSER if slash else _OPENER
        if slash:
            self._name = ""

    def _in_opener(self, text: str, at: int, out: list[str]) -> int:
        mark = _OPENER_MARK[self._quote].search(text, at)
        stop = mark.start() if mark else len(text)
        self._keep_opener(text[at:stop])
        if mark is None:
            return stop
        symbol = mark[0]
        if symbol == "<":
            self._state = _BODY
            return stop
        if symbol != ">":
            self._quote = "" if self._quote else symbol
            self._keep_opener(symbol)
        elif self._slash:
            self._leave(out)
        else:
            self._state = _BODY
        return mark.end()

    def _keep_opener(self, piece: str) -> None:
        if not piece:
            return
        self._slash = piece.endswith("/")
        self._opener_size += len(piece)
        if self._opener_size <= MAX_OPENER:
            self._opener.append(piece)
        else:
            self._opener = []

    def _in_body(self, text: str, at: int, out: list[str]) -> int:
        closer = self._closer.search(text, at)
        if closer is not None:
            self._state = _CLOSER
            return closer.end()
        opening = text.rfind("<", max(at, len(text) - self._tags.longest))
        self._held = text[opening:] if opening >= 0 else ""
        return len(text)

    def _in_closer(self, text: str, at: int, out: list[str]) -> int:
        mark = _CLOSER_MARK.search(text, at)
        if mark is None:
            return len(text)
        self._leave(out)
        return mark.end() if mark[0] == ">" else mark.start()

    def _leave(self, out: list[str]) -> None:
        self._state = _TEXT
        shown = self._shown() if self._inline and self._name == RENDER_TAG else ""
        if shown:
            out.append(self._put(shown))

    def _shown(self) -> str:
        found = _ATTRIBUTE.findall("".join(self._opener))
        attributes = {name.lower(): double or single for name, double, single in found}
        card = self._cards.get(attributes.get("card_id", ""))
        if card is None:
            return ""
        kind = attributes.get("type") or card.get("type")
        if kind == "render_inline_citation":
            return self._citation(card.get("url"), card.get("title"))
        return searched_image(card) if kind == "render_searched_image" else ""

    def _citation(self, address: object, title: object) -> str:
        url = web_url(address)
        if not url or (url == self._last_url and self._last_end == self._length):
            return ""
        if url not in self._numbers and len(self._numbers) >= MAX_CITED_URLS:
            return ""
        number = self._numbers.setdefault(url, len(self._numbers) + 1)
        shown = f"[[{number}]]({link_target(url)})"
        self._last_url, self._last_end = url, self._length + len(shown)
        if self._cited < MAX_CITATIONS:
            self._cited += 1
            self.citations.append(Source(url, clip_title(title), self._length, self._last_end))
        return shown
