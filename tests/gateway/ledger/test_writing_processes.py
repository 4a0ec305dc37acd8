"""Real processes that write to real databases at once, and databases that go away."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services import DATABASES, Service, new_database

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """``writing.py`` with the given environment, asked line by line."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.ledger.writing"],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def send(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def ask(self, line: str) -> dict[str, Any]:
        self.send(line)
        return self.answer()

    def kill(self) -> None:
        self._process.kill()
        self._close()

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            if not stream.closed:
                stream.close()
        self._process.wait(30)


@contextmanager
def processes(count: int, environment: dict[str, str]) -> Iterator[list[Process]]:
    # Not the settings of this test run, which choose a directory themselves.
    environment = environment | {"DJANGO_SETTINGS_MODULE": "grok2api.settings"}
    migrate = [sys.executable, "manage.py", "migrate", "--skip-checks", "-v", "0"]
    subprocess.run(migrate, cwd=ROOT, env=os.environ | environment, check=True, timeout=120)
    running = [Process(environment) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()


@pytest.mark.parametrize("service", DATABASES, ids=lambda service: service.name)
def test_processes_that_write_the_same_sums_neither_fail_nor_miscount(
    service: Service, tmp_path: Path
) -> None:
    data = {"GROK2API_DATA_DIR": str(tmp_path)}
    with (
        new_database(service, "ledger") as database,
        processes(3, database | data) as (first, second, third),
    ):
        for process in (first, second, third):
            process.send("load 400")
        for process in (first, second, third):
            assert process.answer() == {"queued": 0, "failed": 0}
        second.send("load 5000")
        third.send("load 400")
        third.answer()
        second.kill()
        assert first.ask("check")["mismatches"] == []
        first.end()
        third.end()


def recorded(file: Path) -> tuple[int, int]:
    """How many requests there are, and how many the days count."""
    with sqlite3.connect(file) as connection:
        rows = connection.execute(
            "SELECT (SELECT count(*) FROM gateway_requestrecord),"
            " (SELECT sum(requests) FROM gateway_dailyusage)"
        ).fetchone()
    connection.close()
    return rows[0], rows[1]


def test_a_file_that_is_locked_or_gone_for_a_while_loses_nothing(tmp_path: Path) -> None:
    data, aside = tmp_path / "data", tmp_path / "aside"
    file = data / "grok2api.sqlite3"
    with processes(1, {"GROK2API_DATA_DIR": str(data)}) as (process,):
        process.send("append 20")
        process.answer()
        assert process.ask("flush")["queued"] == 0
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        process.ask("append 20")
        assert process.ask("flush")["queued"] == 20
        process.ask("append 5")
        assert process.ask("flush")["queued"] == 25
        lock.execute("ROLLBACK")
        lock.close()
        assert process.ask("flush")["queued"] == 0
        assert recorded(file) == (45, 45)
        data.rename(aside)
        process.ask("append 5")
        assert process.ask("flush")["queued"] == 5
        aside.rename(data)
        assert process.ask("flush")["queued"] == 0
        assert recorded(file) == (50, 50)
        assert process.ask("check")["mismatches"] == []
        process.end()
