"""How many credentials of each kind are in which state."""

from __future__ import annotations

from pool.census import AT_ONCE, Census
from pool.entries import Quota
from tests.pool.samples import START, Clock, make_entry


async def test_each_credential_is_counted_in_one_state() -> None:
    clock = Clock()
    entries = [
        make_entry(1),
        make_entry(2, quotas={"fast": Quota(3)}),
        make_entry(3, resting_until=START + 10),
        make_entry(4, quotas={"fast": Quota(0, START + 10), "auto": Quota(5)}),
        make_entry(5, active=False),
        make_entry(6, active=False, disabled=True),
        make_entry(7, "api"),
    ]
    census = Census(lambda: entries, clock)
    assert census.counts == {}

    await census.take()
    assert census.counts == {
        "sso": {"active": 2, "cooling": 2, "invalid": 1, "disabled": 1},
        "api": {"active": 1, "cooling": 0, "invalid": 0, "disabled": 0},
    }

    clock.now += 10
    await census.take()
    assert census.counts["sso"]["active"] == 4


async def test_credentials_may_come_and_go_while_it_counts() -> None:
    entries = {n: make_entry(n) for n in range(3 * AT_ONCE)}
    census = Census(entries.values, Clock())
    counting = census.take()
    await_once = counting.__await__()
    next(await_once)
    entries.clear()
    for _ in await_once:
        pass
    assert census.counts["sso"]["active"] == 3 * AT_ONCE
