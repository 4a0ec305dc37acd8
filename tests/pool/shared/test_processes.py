"""Real worker processes on the same credentials."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.pool.shared.hammer import CREDENTIALS
from tests.pool.shared.rig import Fleet, measured
from tests.services import REDIS

ROOT = Path(__file__).parents[3]


def start(name: str, prefix: str, cap: int, seconds: float, log: Path) -> subprocess.Popen[str]:
    """It waits to be told to begin."""
    program = [sys.executable, "-m", "tests.pool.shared.hammer"]
    arguments = [name, prefix, str(cap), str(seconds), str(log)]
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("cap", [1, 2])
def test_two_processes_never_exceed_a_cap_together(fleet: Fleet, tmp_path: Path, cap: int) -> None:
    REDIS.need()
    logs = [tmp_path / name for name in ("one", "three")]
    running = [start(log.name, fleet.keys.prefix, cap, 2, log) for log in logs]
    for process in running:
        wait_until_ready(process)
    for process in running:
        assert process.stdin is not None
        process.stdin.write("begin\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0

    lines = [log.read_text(encoding="ascii").splitlines() for log in logs]
    events = sorted(tuple(map(int, line.split())) for line in [*lines[0], *lines[1]])
    held: Counter[int] = Counter()
    most: Counter[int] = Counter()
    for _, credential, change in events:
        held[credential] += change
        most[credential] = max(most[credential], held[credential])
    assert dict(most) == dict.fromkeys(range(1, CREDENTIALS + 1), cap)
    assert set(held.values()) == {0}
    assert min(map(len, lines)) > 200
    assert fleet.held() == 0


async def test_a_killed_process_leaves_its_places_to_the_others(
    fleet: Fleet, tmp_path: Path
) -> None:
    REDIS.need()
    entries = [measured(number, None) for number in range(1, CREDENTIALS + 1)]
    process = start("gone", fleet.keys.prefix, 1, 0, tmp_path / "log")
    wait_until_ready(process)
    process.kill()
    process.communicate(timeout=30)
    assert fleet.held() == 1
    survivor = await fleet.join("survivor", lambda: entries)
    fleet.keys.redis.zincrby(survivor.store.workers_key, -9, "gone")
    await survivor.beat()
    assert fleet.held() == 0
