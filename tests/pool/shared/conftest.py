from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.pool.shared.rig import Fleet, OwnRedis
from tests.services import REDIS


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Workers on the machine's Redis, with keys of their own."""
    REDIS.need()
    fleet = Fleet()
    yield fleet
    await fleet.close()


@pytest.fixture
def server() -> Iterator[OwnRedis]:
    """A Redis of the test's own, not yet started."""
    REDIS.need_driver()
    with OwnRedis() as server:
        yield server


@pytest.fixture
async def own_fleet(server: OwnRedis) -> AsyncIterator[Fleet]:
    """Workers on that one."""
    fleet = Fleet(server.url)
    yield fleet
    await fleet.close(is_there=False)
