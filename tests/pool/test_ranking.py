"""The ordered set behind selection, against a model that sorts everything every time."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.ranking import Level, Ranking

members = st.integers(0, 12)
ranks = st.one_of(st.none(), st.integers(0, 5))
excluded = st.frozensets(members, max_size=6)


@settings(max_examples=200)
@given(
    steps=st.lists(st.tuples(members, ranks, excluded), max_size=60),
    seed=st.integers(0, 2**16),
)
def test_it_gives_what_sorting_everything_would_give(
    steps: list[tuple[int, int | None, frozenset[int]]], seed: int
) -> None:
    ranking, random = Ranking(), Random(seed)
    model: dict[int, int] = {}
    for member, rank, exclude in steps:
        ranking.put(member, rank)
        model.pop(member, None)
        if rank is not None:
            model[member] = rank
        eligible = {m: r for m, r in model.items() if m not in exclude}
        found = ranking.best(random, exclude)
        if found is None:
            assert not eligible
        else:
            assert eligible[found] == max(eligible.values())
        assert len(ranking) == len(model)
        assert {m for m in range(13) if m in ranking} == set(model)


def test_it_chooses_among_equals_at_random() -> None:
    ranking, random = Ranking(), Random(7)
    for member in range(4):
        ranking.put(member, 3)
    ranking.put(9, 2)
    seen = Counter(ranking.best(random) for _ in range(4000))
    assert set(seen) == {0, 1, 2, 3}
    assert min(seen.values()) > 800


def test_it_comes_back_to_a_level_that_was_passed_over() -> None:
    ranking, random = Ranking(), Random(1)
    ranking.put(1, 5)
    ranking.put(2, 4)
    assert ranking.best(random, {1}) == 2
    assert ranking.best(random) == 1


def test_it_is_empty_once_everybody_has_left() -> None:
    ranking, random = Ranking(), Random(1)
    ranking.put(1, 5)
    ranking.put(1, None)
    ranking.put(1, None)
    assert ranking.best(random) is None
    assert len(ranking) == 0
    ranking.put(1, 5)
    assert ranking.best(random) == 1


@given(st.lists(st.tuples(st.booleans(), members), max_size=40), st.integers(0, 99))
def test_a_level_never_chooses_who_has_left(steps: list[tuple[bool, int]], seed: int) -> None:
    level, model = Level(), set[int]()
    for adding, member in steps:
        if adding and member not in model:
            level.add(member)
            model.add(member)
        elif not adding and member in model:
            level.discard(member)
            model.discard(member)
        found = level.choose(Random(seed), frozenset())
        assert (found in model) if model else found is None
        assert len(level) == len(model)


class _CountingRandom(Random):
    calls = 0

    def random(self) -> float:
        type(self).calls += 1
        return super().random()


@pytest.mark.parametrize("excluded_levels", [1, 3, 10])
def test_it_looks_at_no_more_levels_than_it_has_to_pass_over(excluded_levels: int) -> None:
    ranking = Ranking()
    for member in range(1000):
        ranking.put(member, member)
    exclude = frozenset(range(1000 - excluded_levels, 1000))
    _CountingRandom.calls = 0
    assert ranking.best(_CountingRandom(1), exclude) == 999 - excluded_levels
    assert _CountingRandom.calls == excluded_levels + 1
