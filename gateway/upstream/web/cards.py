"""Cards: what a stream says about the markup in its text (upstream-web 2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.upstream.values import percentage, web_url
from gateway.upstream.web.framing import parse_object
from gateway.upstream.web.links import clip_title, identifier

MAX_CARDS = 1024
_MARKDOWN = str.maketrans({"[": "\\[", "]": "\\]", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})
_LINK = str.maketrans({"<": "%3C", ">": "%3E", "(": "%28", ")": "%29", '"': "%22", "\\": "%5C"})


@dataclass(frozen=True, slots=True)
class Chunk:
    """The picture a card carries: ``failure`` is upstream's ``systemErrCode``."""

    key: str
    url: str
    percent: int
    moderated: bool
    failure: str


def decode_card(attachment: object) -> dict[str, Any] | None:
    """The card in ``attachment``: a ``{"jsonData": ...}``, a bare card, or JSON text of either."""
    for _ in range(3):
        if isinstance(attachment, str):
            attachment = parse_object(attachment)
        if not isinstance(attachment, dict):
            return None
        inner = attachment.get("jsonData", attachment.get("json_data"))
        if inner is None:
            return attachment
        attachment = inner
    return None


def picture(card: Mapping[str, Any]) -> Chunk | None:
    """The card's ``image_chunk`` in any of its spellings; None where there is none yet."""
    chunk = card.get("image_chunk") or card.get("imageChunk")
    if not isinstance(chunk, dict):
        return None
    url = chunk.get("imageUrl") or chunk.get("image_url")
    failure = chunk.get("systemErrCode")
    return Chunk(
        key=identifier(chunk.get("imageUuid") or chunk.get("image_uuid") or card.get("id")),
        url=url if isinstance(url, str) else "",
        percent=percentage(chunk.get("progress")),
        moderated=chunk.get("moderated") is True,
        failure=failure.lower() if isinstance(failure, str) else "",
    )


def link_target(url: str) -> str:
    """``url`` made safe inside the round brackets of a Markdown link."""
    return url.translate(_LINK)


def searched_image(card: Mapping[str, Any]) -> str:
    """A found picture as Markdown, linked to its page if the card names one."""
    image = card.get("image")
    if not isinstance(image, dict):
        return ""
    shown = web_url(image.get("original")) or web_url(image.get("thumbnail"))
    if not shown:
        return ""
    title = clip_title(image.get("title")).translate(_MARKDOWN)
    markdown = f"![{title}]({link_target(shown)})"
    page = web_url(image.get("link"))
    return f"[{markdown}]({link_target(page)})" if page else markdown


class CardCache:
    """The stream's cards by id; beyond ``MAX_CARDS`` new ones are not kept."""

    def __init__(self) -> None:
        self._cards: dict[str, dict[str, Any]] = {}

    def add(self, card: dict[str, Any]) -> None:
        card_id = card.get("id")
        if isinstance(card_id, str) and (card_id in self._cards or len(self._cards) < MAX_CARDS):
            self._cards[card_id] = card

    def get(self, card_id: str) -> dict[str, Any] | None:
        return self._cards.get(card_id)
