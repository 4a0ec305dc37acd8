"""One process that wants a duty: ``python -m tests.pool.candidate NAME TTL RENEWAL HOURS``.

It prints ``leads`` and ``follows`` as it goes, and resigns on SIGTERM. HOURS is how far the
clock of its host is off.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import datetime, timedelta

import django
from django.utils import timezone


async def stand(name: str, ttl: float, renewal: float) -> None:
    from pool.leadership import Leader

    leader = Leader(name, ttl=ttl, renewal=renewal)
    running = asyncio.create_task(leader.run_forever())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    said: bool | None = None
    while not running.done():
        if leader.is_leader is not said:
            said = leader.is_leader
            sys.stdout.write("leads\n" if said else "follows\n")
            sys.stdout.flush()
        await asyncio.sleep(0.01)
    await leader.resign()


def set_clocks(hours: float) -> None:
    """Let everything of this process that tells the time of day be off."""
    right_time, right_now = time.time, timezone.now

    def wrong_now() -> datetime:
        return right_now() + timedelta(hours=hours)

    time.time = lambda: right_time() + hours * 3600
    timezone.now = wrong_now


if __name__ == "__main__":
    _, name, ttl, renewal, hours = sys.argv
    set_clocks(float(hours))
    django.setup()
    asyncio.run(stand(name, float(ttl), float(renewal)))
