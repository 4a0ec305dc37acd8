"""Opaque upstream state leads back to the credential that holds it."""

from __future__ import annotations

from pool.affinity import KEEP, Affinity
from pool.leases import Lane, Want
from tests.pool.samples import Clock, make_entry, make_pool


async def test_what_was_remembered_is_found() -> None:
    affinity = Affinity(Clock())
    await affinity.remember("resp_1", 7)
    await affinity.remember("resp_2", 8)
    assert (await affinity.find("resp_1"), await affinity.find("resp_2")) == (7, 8)
    assert await affinity.find("resp_3") is None


async def test_it_pins_a_request_to_its_credential() -> None:
    affinity, pool = Affinity(Clock()), make_pool(*(make_entry(n) for n in range(1, 20)))
    await affinity.remember("resp_1", 7)
    want = Want((Lane("sso", "fast"),), "grok-4", only=await affinity.find("resp_1"))
    assert {(await pool.lease(want)).credential_id for _ in range(3)} == {7}


async def test_the_newest_word_counts() -> None:
    affinity = Affinity(Clock())
    await affinity.remember("resp_1", 7)
    await affinity.remember("resp_1", 8)
    assert await affinity.find("resp_1") == 8
    assert len(affinity) == 1


async def test_old_states_are_forgotten() -> None:
    clock = Clock()
    affinity = Affinity(clock)
    await affinity.remember("resp_1", 7)
    clock.now += KEEP - 1
    assert await affinity.find("resp_1") == 7
    clock.now += 1
    assert await affinity.find("resp_1") is None
    assert len(affinity) == 0


async def test_the_one_used_longest_ago_makes_room() -> None:
    affinity = Affinity(Clock(), most=2)
    for number in (1, 2):
        await affinity.remember(f"resp_{number}", number)
    assert await affinity.find("resp_1") == 1
    await affinity.remember("resp_3", 3)
    assert [await affinity.find(f"resp_{n}") for n in (1, 2, 3)] == [1, None, 3]
