"""Two workers on the databases and on Redis: what they share, and how they lose and find it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.serve import SandboxThread
from tests.proxies import Proxy
from tests.services import MARIADB, POSTGRES, REDIS, Service, new_database, own_name, query
from tests.serving import HEARD_WITHIN, Served, wait_for
from tests.test_serve import children

FLEETS = [(POSTGRES, True), (MARIADB, True), (POSTGRES, False)]
CHATS = ("/ws/mgw/", "/rest/app-chat/conversations/new")
SAVED_WITHIN = 0.2
"""Seconds: the save delay of these fleets."""


@dataclass
class Fleet:
    """A server with two workers, and its database."""

    served: Served
    database: Service

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return query(self.database, own_name("fleet"), statement)

    def number(self, statement: str) -> int:
        return int(self.rows(statement)[0][0] or 0)

    def key(self, *limits: str) -> str:
        key: str = self.served.manage("create_api_key", "--name", "x", *limits, "--json")["key"]
        time.sleep(HEARD_WITHIN)
        return key

    def ask_many(self, key: str, count: int) -> Counter[int]:
        """Statuses of as many requests, on connections of their own, so that both workers get
        their share."""
        with ThreadPoolExecutor(12) as threads:
            return Counter(threads.map(lambda _: self.served.ask(key).status_code, range(count)))

    def leader(self) -> int:
        """The process id of the leading worker; 0 while there is none."""
        rows = self.rows("SELECT holder FROM pool_leadership WHERE name = 'background'")
        return int(rows[0][0].split(".")[-2]) if rows and rows[0][0] else 0


@contextmanager
def fleet(
    tmp_path: Path,
    sandbox: SandboxThread,
    database: Service,
    *,
    redis: bool,
    through: Proxy | None = None,
    redis_port: int = REDIS.port,
    **settings: str,
) -> Iterator[Fleet]:
    """``through`` stands between the workers and the database."""
    database.need()
    if redis:
        REDIS.need()
    with new_database(database, "fleet") as environment:
        extra = {"GROK2API_TOKEN__SAVE_DELAY_MS": str(int(SAVED_WITHIN * 1000)), **environment}
        if through is not None:
            url = extra["SERVER_STORAGE_URL"]
            extra["SERVER_STORAGE_URL"] = url.replace(str(database.port), str(through.port))
        if redis:
            extra["REDIS_URL"] = f"redis://127.0.0.1:{redis_port}/0"
        extra |= settings
        with Served(tmp_path / "data", sandbox, "--workers", "2", extra=extra) as served:
            yield Fleet(served, database)


def named(case: object) -> str:
    if isinstance(case, Service):
        return case.name
    return "with Redis" if case else "alone"


each_fleet = pytest.mark.parametrize(("database", "redis"), FLEETS, ids=named)


def chats(sandbox: SandboxThread) -> int:
    return sum(sandbox.state.counters[path] for path in CHATS)


@each_fleet
def test_workers_share_limits_and_cool_downs_and_obey_the_operator(
    tmp_path: Path, sandbox: SandboxThread, database: Service, redis: bool
) -> None:
    with fleet(tmp_path, sandbox, database, redis=redis) as two:
        two.served.seed(*(f"ok-{n}" for n in range(8)))

        limited = two.key("--chat", "7")
        assert two.ask_many(limited, 30) == {200: 7, 429: 23}
        expected = "SELECT SUM(chat) FROM pool_keyusage"
        assert wait_for(lambda: two.number(expected) >= 8, 5)
        assert two.number(expected) == 8  # seven, and the one that seeding asked

        key = two.key()
        everybody = (
            "from pool import operations as o, models as m; o.%s(m.Credential.objects.all())"
        )
        two.served.manage("shell", "-c", everybody % "disable")
        time.sleep(HEARD_WITHIN)
        assert two.ask_many(key, 20) == {429: 20}
        assert "8 disabled" in two.served.ask(key).json()["error"]["message"]

        two.served.manage("import_tokens", "-", "--pool", "ssoBasic", stdin="limited-noretry-1")
        assert wait_for(lambda: "cooling" in two.served.ask(key).text, 5)
        time.sleep(HEARD_WITHIN)
        before = chats(sandbox)
        assert two.ask_many(key, 20) == {429: 20}
        assert chats(sandbox) == before

        two.served.manage(
            "shell", "-c", "from pool import operations as o, models as m;"
            " o.clear_cooldown(m.Credential.objects.all())",
        )  # fmt: skip
        assert wait_for(lambda: (two.served.ask(key), chats(sandbox))[1] > before, 3)


@each_fleet
def test_a_killed_leader_is_succeeded_and_refreshing_goes_on(
    tmp_path: Path, sandbox: SandboxThread, database: Service, redis: bool
) -> None:
    with fleet(tmp_path, sandbox, database, redis=redis) as two:
        key = two.served.seed("ok-1")
        two.served.manage("import_tokens", "-", "--pool", "ssoSuper", stdin="limited-noretry-1")
        assert wait_for(lambda: "cooling" in two.served.ask(key, model="grok-4-heavy").text, 8)
        assert wait_for(lambda: two.leader() != 0, 10)
        first = two.leader()
        assert first in children(two.served.process.pid)
        time.sleep(HEARD_WITHIN)
        asked = sandbox.state.counters["/rest/rate-limits"]

        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()

        assert wait_for(lambda: two.leader() not in (0, first), 15)
        left = 15 - (time.monotonic() - killed)
        assert wait_for(lambda: sandbox.state.counters["/rest/rate-limits"] > asked, left)
        assert wait_for(lambda: two.served.ask(key).status_code == 200, 10)


@each_fleet
def test_a_kill_loses_no_credential_no_cool_down_and_only_the_last_moment_of_counts(
    tmp_path: Path, sandbox: SandboxThread, database: Service, redis: bool
) -> None:
    with fleet(tmp_path, sandbox, database, redis=redis) as two:
        two.served.seed(*(f"ok-{n}" for n in range(5)))
        two.served.manage("import_tokens", "-", "--pool", "ssoSuper", stdin="limited-noretry-1")
        limited = two.key("--chat", "20")
        other = two.key()
        assert wait_for(lambda: "cooling" in two.served.ask(other, model="grok-4-heavy").text, 8)
        assert two.ask_many(limited, 10) == {200: 10}
        time.sleep(SAVED_WITHIN + 1.5)
        assert two.ask_many(limited, 5) == {200: 5}

        os.killpg(two.served.process.pid, signal.SIGKILL)
        two.served.process.wait()

        assert two.number("SELECT COUNT(*) FROM pool_credential") == 6
        assert 11 <= two.number("SELECT SUM(use_count) FROM pool_credential") <= 16
        recorded = two.number("SELECT COUNT(*) FROM gateway_requestrecord WHERE status = 200")
        assert 11 <= recorded <= 16
        used = two.number(
            "SELECT chat FROM pool_keyusage JOIN pool_clientkey k ON k.id = key_id"
            " WHERE k.chat_limit = 20"
        )
        assert 10 <= used <= 15

        again = Served(tmp_path / "data", sandbox, "--workers", "2", extra=two.served.extra)
        with again:
            before = chats(sandbox)
            restored = Fleet(again, database)
            assert "cooling" in again.ask(restored.key(), model="grok-4-heavy").text
            assert chats(sandbox) == before
            passed = restored.ask_many(limited, 15)[200]
            assert 20 - 15 <= passed <= 20 - used


class Load(threading.Thread):
    """Asks about ten times a second until told to stop, and keeps every answer."""

    def __init__(self, served: Served, key: str) -> None:
        super().__init__(daemon=True)
        self._served, self._key = served, key
        self._over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.refusals: set[str] = set()
        self.seconds: list[float] = []

    def run(self) -> None:
        while not self._over.wait(0.1):
            began = time.monotonic()
            answer = self._served.ask(self._key)
            self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                self.refusals.add(answer.text)
            self.seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        self._over.set()
        self.join(30)


@pytest.mark.parametrize("mood", ["refuse", "hang"])
def test_a_database_that_is_gone_for_half_a_minute_loses_nothing(
    tmp_path: Path, sandbox: SandboxThread, mood: Any
) -> None:
    with (
        Proxy(POSTGRES.port) as proxy,
        fleet(tmp_path, sandbox, POSTGRES, redis=False, through=proxy) as two,
    ):
        key = two.served.seed(*(f"ok-{n}" for n in range(40)))
        load = Load(two.served, key)
        load.start()
        time.sleep(1)

        proxy.set(mood)
        time.sleep(30 if mood == "refuse" else 10)
        proxy.set("open")

        time.sleep(2)
        load.stop()
        assert load.statuses.keys() == {200}, load.refusals
        assert max(load.seconds) < 5
        answered = load.statuses[200] + 1
        records = "SELECT COUNT(*) FROM gateway_requestrecord WHERE status = 200"
        assert wait_for(lambda: two.number(records) >= answered, 40), two.served.output
        assert two.number(records) == answered
        uses = "SELECT SUM(use_count) FROM pool_credential"
        assert wait_for(lambda: two.number(uses) == answered, 10)
        assert two.number("SELECT SUM(requests) FROM gateway_hourlyusage") >= answered
        assert "Traceback" not in two.served.output


def test_a_worker_that_dies_while_the_database_is_away_comes_back_with_it(
    tmp_path: Path, sandbox: SandboxThread
) -> None:
    with (
        Proxy(POSTGRES.port) as proxy,
        fleet(tmp_path, sandbox, POSTGRES, redis=False, through=proxy) as two,
    ):
        key = two.served.seed(*(f"ok-{n}" for n in range(40)))
        proxy.set("refuse")
        first, second = children(two.served.process.pid)
        os.kill(first, signal.SIGKILL)
        assert wait_for(lambda: "so this worker waits" in two.served.output, 20)
        assert two.served.ask(key).status_code == 200
        proxy.set("open")

        assert wait_for(lambda: len(children(two.served.process.pid)) == 2, 20)
        assert second in children(two.served.process.pid)
        assert wait_for(lambda: two.ask_many(key, 6) == {200: 6}, 10)
        assert two.served.process.poll() is None


def test_a_slow_database_slows_no_request(tmp_path: Path, sandbox: SandboxThread) -> None:
    with (
        Proxy(POSTGRES.port) as proxy,
        fleet(tmp_path, sandbox, POSTGRES, redis=False, through=proxy) as two,
    ):
        key = two.served.seed(*(f"ok-{n}" for n in range(40)))
        proxy.delay = 0.4
        load = Load(two.served, key)
        load.start()
        time.sleep(6)
        load.stop()
        proxy.delay = 0.0
        assert load.statuses.keys() == {200}, load.refusals
        assert sorted(load.seconds)[len(load.seconds) // 2] < 1.0
        records = "SELECT COUNT(*) FROM gateway_requestrecord WHERE status = 200"
        assert wait_for(lambda: two.number(records) == load.statuses[200] + 1, 20)


@pytest.mark.parametrize("mood", ["refuse", "hang"])
def test_redis_may_go_and_come_back(tmp_path: Path, sandbox: SandboxThread, mood: Any) -> None:
    REDIS.need()
    with (
        Proxy(REDIS.port) as proxy,
        fleet(tmp_path, sandbox, POSTGRES, redis=True, redis_port=proxy.port) as two,
    ):
        key = two.served.seed(*(f"ok-{n}" for n in range(40)))
        load = Load(two.served, key)
        load.start()
        time.sleep(1)
        proxy.set(mood)
        time.sleep(5)
        assert "Redis is away" in two.served.output
        proxy.set("open")
        assert wait_for(lambda: two.served.output.count("Redis is back") == 2, 10)
        load.stop()
        assert load.statuses.keys() == {200}, load.refusals
        assert max(load.seconds) < 3
        penalised = (
            "SELECT COUNT(*) FROM pool_credential WHERE status <> 'active' OR fail_count > 0"
        )
        assert two.number(penalised) == 0
        limited = two.key("--chat", "7")
        assert two.ask_many(limited, 30) == {200: 7, 429: 23}
        assert "Traceback" not in two.served.output
