"""The table of video jobs: claims that only one can have, steps that only their owner makes.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest
from django.db import connections
from django.utils import timezone

from gateway.videos.jobs import Acceptance, Ending, Job, NewJob, Status
from gateway.videos.models import VideoJob
from gateway.videos.table import Busy, JobTable, UnknownCursor

pytestmark = pytest.mark.django_db(transaction=True)
FAILED = Ending(error_code="upstream_error", error_message="It failed.", accepted=False)
DONE = Ending(video_name="v.mp4", poster_name="p.jpg")
_numbers = count(1)


def add(table: JobTable, key_id: int = 1, **changes: object) -> Job:
    values = {
        "public_id": f"video_{next(_numbers)}",
        "key_id": key_id,
        "key_name": "test",
        "model": "grok-imagine-1.0-video",
        "prompt": "waves 🌊",
        "ratio": "16:9",
        "seconds": 8,
        "size": "1280x720",
        "hd": True,
        "preset": "custom",
    }
    return table.add(NewJob(**values | changes))  # type: ignore[arg-type]


def silent_for(job: Job, seconds: float) -> None:
    VideoJob.objects.filter(id=job.id).update(
        heartbeat_at=timezone.now() - timedelta(seconds=seconds)
    )


def status_of(job: Job) -> str:
    return VideoJob.objects.get(id=job.id).status


def at_once(*works: Callable[[], object]) -> list[object]:
    """Their results, each from a thread and a connection of its own."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        try:
            barrier.wait(10)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))


def test_a_job_comes_back_as_it_was_put_in() -> None:
    table = JobTable("one")
    job = add(table)
    assert table.find(1, job.public_id) == job
    assert (job.status, job.prompt, job.accepted) == (Status.QUEUED, "waves 🌊", False)
    assert "waves" not in repr(job)


def test_the_oldest_jobs_are_claimed_first_and_once() -> None:
    one, two = JobTable("one"), JobTable("two")
    jobs = [add(one) for _ in range(3)]
    assert [job.id for job in one.claim_waiting(2)] == [jobs[0].id, jobs[1].id]
    assert [job.id for job in two.claim_waiting(5)] == [jobs[2].id]
    assert one.claim_waiting(5) == []


def test_of_workers_that_claim_at_the_same_time_each_job_has_one() -> None:
    if connections["default"].vendor == "sqlite":
        pytest.skip("the tests' database in memory has one writer")
    tables = [JobTable(f"worker-{i}") for i in range(4)]
    wanted = {add(tables[0]).id for _ in range(20)}
    found = at_once(*(lambda table=table: table.claim_waiting(20) for table in tables))
    claimed = [job.id for jobs in found for job in jobs]  # type: ignore[attr-defined]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= wanted


def test_a_claim_is_lost_after_a_long_silence() -> None:
    one, two = JobTable("one", stale=15), JobTable("two", stale=15)
    job = add(one)
    one.claim_waiting(1)
    silent_for(job, 10)
    assert two.claim_waiting(1) == []
    silent_for(job, 20)
    one.beat([job.id])
    assert two.claim_waiting(1) == []
    silent_for(job, 20)
    assert [found.id for found in two.claim_waiting(1)] == [job.id]
    one.beat([job.id])
    assert not one.submit(job.id)
    assert two.submit(job.id)


def test_a_job_under_way_is_no_longer_waiting_for_anybody() -> None:
    one, two = JobTable("one"), JobTable("two")
    job = add(one)
    one.claim_waiting(1)
    assert one.submit(job.id)
    silent_for(job, 60)
    assert two.claim_waiting(1) == []
    (orphan,) = two.claim_orphans(1)
    assert (orphan.id, orphan.status) == (job.id, Status.SUBMITTING)
    assert not one.accept(job.id, Acceptance("api", 7, "request-1"))
    assert not one.end(job.id, DONE)
    assert status_of(job) == Status.SUBMITTING


def test_what_was_let_go_is_taken_at_once() -> None:
    one, two = JobTable("one"), JobTable("two")
    job = add(one)
    one.claim_waiting(1)
    one.submit(job.id)
    assert one.accept(job.id, Acceptance("api", 7, "request-1"))
    one.let_go()
    (orphan,) = two.claim_orphans(1)
    assert (orphan.upstream, orphan.credential_id, orphan.upstream_id) == ("api", 7, "request-1")
    assert orphan.accepted


