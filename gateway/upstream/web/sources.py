"""Pages and posts an answer rests on: checked, counted and told once (upstream-web 2.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.upstream.events import Source
from gateway.upstream.values import web_url
from gateway.upstream.web.links import clip_title, post_url

MAX_SOURCES = 50

_PAGE_LISTS = ("webSearchResults", "citedWebSearchResults")
_POST_LISTS = ("xSearchResults", "xposts", "citedXposts")
RESULT_KEYS = frozenset((*_PAGE_LISTS, *_POST_LISTS))


def _items(value: object) -> Iterator[Mapping[str, Any]]:
    """The mappings of a bare list or of ``{"results": [...]}``."""
    if isinstance(value, Mapping):
        value = value.get("results")
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


class SourceBook:
    """Remembers the sources of one answer; each address is given out once."""

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}

    def title_of(self, url: str) -> str:
        return self._titles.get(url, "")

    def page(self, item: Mapping[str, Any]) -> list[Source]:
        """The source in ``{url, title}``: one, or none if unfit, known or above the cap."""
        return self._add(web_url(item.get("url")), clip_title(item.get("title")))

    def post(self, item: Mapping[str, Any]) -> list[Source]:
        """The source in a post of X, whose field names come in several spellings."""
        name = item.get("username") or item.get("userhandle")
        number = item.get("postId") or item.get("post_id")
        return self._add(post_url(name, number), clip_title(item.get("text")))

    def pages(self, value: object) -> list[Source]:
        return _flat(self.page(item) for item in _items(value))

    def posts(self, value: object) -> list[Source]:
        return _flat(self.post(item) for item in _items(value))

    def results(self, fields: Mapping[str, Any]) -> list[Source]:
        """The sources under every result key of a REST ``response`` or ``modelResponse``."""
        pages = _flat(self.pages(fields.get(key)) for key in _PAGE_LISTS)
        return pages + _flat(self.posts(fields.get(key)) for key in _POST_LISTS)

    def _add(self, url: str, title: str) -> list[Source]:
        if not url or url in self._titles or len(self._titles) >= MAX_SOURCES:
            return []
        self._titles[url] = title
        return [Source(url, title)]


def _flat(lists: Iterable[list[Source]]) -> list[Source]:
    return [source for sources in lists for source in sources]
