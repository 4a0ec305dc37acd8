"""Writing the pool's changes in batches, and taking over those of other processes.

The same tests run on every kind of database (see test_other_databases.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from operator import eq

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from pool import roster
from pool.errors import NoCredential
from pool.keys import UnknownKey, create_client_key
from pool.leases import Want
from pool.models import BucketQuota, ClientKey, Credential, Status
from pool.outcomes import SUCCESS, Outcome, Verdict
from pool.upkeep import READING, WRITING, Upkeep
from tests.pool.samples import START, Clock, make_pool
from tests.pool.workers import LANE, WANT, Worker, add, moment, until

pytestmark = pytest.mark.django_db(transaction=True)


def row(credential: Credential) -> Credential:
    return Credential.objects.get(pk=credential.pk)


def quota(credential: Credential) -> BucketQuota:
    return BucketQuota.objects.get(credential=credential, bucket=LANE.bucket)


def measured(credential: Credential, remaining: int) -> Credential:
    BucketQuota.objects.create(credential=credential, bucket=LANE.bucket, remaining=remaining)
    return credential


def change(credential: Credential, **columns: object) -> None:
    """As the admin does it: the columns and the time of the change."""
    Credential.objects.filter(pk=credential.pk).update(**columns, updated_at=timezone.now())


def age_everything() -> None:
    """Let all rows look as if nobody had touched them for an hour."""
    Credential.objects.update(updated_at=timezone.now() - timedelta(hours=1))


def refused(worker: Worker) -> str:
    with pytest.raises(NoCredential) as error:
        worker.use()
    return error.value.message


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Broken:
    """A writer that fails while ``broken``, then does the real thing."""

    def __init__(self) -> None:
        self.broken = True
        self.calls = 0

    def __call__(self, changes: Iterable[roster.Change]) -> None:
        self.calls += 1
        if self.broken:
            raise OperationalError("the database is away")
        roster.write(changes)


def test_it_loads_credentials_and_keys() -> None:
    credential = add()
    _, clear = create_client_key("test")
    with Worker() as worker:
        assert worker.use() == credential.pk
        assert worker.keys.lookup(clear).name == "test"


def test_uses_are_written_once_however_many_there_were() -> None:
    credential = measured(add(), 10)
    with Worker() as worker:
        for _ in range(4):
            worker.use()
        assert worker.upkeep.backlog == 1
        worker.flush()
        assert worker.upkeep.backlog == 0
        assert (row(credential).use_count, quota(credential).remaining) == (4, 6)
        worker.flush()
    assert row(credential).use_count == 4


def test_closing_writes_what_is_pending() -> None:
    credential = measured(add(), 10)
    with Worker() as worker:
        worker.use()
        worker.use(Outcome(Verdict.RETIRE, "dead"))
    found = row(credential)
    assert (found.use_count, found.status, found.status_reason) == (1, Status.INVALID, "dead")
    assert quota(credential).remaining == 9


def test_a_restart_remembers_cool_downs_and_statuses() -> None:
    clock = Clock()
    cooled, resting, dead, fine = (add(number) for number in (1, 2, 3, 4))
    with Worker(clock) as worker:
        worker.use(Outcome(Verdict.COOL_BUCKET, retry_after=60), pinned(cooled))
        worker.use(Outcome(Verdict.BACK_OFF, retry_after=90), pinned(resting))
        worker.use(Outcome(Verdict.RETIRE), pinned(dead))
    with Worker(clock) as worker:
        assert worker.entry(cooled).quotas[LANE.bucket].cooling_until == START + 60
        assert worker.entry(resting).resting_until == START + 90
        assert worker.entry(resting).failures == 1
        assert not worker.entry(dead).active
        assert {worker.use() for _ in range(12)} == {fine.pk}
        change(fine, status=Status.DISABLED)
        worker.refresh()
        assert "2 cooling until" in refused(worker)
        clock.now += 60
        assert {worker.use() for _ in range(12)} == {cooled.pk}
    with Worker(clock) as worker:
        assert {worker.use() for _ in range(12)} == {cooled.pk}


def pinned(credential: Credential) -> Want:
    return Want((LANE,), "grok-4", only=credential.pk)


def test_a_cool_down_that_ended_during_the_stop_is_over_after_it() -> None:
    clock = Clock()
    credential = measured(add(), 1)
    with Worker(clock) as worker:
        worker.use()
        assert "1 cooling" in refused(worker)
    clock.now += 900
    with Worker(clock) as worker:
        assert worker.use() == credential.pk
        worker.flush()
        age_everything()
        worker.refresh()
        assert worker.use() == credential.pk


def test_it_sees_a_new_credential_and_a_new_key() -> None:
    with Worker() as worker:
        assert "the pool holds none" in refused(worker)
        credential = add()
        _, clear = create_client_key("late")
        worker.refresh()
        assert worker.use() == credential.pk
        assert worker.keys.lookup(clear).name == "late"


def test_it_sees_that_the_operator_disabled_or_enabled_one() -> None:
    credential = add()
    with Worker() as worker:
        change(credential, status=Status.DISABLED)
        worker.refresh()
        assert "1 disabled" in refused(worker)
        change(credential, status=Status.ACTIVE)
        worker.refresh()
        assert worker.use() == credential.pk


def test_it_sees_a_disabling_of_one_that_is_in_use_all_the_time() -> None:
    """Unwritten changes of its own must not hide what the operator did."""
    credential = measured(add(), 10)
    with Worker() as worker:
        worker.use()
        change(credential, status=Status.DISABLED, note="mine")
        worker.refresh()
        assert "1 disabled" in refused(worker)
        assert worker.entry(credential).pending_uses == 1
    found = row(credential)
    assert (found.status, found.note, found.use_count) == (Status.DISABLED, "mine", 1)


def test_it_sees_deletions() -> None:
    gone, kept = add(1), add(2)
    _, clear = create_client_key("gone")
    with Worker() as worker:
        gone.delete()
        ClientKey.objects.all().delete()
        worker.refresh()
        assert len(worker.pool) == 1
        assert {worker.use() for _ in range(8)} == {kept.pk}
        with pytest.raises(UnknownKey):
            worker.keys.lookup(clear)


def test_a_deletion_while_leased_ends_quietly() -> None:
    credential = measured(add(), 10)
    with Worker() as worker:
        lease = worker.run(worker.pool.lease(WANT))
        credential.delete()
        worker.refresh()
        worker.run(worker.pool.settle(lease, SUCCESS))
        worker.run(worker.pool.release(lease))
        worker.flush()
        assert "the pool holds none" in refused(worker)
    assert not Credential.objects.exists()
    assert not BucketQuota.objects.exists()


def test_one_replaced_by_another_between_two_looks_is_seen() -> None:
    gone = add(1)
    with Worker() as worker:
        gone.delete()
        credential = add(2)
        worker.refresh()
        assert worker.use() == credential.pk
        assert len(worker.pool) == 1


def test_it_finds_a_row_whose_transaction_ended_long_after_its_time() -> None:
    with Worker() as worker:
        add(1)
        worker.refresh()
        late = add(2)
        age_everything()
        worker.refresh()
        assert worker.use(want=pinned(late)) == late.pk


def test_a_host_whose_clock_is_ahead_does_not_hide_later_changes() -> None:
    ahead, credential = add(1), add(2)
    with Worker() as worker:
        Credential.objects.filter(pk=ahead.pk).update(updated_at=timezone.now() + timedelta(days=1))
        worker.refresh()
        change(credential, status=Status.DISABLED)
        worker.refresh()
        assert worker.entry(credential).disabled


def rows_read(worker: Worker) -> int:
    """How many credentials one look for changes brings in from the database."""
    before = {entry.id: entry.stamp for entry in worker.pool.entries}
    for entry in worker.pool.entries:
        entry.stamp = None
    worker.refresh()
    read = sum(entry.stamp is not None for entry in worker.pool.entries)
    for entry in worker.pool.entries:
        entry.stamp = before[entry.id]
    return read


def test_an_import_is_not_read_again_every_second_for_ever() -> None:
    clock = Clock()
    credentials = [add(number) for number in (1, 2, 3)]
    with Worker(clock) as worker:
        assert rows_read(worker) == 3
        clock.now += 11
        assert rows_read(worker) == 0
        change(credentials[0], status=Status.DISABLED)
        worker.refresh()
        assert worker.entry(credentials[0]).disabled


def test_re_reading_what_it_wrote_itself_changes_nothing() -> None:
    credential = measured(add(), 10)
    with Worker() as worker:
        worker.use()
        worker.flush()
        open_lease = worker.run(worker.pool.lease(WANT))
        worker.refresh()
        assert worker.entry(credential).quotas[LANE.bucket].remaining == 8
        worker.run(worker.pool.settle(open_lease, SUCCESS))
        worker.run(worker.pool.release(open_lease))
    assert (row(credential).use_count, quota(credential).remaining) == (2, 8)


def test_a_retirement_not_yet_written_survives_a_look_at_the_record() -> None:
    credential = add()
    with Worker() as worker:
        worker.use(Outcome(Verdict.RETIRE, "dead"))
        change(credential, note="touched")
        worker.refresh()
        assert "1 invalid" in refused(worker)
    assert row(credential).status == Status.INVALID


def test_an_operator_who_disables_wins_over_a_retirement_written_afterwards() -> None:
    credential = add()
    with Worker() as worker:
        worker.use(Outcome(Verdict.RETIRE, "dead"))
        change(credential, status=Status.DISABLED, status_reason="mine")
        worker.flush()
        assert (row(credential).status, row(credential).status_reason) == ("disabled", "mine")
        worker.refresh()
        change(credential, status=Status.ACTIVE)
        worker.refresh()
        assert worker.use() == credential.pk


def test_a_retired_one_that_got_a_new_secret_is_used_again() -> None:
    credential = add()
    with Worker() as worker:
        worker.use(Outcome(Verdict.RETIRE, "dead"))
        worker.flush()
        worker.refresh()
        change(credential, status=Status.ACTIVE, status_reason="", sealed=b"secret-new")
        worker.refresh()
        lease = worker.run(worker.pool.lease(WANT))
        assert lease.secret == "secret-new"
        worker.run(worker.pool.release(lease))


def test_two_processes_add_their_uses_and_hear_of_each_others_cool_downs() -> None:
    clock = Clock()
    credential = add()
    with Worker(clock) as one, Worker(clock) as two:
        one.use()
        two.use()
        one.flush()
        two.flush()
        assert row(credential).use_count == 2
        one.use(Outcome(Verdict.COOL_BUCKET, retry_after=60))
        one.flush()
        two.refresh()
        assert "1 cooling until" in refused(two)
        clock.now += 60
        assert two.use() == credential.pk


def test_a_process_that_counts_on_does_not_end_the_others_cool_down() -> None:
    clock = Clock()
    credential = measured(add(), 10)
    with Worker(clock) as one, Worker(clock) as two:
        two.use()
        one.use(Outcome(Verdict.COOL_BUCKET, retry_after=60))
        one.flush()
        two.refresh()
        assert "1 cooling until" in refused(two)
        two.flush()
        assert quota(credential).cooling_until == moment(START + 60)


def test_a_change_that_could_not_be_written_is_written_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    credential, writer = measured(add(), 10), Broken()
    with Worker(write=writer) as worker:
        worker.use()
        worker.flush()
        worker.use()
        worker.flush()
        assert (worker.upkeep.backlog, row(credential).use_count) == (1, 0)
        writer.broken = False
        worker.use(Outcome(Verdict.RETIRE, "dead"))
        worker.flush()
        assert worker.upkeep.backlog == 0
    found = row(credential)
    assert (found.use_count, found.status, found.status_reason) == (2, Status.INVALID, "dead")
    assert quota(credential).remaining == 8
    assert [r.message for r in caplog.records] == [f"{WRITING}: OperationalError"]


def test_a_failed_batch_holds_the_next_ones_back_and_loses_none() -> None:
    Credential.objects.bulk_create(
        Credential(kind="sso", sealed=b"x", fingerprint=f"{n:064}")
        for n in range(roster.CHUNK + 50)
    )
    writer = Broken()
    with Worker(write=writer) as worker:
        for number in roster.stamps():
            worker.use(want=Want((LANE,), "grok-4", only=number))
        worker.flush()
        assert (writer.calls, worker.upkeep.backlog) == (1, roster.CHUNK + 50)
        writer.broken = False
    assert Credential.objects.filter(use_count=1).count() == roster.CHUNK + 50


def test_what_only_we_have_changed_is_not_read_again() -> None:
    credential = add()
    with Worker() as worker:
        worker.use()
        worker.flush()
        credential.refresh_from_db()
        assert worker.entry(credential).stamp == credential.updated_at


def test_what_another_changed_just_before_our_write_is_still_taken_over() -> None:
    credential = add()
    with Worker() as first, Worker() as second:
        for worker in (first, second):
            worker.use()
        second.use(Outcome(Verdict.RETIRE, "CredentialRejected (row 1)"))
        second.flush()
        first.flush()
        first.refresh()
        assert not first.entry(credential).active
    credential.refresh_from_db()
    assert credential.use_count == 2


def test_changes_lost_at_the_end_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    add()
    with Worker(write=Broken()) as worker:
        worker.use()
    assert "changes of 1 credentials could not be written" in caplog.messages


def test_nothing_is_lost_when_the_stop_comes_in_the_middle_of_a_write() -> None:
    credential = add()
    entered, go_on = threading.Event(), threading.Event()

    def slow(changes: Iterable[roster.Change]) -> None:
        entered.set()
        assert go_on.wait(10)
        roster.write(changes)

    async def stop_while_writing(worker: Worker) -> None:
        writing = asyncio.create_task(worker.upkeep.write_forever())
        await worker.ause()
        await until(entered.is_set)
        await worker.ause()
        await end(writing)
        go_on.set()

    with Worker(write=slow) as worker:
        worker.run(stop_while_writing(worker))
    assert row(credential).use_count == 2


def test_a_look_during_a_write_does_not_bring_old_facts_back() -> None:
    credential = add()
    entered, go_on = threading.Event(), threading.Event()

    def slow(changes: Iterable[roster.Change]) -> None:
        entered.set()
        assert go_on.wait(10)
        roster.write(changes)

    async def look_while_writing(worker: Worker) -> None:
        await worker.ause(Outcome(Verdict.RETIRE))
        looking = asyncio.create_task(worker.upkeep.refresh(worker.pool, worker.keys))
        await asyncio.sleep(0)
        writing = asyncio.create_task(worker.upkeep.flush())
        await until(entered.is_set)
        assert not worker.entry(credential).active
        go_on.set()
        await asyncio.gather(looking, writing)

    with Worker(write=slow) as worker:
        change(credential, note="so that it is read again")
        worker.run(look_while_writing(worker))
        assert not worker.entry(credential).active
    assert row(credential).status == Status.INVALID


def test_the_writer_waits_for_the_delay_and_then_goes_on_for_ever() -> None:
    credential = add()
    batches: list[int] = []

    def counting(changes: Iterable[roster.Change]) -> None:
        kept = list(changes)
        batches.append(sum(change.uses for change in kept))
        roster.write(kept)

    async def two_bursts(worker: Worker) -> None:
        writing = asyncio.create_task(worker.upkeep.write_forever())
        for expected in ([5], [5, 3]):
            for _ in range(expected[-1]):
                await worker.ause()
            await until(partial(eq, batches, expected))
        await end(writing)

    with Worker(write=counting, save_delay=0.01) as worker:
        worker.run(two_bursts(worker))
    assert row(credential).use_count == 8


def test_following_survives_a_database_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The table is taken away and put back, which to a reader is an outage like any other."""

    async def follow(worker: Worker) -> None:
        following = asyncio.create_task(worker.upkeep.follow_forever(worker.pool, worker.keys))
        await asyncio.to_thread(rename, "pool_credential", "away")
        await until(lambda: READING in str(caplog.messages))
        await asyncio.to_thread(rename, "away", "pool_credential")
        await asyncio.to_thread(add_and_close, 2)
        await until(lambda: len(worker.pool) == 2)
        await end(following)

    add(1)
    with Worker() as worker:
        worker.run(follow(worker))
    assert len([m for m in caplog.messages if m.startswith(READING)]) == 1


def rename(before: str, after: str) -> None:
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {before} RENAME TO {after}")


def add_and_close(number: int) -> None:
    add(number)
    connection.close()


async def test_an_owner_without_a_record_can_let_go() -> None:
    upkeep = Upkeep(save_delay=lambda: 0.0)
    pool = make_pool(changed=upkeep.note)
    upkeep.abandon()
    assert (upkeep.backlog, len(pool)) == (0, 0)
