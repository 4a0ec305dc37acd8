"""Leadership among processes: one is killed, another goes on, and their clocks do not matter."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pool.leadership import TTL
from tests.services import MARIADB, POSTGRES, Service, new_database
from tests.serving import ROOT, environment, manage


class Candidate:
    def __init__(self, env: Mapping[str, str], name: str, ttl: float, hours: float) -> None:
        numbers = (ttl, ttl / 3, hours)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pool.candidate", name, *map(str, numbers)],
            cwd=ROOT,
            env={**env, "DJANGO_SETTINGS_MODULE": "grok2api.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def migrated(data_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    data_dir.mkdir()
    done = manage(data_dir, "migrate", "--verbosity", "0", extra=extra)
    assert done.returncode == 0, done.stderr
    return environment(data_dir, extra)


def seconds_to_succeed(env: Mapping[str, str], ttl: float, hours: tuple[float, float]) -> float:
    """Kill a leader while another candidate waits; the seconds until that one leads.

    Then it stops properly, and a third one must not have to wait for its lease.
    """
    first = Candidate(env, "first", ttl, hours[0])
    assert [first.says(), first.says()] == ["follows", "leads"]
    second = Candidate(env, "second", ttl, hours[1])
    assert second.says() == "follows"
    time.sleep(1.5)
    killed = time.monotonic()
    first.end(signal.SIGKILL)
    assert second.says() == "leads"
    taken = time.monotonic() - killed

    third = Candidate(env, "third", ttl, hours[0])
    assert third.says() == "follows"
    stopped = time.monotonic()
    assert second.end(signal.SIGTERM) == 0
    assert third.says() == "leads"
    assert time.monotonic() - stopped < ttl / 3 + 0.5
    third.end(signal.SIGTERM)
    return taken


def test_a_killed_leader_is_succeeded_within_twelve_seconds(tmp_path: Path) -> None:
    env = migrated(tmp_path / "data", {})
    assert TTL / 2 < seconds_to_succeed(env, TTL, (0, 0)) < 12


@pytest.mark.parametrize(
    ("service", "hours"),
    [(POSTGRES, (5, -5)), (MARIADB, (-5, 5))],
    ids=["leader ahead, PostgreSQL", "leader behind, MariaDB"],
)
def test_clocks_of_hosts_that_differ_by_hours_do_not_matter(
    tmp_path: Path, service: Service, hours: tuple[float, float]
) -> None:
    with new_database(service, "leader") as extra:
        env = migrated(tmp_path / "data", extra)
        assert 0.9 < seconds_to_succeed(env, 3.0, hours) < 4.5
