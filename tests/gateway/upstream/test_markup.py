"""Hidden markup never leaks and cards are put in place, however the answer is cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.events import Source
from gateway.upstream.web.cards import CardCache
from gateway.upstream.web.markup import MarkupFilter
from tests.gateway.upstream.streams import PROPERTY

TIDE, PIER = "https://example.org/tide", "https://example.org/pier?a=(1)"
HIDDEN = re.compile("<(grok:render|xai:tool_usage_card|xaiartifact|secret)", re.IGNORECASE)


def cards() -> CardCache:
    cache = CardCache()
    cache.add({"id": "c1", "type": "render_inline_citation", "url": TIDE})
    cache.add({"id": "c2", "type": "render_inline_citation", "url": PIER})
    image = {
        "title": "A [pier]",
        "thumbnail": "https://example.org/t.jpg",
        "original": "https://example.org/o.jpg",
        "link": "https://example.org/pier",
    }
    cache.add({"id": "c3", "type": "render_searched_image", "image": image})
    cache.add({"id": "c4", "type": "render_file", "image_chunk": None})
    cache.add({"id": "c5", "type": "render_inline_citation", "url": "javascript:alert(1)"})
    return cache


def render(card_id: str, kind: str = "render_inline_citation") -> str:
    return (
        f'<grok:render card_id="{card_id}" card_type="x" type="{kind}">'
        '<argument name="citation_id">0</argument></grok:render>'
    )


def clean(*pieces: str, tags: tuple[str, ...] = ("secret",)) -> str:
    filtered = MarkupFilter(cards(), tags)
    return "".join([*map(filtered.feed, pieces), filtered.finish()])


def outcome(pieces: list[str]) -> tuple[str, list[Source]]:
    filtered = MarkupFilter(cards(), ("secret",))
    text = "".join([*map(filtered.feed, pieces), filtered.finish()])
    return text, filtered.drain()


PIECES = st.sampled_from(
    [
        *("a", " tide ", "é😀", "\n", ">", "/>", '"', "'", "</", "<", "<<", "<b>", "a < b", "<g"),
        *("<grok", ":render", "<GROK:Render", "k:render/>", "<gro", "<xai:", "tool_usage_card>"),
        *(
            "<xai",
            "Artifact>",
            "</grok:render>",
            "</xaiArtifact",
            "</",
            "secret>",
            "\u212a:render ",
        ),
        *(render("c1"), render("c2"), render("none"), render("c3", "render_searched_image")),
        '<grok:render card_id="c1" type="render_inline_citation" />',
        "<grok:render card_id='c1' title='a > b' type='render_inline_citation'/>",
        "<xai:tool_usage_card><xai:tool_name>web</xai:tool_name></xai:tool_usage_card>",
        "<xaiArtifact id='1'>hidden <b>&</b> </xaiartifact >",
        "<secret>s</SECRET>",
        '<xaiArtifact a="unclosed>x</xaiArtifact>',
    ]
)
ANSWERS = st.lists(PIECES, max_size=9).map("".join)


@PROPERTY
@given(answer=ANSWERS, at=st.data())
def test_no_cut_changes_the_outcome_and_nothing_hidden_leaks(
    answer: str, at: st.DataObject
) -> None:
    whole = outcome([answer])
    assert not HIDDEN.search(whole[0])
    assert outcome(list(answer)) == whole
    for place in range(len(answer) + 1):
        assert outcome([answer[:place], answer[place:]]) == whole
    places = sorted(at.draw(st.lists(st.integers(0, len(answer)), max_size=5)))
    bounds = [0, *places, len(answer)]
    assert outcome([answer[a:b] for a, b in pairwise(bounds)]) == whole


@PROPERTY
@given(answer=ANSWERS)
def test_citations_stand_where_their_offsets_say(answer: str) -> None:
    text, sources = outcome([answer])
    for source in sources:
        assert re.fullmatch(r"\[\[\d+\]\]\(\S+\)", text[source.start : source.end])


@PROPERTY
@given(answer=st.text(st.characters(exclude_characters="<")))
def test_text_without_markup_passes_unchanged(answer: str) -> None:
    assert clean(answer) == answer


def test_a_plain_token_comes_back_as_the_same_object() -> None:
    token = "A tide is"
    assert MarkupFilter(CardCache()).feed(token) is token


def test_citations_are_numbered_by_first_appearance_of_their_address() -> None:
    text, sources = outcome([f"é{render('c2')} b{render('c1')} c{render('c2')}"])
    second = "https://example.org/pier?a=%281%29"
    assert text == f"é[[1]]({second}) b[[2]]({TIDE}) c[[1]]({second})"
    assert [source.url for source in sources] == [PIER, TIDE, PIER]
    assert (sources[0].start, sources[0].end) == (1, 1 + len(f"[[1]]({second})"))


def test_an_identical_citation_next_to_the_last_is_collapsed() -> None:
    text, sources = outcome([render("c1") + render("c1") + " " + render("c1")])
    assert text == f"[[1]]({TIDE}) [[1]]({TIDE})"
    assert len(sources) == 2


def test_a_searched_image_becomes_a_linked_markdown_image() -> None:
    assert clean(render("c3", "render_searched_image")) == (
        "[![A \\[pier\\]](https://example.org/o.jpg)](https://example.org/pier)"
    )


@pytest.mark.parametrize(
    "tag",
    [
        render("c4", "render_file"),
        render("c1", "render_generated_image"),
        render("none"),
        render("c5"),
        "<grok:render>",
        "</grok:render>",
        "<grok:render/>",
        "<XAIARTIFACT>x<grok:render/></XAIARTIFACT>",
        "<xai:tool_usage_card a='1'",
        "<secret>x</secret>",
    ],
)
def test_everything_else_hidden_becomes_nothing(tag: str) -> None:
    assert clean("a" + tag) == "a"


@pytest.mark.parametrize(
    "harmless", ["<", "<g", "<grok", "a <b> <x", "</xai", "1 < 2", "<grok:rende"]
)
def test_what_only_looks_like_a_start_is_released(harmless: str) -> None:
    assert clean(*harmless) == harmless
    assert MarkupFilter(CardCache()).feed(harmless + "!") == harmless + "!"


def test_a_start_is_held_only_while_it_could_be_one() -> None:
    filtered = MarkupFilter(CardCache())
    assert filtered.feed("a <gro") == "a "
    assert filtered.feed("w") == "<grow"
    assert filtered.feed("<") == ""
    assert filtered.finish() == "<"


def test_pieces_around_a_removed_tag_cannot_join_into_a_hidden_one() -> None:
    answer = "<gro<gro<grok:render/>k:render/>k:render card_id='none'>x</grok:render> end"
    assert clean(answer) == "<gro<gro end"


def test_a_citation_beside_the_text_is_put_at_its_end() -> None:
    filtered = MarkupFilter(cards())
    assert filtered.feed("A <") == "A "
    assert filtered.cite(TIDE) == f"<[[1]]({TIDE})"
    assert filtered.cite(TIDE) == ""
    assert [(source.start, source.end) for source in filtered.drain()] == [(3, 34)]
    assert filtered.drain() == []


def test_a_huge_opening_tag_is_dropped_and_not_kept() -> None:
    filtered = MarkupFilter(cards())
    filtered.feed("<grok:render card_id='c1' type='render_inline_citation' x='")
    for _ in range(300):
        assert filtered.feed("y" * 1024) == ""
    assert filtered.feed("'/> end") == " end"


def test_a_huge_hidden_body_is_passed_over() -> None:
    filtered = MarkupFilter(CardCache())
    filtered.feed("<xaiArtifact>")
    assert all(filtered.feed("y" * 1024) == "" for _ in range(500))
    assert filtered.feed("</xaiArtifact> end") == " end"


def test_a_filter_tag_that_begins_another_stands_for_both() -> None:
    answer = render("c1") + "<grokky>x</grok> end"
    assert clean(answer, tags=("grok",)) == clean(*answer, tags=("grok",)) == " end"


@pytest.mark.parametrize("tags", [("",), ("<think/>",), ("a b", "<>", "😀")])
def test_odd_filter_tags_are_tidied_or_ignored(tags: tuple[str, ...]) -> None:
    assert clean("a b <b>😀</b>", tags=tags) == "a b <b>😀</b>"
    assert clean("x<THINK>y</think>", tags=("<think/>",)) == "x"
