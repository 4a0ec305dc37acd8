"""Two workers through hundreds of faults: in the end everything shared is the truth."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from random import Random

import pytest

from pool.entries import Entry
from pool.errors import NoCredential
from pool.leases import Lease
from pool.outcomes import NEUTRAL, SPENT, SUCCESS
from pool.policy import PoolPolicy
from tests.pool.shared.rig import Fleet, OwnRedis, Wire, Worker, measured, wire_to

INITIAL = 1000
CREDENTIALS = range(1, 6)
CAP = 3
WEIGHTS = {
    "use": 8, "begin": 8, "end": 8, "give_up": 4, "beat": 8, "cut": 2, "mend": 4, "freeze": 1,
    "restart": 1, "lose_data": 2, "forget_scripts": 1, "bury": 2, "kill": 1,
}  # fmt: skip


class Chaos:
    """``used`` counts what has been consumed of each credential, whatever Redis knows of it."""

    def __init__(self, fleet: Fleet, server: OwnRedis, wires: list[Wire], seed: int) -> None:
        self.fleet = fleet
        self.server = server
        self.wires = wires
        self.random = Random(seed)
        self.workers: list[Worker] = []
        self.open: list[list[Lease]] = [[], []]
        self.used: Counter[int] = Counter()
        self.names = 0
        self.freezes = 0

    def record(self) -> list[Entry]:
        """What a newcomer finds in the database, where everybody has written by now."""
        return [measured(number, INITIAL - self.used[number]) for number in CREDENTIALS]

    async def begin_with(self, number: int) -> Worker:
        self.names += 1
        return await self.fleet.join(
            f"worker{self.names}",
            self.record,
            url=self.wires[number].url,
            policy=PoolPolicy(max_concurrent=CAP),
            timeout=0.5,
            seed=self.names,
        )

    async def step(self) -> None:
        what = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        await getattr(self, what)(self.random.randrange(2))

    async def begin(self, who: int) -> None:
        with suppress(NoCredential):
            self.open[who].append(await self.workers[who].lease())

    async def end(self, who: int) -> None:
        if not self.open[who]:
            return
        lease = self.open[who].pop(self.random.randrange(len(self.open[who])))
        outcome = self.random.choice([SUCCESS, SPENT, NEUTRAL, None])
        if outcome is not None:
            await self.workers[who].pool.settle(lease, outcome)
            self.used[lease.credential_id] += outcome is not NEUTRAL
        await self.workers[who].pool.release(lease)

    async def use(self, who: int) -> None:
        await self.begin(who)
        await self.end(who)

    async def give_up(self, who: int) -> None:
        request = asyncio.create_task(self.workers[who].lease())
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)
        request.cancel()
        with suppress(asyncio.CancelledError, NoCredential):
            self.open[who].append(await request)

    async def beat(self, who: int) -> bool:
        return await self.workers[who].beat()

    async def cut(self, who: int) -> None:
        await self.wires[who].cut()

    async def mend(self, who: int) -> None:
        if not self.wires[who].is_whole:
            await self.wires[who].mend()

    async def freeze(self, who: int) -> None:
        """Both find out, and go on; what they had sent is carried out when it thaws."""
        self.freezes += 1
        if self.freezes > 3:
            return
        self.server.freeze()
        for _ in range(3):
            await self.use(who)
            await self.use(1 - who)
        self.server.thaw()

    async def restart(self, who: int) -> None:
        self.server.stop(keeping=True)
        await self.use(who)
        self.server.start()

    async def are_in_touch(self) -> bool:
        """Whether nothing is known to one worker alone; else a loss of data may cost some."""
        return all([await self.beat(who) for who in (0, 1, 0, 1)])

    async def lose_data(self, who: int) -> None:
        if await self.are_in_touch():
            self.fleet.keys.redis.flushall()
            await self.use(who)

    async def forget_scripts(self, who: int) -> None:
        self.fleet.keys.redis.script_flush()

    async def bury(self, who: int) -> None:
        """One is taken for dead by the other, while it has leases open."""
        if await self.are_in_touch():
            self.fleet.grow_old(self.workers[who])
            await self.beat(1 - who)

    async def kill(self, who: int) -> None:
        """A worker dies; another takes its place."""
        if await self.are_in_touch():
            await self.workers[who].die()
            self.fleet.grow_old(self.workers[who])
            await self.beat(1 - who)
            self.workers[who], self.open[who] = await self.begin_with(who), []

    async def heal(self) -> None:
        for who in (0, 1):
            await self.mend(who)
        async with asyncio.timeout(20):
            while not await self.are_in_touch():
                pass


@pytest.fixture
async def wires(server: OwnRedis) -> AsyncIterator[list[Wire]]:
    server.start()
    async with wire_to(server.port) as one, wire_to(server.port) as other:
        yield [one, other]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_all_that_nothing_is_lost_or_made_up(
    own_fleet: Fleet, server: OwnRedis, wires: list[Wire], seed: int
) -> None:
    chaos = Chaos(own_fleet, server, wires, seed)
    chaos.workers = [await chaos.begin_with(0), await chaos.begin_with(1)]
    for _ in range(200):
        await chaos.step()
    await chaos.heal()

    held = Counter(lease.credential_id for leases in chaos.open for lease in leases)
    assert own_fleet.held() == held.total()
    for who in (0, 1, 0, 1):
        await fill(chaos, who)
    now = Counter(lease.credential_id for leases in chaos.open for lease in leases)
    assert all(now[number] <= max(CAP, held[number]) for number in CREDENTIALS)

    for who in (0, 1):
        while chaos.open[who]:
            await chaos.end(who)
        await chaos.workers[who].pool.courier.drain()
    await chaos.heal()
    assert own_fleet.held() == 0
    left = {number: INITIAL - chaos.used[number] for number in CREDENTIALS}
    for number, document in own_fleet.keys.documents().items():
        assert document["b"]["fast"] == {"q": left[number], "h": 0}
    for worker in chaos.workers:
        assert {number: worker.left(number) for number in CREDENTIALS} == left
        for entry in worker.pool.entries:
            assert (entry.active, entry.failures, entry.resting_until) == (True, 0, 0)
            assert (entry.in_flight, entry.elsewhere) == (0, 0)
        assert not worker.courier.done()


async def fill(chaos: Chaos, who: int) -> None:
    """Take all that can be had."""
    with suppress(NoCredential):
        while True:
            chaos.open[who].append(await chaos.workers[who].lease())