def test_an_end_is_final() -> None:
    table = JobTable("one")
    job = add(table)
    table.claim_waiting(1)
    table.submit(job.id)
    assert table.end(job.id, DONE)
    assert not table.end(job.id, FAILED)
    assert not table.submit(job.id)
    assert table.claim_orphans(5) == table.claim_waiting(5) == []
    found = table.find(1, job.public_id)
    assert found is not None
    assert (found.status, found.progress, found.video_name) == (Status.COMPLETED, 100, "v.mp4")
    assert found.expires_at is not None
    assert found.completed_at is not None
    assert found.expires_at - found.completed_at == timedelta(hours=24)


def test_progress_is_written_by_the_owner_alone() -> None:
    one, two = JobTable("one"), JobTable("two")
    job = add(one)
    one.claim_waiting(1)
    one.submit(job.id)
    one.write_progress({job.id: 40})
    two.write_progress({job.id: 90})
    assert VideoJob.objects.get(id=job.id).progress == 40


def test_pages_follow_one_another_in_both_directions() -> None:
    table = JobTable("one")
    ids = [add(table).public_id for _ in range(5)]
    add(table, key_id=2)

    def page(after: str, *, ascending: bool) -> tuple[list[str], bool]:
        jobs, more = table.page(1, after, 2, ascending=ascending)
        return [job.public_id for job in jobs], more

    assert page("", ascending=True) == (ids[:2], True)
    assert page(ids[1], ascending=True) == (ids[2:4], True)
    assert page(ids[3], ascending=True) == (ids[4:], False)
    assert page("", ascending=False) == (ids[:2:-1], True)
    assert page(ids[1], ascending=False) == (ids[:1], False)
    with pytest.raises(UnknownCursor):
        page("video_none", ascending=True)


def test_another_keys_jobs_are_out_of_reach() -> None:
    table = JobTable("one")
    job = add(table, key_id=1)
    assert table.find(2, job.public_id) is None
    assert table.remove(2, job.public_id) is None
    with pytest.raises(UnknownCursor):
        table.page(2, job.public_id, 5, ascending=True)
    assert table.find(1, job.public_id) is not None


def test_a_job_is_removed_before_and_after_but_not_while_it_runs() -> None:
    table = JobTable("one")
    waiting = add(table)
    assert table.remove(1, waiting.public_id) == waiting
    running = add(table)
    table.claim_waiting(1)
    with pytest.raises(Busy):
        table.remove(1, running.public_id)
    table.submit(running.id)
    silent_for(running, 60)
    with pytest.raises(Busy):
        table.remove(1, running.public_id)
    table.end(running.id, FAILED)
    assert table.remove(1, running.public_id) is not None
    assert table.remove(1, running.public_id) is None


def test_an_old_job_is_forgotten() -> None:
    table = JobTable("one")
    old, fresh = add(table), add(table)
    table.claim_waiting(2)
    for job in (old, fresh):
        table.end(job.id, DONE)
    VideoJob.objects.filter(id=old.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert table.find(1, old.public_id) is None
    assert [job.id for job in table.page(1, "", 5, ascending=True)[0]] == [fresh.id]
    assert table.prune() == 1
    assert table.find(1, fresh.public_id) is not None


def test_whether_a_job_was_accepted_is_open_until_it_is_known() -> None:
    table = JobTable("one")
    jobs = [add(table) for _ in range(4)]
    table.claim_waiting(4)
    for job in jobs[1:]:
        table.submit(job.id)
    table.accept(jobs[2].id, Acceptance("web", 1))
    table.end(jobs[3].id, FAILED)
    ids = [job.id for job in jobs]
    assert list(table.verdicts([*ids, 0]).values()) == [None, None, True, False, False]


def test_the_unfinished_are_counted() -> None:
    table = JobTable("one")
    for _ in range(2):
        add(table)
    (job,) = table.claim_waiting(1)
    assert table.unfinished() == 2
    table.end(job.id, DONE)
    assert table.unfinished() == 1


def test_a_long_message_of_an_error_is_cut() -> None:
    table = JobTable("one")
    job = add(table)
    table.claim_waiting(1)
    assert table.end(job.id, Ending(error_code="x", error_message="é" * 1000))
    found = table.find(1, job.public_id)
    assert found is not None
    assert found.error_message == "é" * 255
