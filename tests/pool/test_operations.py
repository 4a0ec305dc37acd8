"""What the operator does by hand outranks what workers know."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from pool import operations
from pool.models import BucketQuota, Credential, Status
from pool.outcomes import Outcome, Verdict
from tests.pool.samples import Clock
from tests.pool.workers import Worker, add, moment

pytestmark = pytest.mark.django_db(transaction=True)

ALL = Credential.objects.all
LIMITED = Outcome(Verdict.COOL_BUCKET, "QuotaExhausted (row 5)", 600)
DEAD = Outcome(Verdict.RETIRE, "CredentialRejected (row 1)")


@pytest.fixture
def clock() -> Clock:
    return Clock(timezone.now().timestamp())


def test_a_disabled_credential_is_out_at_the_next_look(clock: Clock) -> None:
    credential = add()
    with Worker(clock) as worker:
        assert operations.disable(ALL()) == 1
        worker.refresh()
        assert not worker.entry(credential).active
        assert worker.entry(credential).disabled
        assert operations.enable(ALL()) == 1
        worker.refresh()
        assert worker.use() == credential.pk
    assert operations.disable(Credential.objects.none()) == 0


def test_enabling_brings_back_what_was_retired(clock: Clock) -> None:
    credential = add()
    with Worker(clock) as worker:
        worker.use(DEAD)
        worker.flush()
        worker.refresh()
        credential.refresh_from_db()
        assert credential.status == Status.INVALID
        operations.enable(ALL())
        worker.refresh()
        assert worker.use() == credential.pk
    credential.refresh_from_db()
    assert (credential.status, credential.status_reason) == (Status.ACTIVE, "")


def test_a_cleared_cool_down_is_over_in_every_worker(clock: Clock) -> None:
    credential = add()
    with Worker(clock) as first, Worker(clock) as second:
        first.use(LIMITED)
        first.flush()
        for worker in (first, second):
            worker.refresh()
            assert worker.entry(credential).is_cooling(clock.now)
        assert operations.clear_cooldown(ALL()) == 1
        for worker in (first, second):
            worker.refresh()
            assert worker.use() == credential.pk
    assert operations.clear_cooldown(ALL()) == 0


def test_a_cool_down_that_was_not_written_yet_does_not_come_back(clock: Clock) -> None:
    """The worker learnt of it before the operator's change and would write it after."""
    credential = add()
    BucketQuota.objects.create(
        credential=credential, bucket="auto", remaining=0, cooling_until=moment(clock.now + 60)
    )
    with Worker(clock) as worker:
        worker.use(LIMITED)
        operations.clear_cooldown(ALL())
        worker.flush()
        assert not BucketQuota.objects.filter(cooling_until__isnull=False).exists()
        worker.refresh()
        assert worker.use() == credential.pk
    credential.refresh_from_db()
    assert credential.use_count == 1


def test_uses_are_counted_whatever_the_operator_changes(clock: Clock) -> None:
    credential = add()
    with Worker(clock) as worker:
        worker.use()
        operations.reset_quota(ALL())
        operations.disable(ALL())
        worker.flush()
        worker.refresh()
    credential.refresh_from_db()
    assert (credential.use_count, credential.status) == (1, Status.DISABLED)
    assert credential.last_used_at is not None


def test_a_reset_quota_is_unknown_and_not_zero(clock: Clock) -> None:
    credential = add()
    quota = BucketQuota.objects.create(
        credential=credential, bucket="fast", remaining=0, total=30, source="upstream",
        measured_at=timezone.now(), cooling_until=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    with Worker(clock) as worker:
        assert worker.entry(credential).quotas["fast"].remaining == 0
        assert operations.reset_quota(ALL()) == 1
        worker.refresh()
        assert worker.use() == credential.pk
        assert worker.entry(credential).quotas["fast"].remaining is None
    quota.refresh_from_db()
    assert (quota.remaining, quota.total, quota.cooling_until) == (None, None, None)


def test_a_deleted_credential_is_gone_with_its_numbers(clock: Clock) -> None:
    credential = add()
    BucketQuota.objects.create(credential=credential, bucket="fast", remaining=3)
    with Worker(clock) as worker:
        assert operations.delete(ALL()) == 1
        worker.refresh()
        assert worker.pool.get(credential.pk) is None
    assert not BucketQuota.objects.exists()


def test_a_note_does_not_undo_what_workers_have_learnt(clock: Clock) -> None:
    credential = add()
    with Worker(clock) as worker:
        worker.use(LIMITED)
        credential.note = "mine"
        operations.save_edit(credential, ["note"])
        worker.flush()
        worker.refresh()
        assert worker.entry(credential).is_cooling(clock.now)
    credential.refresh_from_db()
    assert (credential.note, credential.revision) == ("mine", 0)


def test_many_at_once_are_more_than_one_statement_takes(clock: Clock) -> None:
    rows = Credential.objects.bulk_create(
        Credential(kind="sso", sealed=b"x", fingerprint=f"{n:064}")
        for n in range(operations.CHUNK + 7)
    )
    BucketQuota.objects.bulk_create(
        BucketQuota(credential=row, bucket="fast", remaining=0) for row in Credential.objects.all()
    )
    assert operations.clear_cooldown(ALL()) == len(rows)
    assert not BucketQuota.objects.filter(remaining=0).exists()
    assert Credential.objects.filter(revision=1).count() == len(rows)
