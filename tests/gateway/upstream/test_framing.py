"""The three wrappings of upstream-web 1.5, cut anywhere, give the same objects."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import UpstreamFailed, UpstreamIncomplete
from gateway.upstream.web.framing import ObjectScanner
from tests.gateway.upstream.streams import PROPERTY, WRAPPINGS, cut, wrap

TRICKY = st.text(st.sampled_from(list('{}"\\\n\r[]:,aé\u2028😀\x01')), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TRICKY | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TRICKY, VALUES, max_size=4), max_size=5)


def scan(pieces: Any, scanner: ObjectScanner | None = None) -> list[dict[str, Any]]:
    scanner = scanner or ObjectScanner()
    found = [item for piece in pieces for item in scanner.feed(piece)]
    scanner.finish()
    return found


def test_it_works() -> None:
    assert scan([b'data: {"a":1}\n\ndata: [DONE]\n\n']) == [{"a": 1}]


@PROPERTY
@given(
    objects=OBJECTS,
    wrapping=st.sampled_from(WRAPPINGS),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
    places=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_any_cut_of_any_wrapping_gives_the_same_objects(
    objects: list[dict[str, Any]],
    wrapping: str,
    indent: int | None,
    escaped: bool,
    places: list[int],
) -> None:
    texts = [json.dumps(item, indent=indent, ensure_ascii=escaped).encode() for item in objects]
    body = wrap(texts, wrapping)
    assert scan([body]) == objects
    assert scan(cut(body, places)) == objects
    assert scan(body[at : at + 1] for at in range(len(body))) == objects


@PROPERTY
@given(
    body=st.text(st.sampled_from(list('{}"\\\n :a1,[]')), max_size=40),
    places=st.lists(st.integers(0, 100), max_size=4),
)
def test_garbage_is_cut_the_same_way_on_both_paths(body: str, places: list[int]) -> None:
    def outcome(pieces: Any) -> object:
        scanner = ObjectScanner()
        found = [item for piece in pieces for item in scanner.feed(piece)]
        try:
            scanner.finish()
        except UpstreamIncomplete:
            return found, "cut"
        return found, "whole"

    data = body.encode()
    assert outcome(cut(data, places)) == outcome([data]) == outcome(cut(data, range(len(data))))


def test_an_unparseable_object_is_skipped_and_the_next_one_is_not() -> None:
    assert scan([b'{"a":1}\n{nonsense}\n{"b":[1,}\n{"c":3}']) == [{"a": 1}, {"c": 3}]


def test_an_object_is_given_out_before_its_line_ends() -> None:
    assert ObjectScanner().feed(b'{"a":1}') == [{"a": 1}]


def test_half_a_surrogate_pair_costs_one_character_not_the_object() -> None:
    (found,) = scan([b'{"token":"a\\ud83d","x":1}\n'])
    assert found == {"token": "a\ufffd", "x": 1}
    found["token"].encode()


def test_broken_utf8_costs_one_character_not_the_object() -> None:
    assert scan([b'{"token":"a\xff"}\n']) == [{"token": "a\ufffd"}]


def test_absurd_nesting_is_skipped() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    assert scan([deep, b'\n{"b":1}']) == [{"b": 1}]


@pytest.mark.parametrize("body", [b'{"a":1', b'{"a":"}', b'{"a":1}{', b'{"a":"\\'])
def test_the_end_inside_an_object_is_an_incomplete_stream(body: bytes) -> None:
    scanner = ObjectScanner()
    scanner.feed(body)
    with pytest.raises(UpstreamIncomplete) as caught:
        scanner.finish()
    assert caught.value.row == 14


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_object_above_the_cap_fails_after_those_before_it_were_given_out(size: int) -> None:
    body = b'{"a":1}\n{"b":"' + b"x" * 100 + b'"}\n'
    scanner = ObjectScanner(max_object=50)
    found = []
    with pytest.raises(UpstreamFailed) as caught:
        for at in range(0, len(body), size):
            found += scanner.feed(body[at : at + size])
        scanner.finish()
    assert found == [{"a": 1}]
    assert caught.value.row == 12


def test_a_long_line_of_small_objects_is_not_above_the_cap() -> None:
    assert len(scan([b"{}" * 100], ObjectScanner(max_object=50))) == 100


@pytest.mark.parametrize("item", [b'{"a":"}{"}', b'{"a":1} ', b"{} ", b'{"a":"\\""}'])
def test_many_objects_without_a_newline_take_linear_time(item: bytes) -> None:
    before = process_time()
    assert len(scan([item * 100_000])) == 100_000
    assert process_time() - before < 3
