"""Several worker processes of one server: any of them answers for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.telemetry import slots
from gateway.telemetry.slots import VARIABLE
from tests.gateway.telemetry.samples import Scrape
from tests.gateway.telemetry.worker import Worker

CHAT = {"operation": "chat", "model": "grok-4", "status": "2xx", "end": "completed"}
Spawn = Callable[[], Worker]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "metrics"
    slots.prepare_directory(path)
    yield path
    del os.environ[VARIABLE]


@pytest.fixture
def spawn(directory: Path) -> Iterator[Spawn]:
    """Starts a worker that is killed at the end."""
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(dict(os.environ)))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def scrape(worker: Worker) -> Scrape:
    return Scrape(worker.tell("render"))


def test_the_counts_of_all_workers_add_up_whichever_is_asked(spawn: Spawn) -> None:
    one, other = spawn(), spawn()
    one.tell("began", "observe", "began")
    other.tell("began", "observe", "began", "observe", "began", "open")

    for seen in (scrape(one), scrape(other)):
        assert seen.get("grok2api_requests_total", **CHAT) == 3
        labels = {"operation": "chat", "end": "completed"}
        assert seen.get("grok2api_request_duration_seconds_count", **labels) == 3
        assert seen.get("grok2api_request_duration_seconds_bucket", **labels, le="5.0") == 3
        assert seen.get("grok2api_request_duration_seconds_sum", **labels) == 9
        assert seen.get("grok2api_requests_in_flight") == 2
        assert seen.get("grok2api_streams_in_flight") == 1
        assert seen.get("grok2api_workers") == 2
        assert seen.get("grok2api_queue_depth", queue="ledger") == 6


def test_the_pool_is_what_a_worker_told_last_and_one_leader_is_enough(spawn: Spawn) -> None:
    one, other = spawn(), spawn()
    other.tell("credentials 5", "lead")
    one.tell("credentials 4")

    for seen in (scrape(one), scrape(other)):
        assert seen.get("grok2api_pool_credentials", kind="sso", state="active") == 4
        assert seen.get("grok2api_leader") == 1
    one.tell("lead")  # for a moment there may be two
    assert scrape(other).get("grok2api_leader") == 1


def test_a_killed_worker_leaves_its_counts_but_nothing_in_flight(spawn: Spawn) -> None:
    one, other = spawn(), spawn()
    one.tell("began", "open")
    other.tell("began", "observe", "began", "open", "open", "lead")
    other.kill()
    seen = scrape(one)

    assert seen.get("grok2api_requests_in_flight") == 1
    assert seen.get("grok2api_streams_in_flight") == 1
    assert seen.get("grok2api_requests_total", **CHAT) == 1
    assert seen.get("grok2api_leader") == 0
    assert seen.get("grok2api_queue_depth", queue="ledger") == 3
    assert seen.get("grok2api_workers") == 1


def test_a_new_worker_goes_on_with_a_dead_ones_counters_and_files(
    spawn: Spawn, directory: Path
) -> None:
    one, other = spawn(), spawn()
    one.tell("began", "observe")
    other.tell("began", "observe", "began", "open")
    files = {path.name for path in directory.iterdir()}
    other.kill()
    third = spawn()
    third.tell("began", "observe")

    assert (one.slot, other.slot, third.slot) == (0, 1, 1)
    assert {path.name for path in directory.iterdir()} == files
    for seen in (scrape(one), scrape(third)):
        assert seen.get("grok2api_requests_total", **CHAT) == 3
        assert seen.get("grok2api_requests_in_flight") == 0
        assert seen.get("grok2api_streams_in_flight") == 0


def test_each_running_process_has_its_own_figures(spawn: Spawn, directory: Path) -> None:
    one, other = spawn(), spawn()
    assert slots.running(directory) == {0: one.pid, 1: other.pid}
    seen = scrape(one).series("process_resident_memory_bytes")
    one.kill()

    assert set(seen) == {frozenset({("worker", "0")}), frozenset({("worker", "1")})}
    assert slots.running(directory) == {1: other.pid}
    assert set(scrape(other).series("process_open_fds")) == {frozenset({("worker", "1")})}


def test_a_file_that_has_just_been_made_does_not_spoil_a_scrape(
    spawn: Spawn, directory: Path
) -> None:
    one = spawn()
    one.tell("began", "observe")
    (directory / "counter_9.db").touch()

    assert scrape(one).get("grok2api_requests_total", **CHAT) == 1


def test_the_directory_is_prepared_empty_and_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "metrics"
    path.mkdir(parents=True)
    for name in ("counter_0.db", "slot-0.lock", "note.txt"):
        (path / name).touch()
    slots.prepare_directory(path)
    fresh = tmp_path / "fresh"
    slots.prepare_directory(fresh)

    assert [left.name for left in path.iterdir()] == ["note.txt"]
    assert fresh.stat().st_mode & 0o777 == 0o700
    assert os.environ.pop(VARIABLE) == str(fresh)


def test_without_a_directory_a_worker_counts_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert slots.join({}) is None
    assert caplog.records == []
    assert slots.join({VARIABLE: str(tmp_path / "gone")}) is None
    assert "is no directory" in caplog.text


def test_a_variable_that_leads_nowhere_does_not_stop_a_worker(tmp_path: Path) -> None:
    alone = Worker({**os.environ, VARIABLE: str(tmp_path / "gone")})
    alone.tell("began", "observe")

    assert alone.slot is None
    assert scrape(alone).get("grok2api_requests_total", **CHAT) == 1
    alone.kill()
