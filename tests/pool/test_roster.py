"""Between the database and the in-memory pool."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from pool import roster
from pool.entries import Entry, Quota
from pool.models import BucketQuota, Credential, Kind, Status
from pool.roster import SPENT_FOR, take_changes
from tests.pool.samples import START, make_entry
from tests.pool.workers import add, moment

pytestmark = pytest.mark.django_db


def loaded() -> Entry:
    (entry,) = roster.load().entries
    return entry


def row(credential: Credential) -> Credential:
    return Credential.objects.get(pk=credential.pk)


def quota_row(credential: Credential, bucket: str = "fast") -> BucketQuota:
    return BucketQuota.objects.get(credential=credential, bucket=bucket)


def entry_for(credential: Credential, *pending: str, **changes: Any) -> Entry:
    return make_entry(credential.pk, **({"pending_columns": set(pending)} | changes))


def test_it_loads_everything_that_selection_needs() -> None:
    credential = add(
        1, Kind.API, user_id="user", team_id="team", fail_count=3,
        resting_until=moment(START + 60), status_reason="why",
    )  # fmt: skip
    BucketQuota.objects.create(credential=credential, bucket="fast", remaining=7)
    BucketQuota.objects.create(
        credential=credential, bucket="auto", remaining=0, cooling_until=moment(START + 5)
    )
    entry = loaded()
    assert (entry.id, entry.kind, entry.sealed, entry.hint) == (
        credential.pk, "api", b"secret-1", "et-1",
    )  # fmt: skip
    assert (entry.user_id, entry.team_id, entry.failures) == ("user", "team", 3)
    assert (entry.resting_until, entry.invalid_reason) == (START + 60, "why")
    assert entry.quotas == {"fast": Quota(7), "auto": Quota(0, START + 5)}
    assert not entry.has_changes


@pytest.mark.parametrize(
    ("status", "active", "disabled"),
    [
        (Status.ACTIVE, True, False),
        (Status.COOLING, True, False),
        (Status.INVALID, False, False),
        (Status.DISABLED, False, True),
    ],
)
def test_a_status_says_whether_it_may_be_used(status: Status, active: bool, disabled: bool) -> None:
    add(status=status)
    assert (loaded().active, loaded().disabled) == (active, disabled)


@pytest.mark.parametrize(
    ("measured", "resets", "until"),
    [
        (START, None, START + SPENT_FOR),
        (START, START + 7000, START + 7000),
        (None, START + 7000, START + 7000),
        (None, None, 0.0),
    ],
)
def test_a_spent_bucket_without_a_cool_down_rests_until_it_may_be_full_again(
    measured: float | None, resets: float | None, until: float
) -> None:
    BucketQuota.objects.create(
        credential=add(),
        bucket="*",
        remaining=0,
        measured_at=moment(measured) if measured else None,
        resets_at=moment(resets) if resets else None,
    )
    assert loaded().quotas["*"].cooling_until == until


def test_it_tells_what_changed_lately() -> None:
    old, new = add(1), add(2)
    now = timezone.now()
    Credential.objects.filter(pk=old.pk).update(updated_at=now - timedelta(minutes=1))
    Credential.objects.filter(pk=new.pk).update(updated_at=now)
    assert roster.stamps(now - timedelta(seconds=1)) == {new.pk: now}
    assert roster.stamps(now) == {}
    assert roster.stamps(now - timedelta(minutes=2)).keys() == {old.pk, new.pk}
    assert roster.load().newest == now


def test_a_write_tells_in_which_rows_nobody_else_has_changed_anything() -> None:
    mine, shared = add(1), add(2)
    entries = roster.load().entries
    for entry in entries:
        entry.pending_uses = 1
    changes = [take_changes(entry) for entry in entries]
    Credential.objects.filter(pk=shared.pk).update(updated_at=timezone.now())

    written = roster.write(changes)

    mine.refresh_from_db()
    assert written == {mine.pk: mine.updated_at}


def test_it_reads_more_ids_than_fit_one_statement() -> None:
    Credential.objects.bulk_create(
        Credential(kind=Kind.SSO, sealed=b"x", fingerprint=f"{n:064}") for n in range(1200)
    )
    ids = sorted(roster.stamps())
    BucketQuota.objects.create(credential_id=ids[-1], bucket="fast", remaining=1)
    entries = roster.load_ids(ids)
    assert [entry.id for entry in entries] == ids
    assert entries[-1].quotas == {"fast": Quota(1)}
    assert roster.count() == 1200


def test_uses_counted_by_two_processes_add_up() -> None:
    credential = add(use_count=5)
    changes = [
        take_changes(entry_for(credential, pending_uses=uses, last_used=START)) for uses in (2, 3)
    ]
    roster.write(changes[:1])
    roster.write(changes[1:])
    found = row(credential)
    assert (found.use_count, found.last_used_at) == (10, moment(START))


def test_it_writes_only_what_changed() -> None:
    credential = add(fail_count=4, note="before", last_fail_reason="old", user_id="user")
    change = take_changes(entry_for(credential, "resting_until", resting_until=START + 9))
    Credential.objects.filter(pk=credential.pk).update(note="of the operator", fail_count=5)
    roster.write([change])
    found = row(credential)
    assert found.resting_until == moment(START + 9)
    assert (found.note, found.fail_count, found.last_fail_reason, found.user_id) == (
        "of the operator", 5, "old", "user",
    )  # fmt: skip


def test_every_write_can_be_noticed() -> None:
    credential = add()
    Credential.objects.filter(pk=credential.pk).update(updated_at=moment(START))
    roster.write([take_changes(entry_for(credential, pending_uses=1))])
    assert timezone.now() - row(credential).updated_at < timedelta(seconds=30)


def retired(credential: Credential) -> Entry:
    return entry_for(credential, "status", active=False, invalid_reason="dead")


def test_a_retired_credential_is_stored_as_invalid_with_the_reason() -> None:
    credential = add()
    roster.write([take_changes(retired(credential))])
    assert (row(credential).status, row(credential).status_reason) == ("invalid", "dead")


def test_what_the_operator_disabled_stays_disabled_when_it_is_retired() -> None:
    credential = add(status=Status.DISABLED, status_reason="mine")
    roster.write([take_changes(retired(credential))])
    assert (row(credential).status, row(credential).status_reason) == ("disabled", "mine")


@pytest.mark.parametrize("status", list(Status))
def test_cooling_never_changes_a_stored_status(status: Status) -> None:
    credential = add(status=status)
    quotas = {"fast": Quota(0, START + 9, dirty=True, cooling_dirty=True)}
    entry = entry_for(credential, "quotas", "resting_until", quotas=quotas, resting_until=START)
    roster.write([take_changes(entry)])
    assert row(credential).status == status


def test_what_was_deleted_meanwhile_stays_deleted() -> None:
    kept, gone = add(1), add(2)
    number = gone.pk
    gone.delete()
    entries = [
        make_entry(pk, pending_uses=1, quotas={"fast": Quota(1, dirty=True)})
        for pk in (number, kept.pk)
    ]
    roster.write([take_changes(entry) for entry in entries])
    assert row(kept).use_count == 1
    assert list(BucketQuota.objects.values_list("credential", flat=True)) == [kept.pk]


def test_a_quota_is_added_and_then_updated() -> None:
    credential = add()
    for remaining in (5, 4):
        quotas = {"fast": Quota(remaining, dirty=True), "auto": Quota(9)}
        roster.write([take_changes(entry_for(credential, "quotas", quotas=quotas))])
    found = quota_row(credential)
    assert (found.remaining, found.source, found.cooling_until) == (4, "estimate", None)
    assert BucketQuota.objects.count() == 1


def test_what_open_leases_hold_is_not_stored_as_used() -> None:
    credential = add()
    quotas = {"fast": Quota(5, reserved=2, dirty=True)}
    roster.write([take_changes(entry_for(credential, "quotas", quotas=quotas))])
    assert quota_row(credential).remaining == 7


def test_counting_down_does_not_end_a_cool_down_that_another_process_stored() -> None:
    credential = add()
    BucketQuota.objects.create(
        credential=credential, bucket="fast", remaining=0, cooling_until=moment(START + 60)
    )
    roster.write([take_changes(entry_for(credential, quotas={"fast": Quota(8, dirty=True)}))])
    assert quota_row(credential).cooling_until == moment(START + 60)


def test_a_cool_down_is_stored_to_the_second() -> None:
    credential = add()
    quotas = {"fast": Quota(0, START + 60.5, dirty=True, cooling_dirty=True)}
    roster.write([take_changes(entry_for(credential, quotas=quotas))])
    assert loaded().quotas["fast"] == Quota(0, START + 60.5)


def test_a_bucket_name_that_fits_no_column_is_not_stored() -> None:
    credential = add()
    quotas = {"x" * 65: Quota(1, dirty=True), "y" * 64: Quota(2, dirty=True)}
    roster.write([take_changes(entry_for(credential, quotas=quotas))])
    assert BucketQuota.objects.get().bucket == "y" * 64


def test_changes_are_taken_once() -> None:
    entry = make_entry(
        pending_uses=2, last_used=START, pending_columns={"fail_count", "quotas"}, failures=3,
        quotas={"fast": Quota(1, START, dirty=True, cooling_dirty=True)},
    )  # fmt: skip
    assert take_changes(entry).uses == 2
    assert not entry.has_changes
    again = take_changes(entry)
    assert (again.uses, again.columns, again.status, again.quotas) == (0, {}, None, {})


def test_changes_put_back_are_taken_again_with_what_came_in_between() -> None:
    entry = make_entry(
        pending_uses=2, last_used=START, pending_columns={"fail_count", "status", "quotas"},
        failures=3, active=False, invalid_reason="dead",
        quotas={"fast": Quota(1, START, dirty=True, cooling_dirty=True)},
    )  # fmt: skip
    before = take_changes(entry)
    entry.pending_uses += 1
    entry.quotas["fast"].remaining = 0
    roster.put_back(entry, before)
    again = take_changes(entry)
    assert again.uses == 3
    assert again.columns == before.columns
    assert again.status == (Status.INVALID, "dead")
    assert again.quotas == {"fast": roster.QuotaChange(0, START)}


def test_a_big_batch_is_one_write() -> None:
    rows = Credential.objects.bulk_create(
        Credential(kind=Kind.SSO, sealed=b"x", fingerprint=f"{n:064}") for n in range(700)
    )
    assert rows
    ids = sorted(roster.stamps(), reverse=True)
    quotas = [{b: Quota(1, dirty=True) for b in ("fast", "auto")} for _ in ids]
    entries = [
        make_entry(number, pending_uses=1, quotas=quota)
        for number, quota in zip(ids, quotas, strict=True)
    ]
    roster.write([take_changes(entry) for entry in entries])
    assert Credential.objects.filter(use_count=1).count() == 700
    assert BucketQuota.objects.count() == 1400
