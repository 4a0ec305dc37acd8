"""One worker process that leases as fast as it can.

``python -m tests.pool.shared.hammer NAME PREFIX CAP SECONDS LOG``: it writes a line "time
credential +1|-1" for each use, the time being one that all processes of the machine share. It
says "ready" and begins when it is told so. With SECONDS 0 it takes one lease and keeps it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from io import StringIO
from pathlib import Path
from random import Random

from pool.errors import NoCredential
from pool.policy import PoolPolicy
from tests.pool.shared.rig import Worker, measured

CREDENTIALS = 20
TASKS = 14


async def hammer(worker: Worker, log: StringIO, until: float, random: Random) -> None:
    while time.monotonic() < until:
        try:
            lease = await worker.lease()
        except NoCredential:
            await asyncio.sleep(0.001)
            continue
        log.write(f"{time.monotonic_ns()} {lease.credential_id} +1\n")
        await asyncio.sleep(random.random() * 0.005)
        log.write(f"{time.monotonic_ns()} {lease.credential_id} -1\n")
        await worker.pool.release(lease)
        await asyncio.sleep(random.random() * 0.002)


async def main(name: str, prefix: str, cap: str, seconds: str) -> str:
    entries = [measured(number, None) for number in range(1, CREDENTIALS + 1)]
    policy = PoolPolicy(max_concurrent=int(cap))
    worker = Worker(name, entries, prefix=prefix, policy=policy, seed=len(name))
    await worker.beat()
    if not float(seconds):
        await worker.lease()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    beats = asyncio.create_task(worker.store.beat_forever())
    log, random, until = StringIO(), Random(name), time.monotonic() + float(seconds)
    await asyncio.gather(*(hammer(worker, log, until, random) for _ in range(TASKS)))
    await worker.pool.aclose()
    beats.cancel()
    await worker.die()
    return log.getvalue()


if __name__ == "__main__":
    *arguments, file = sys.argv[1:]
    Path(file).write_text(asyncio.run(main(*arguments)), encoding="ascii")
