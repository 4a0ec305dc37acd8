"""Upstream incidents reach the other workers and the operator's pages through the database."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from pool import operations
from pool.incident_record import exchange, unfinished
from pool.incidents import OpenIncident
from pool.models import Credential, Incident, Status
from pool.outcomes import Outcome, Verdict
from pool.policy import PoolPolicy
from tests.pool.samples import START, Clock
from tests.pool.workers import Worker, add

pytestmark = pytest.mark.django_db(transaction=True)

DEAD = Outcome(Verdict.RETIRE, "CredentialRejected (row 1)")
WATCHFUL = PoolPolicy(incident_threshold=3, incident_window=60.0)


def seen(last_seen: float, hit: set[int]) -> OpenIncident:
    return OpenIncident("UpstreamFailed (row 12)", START, last_seen, hit)


def test_one_incident_is_one_row_however_many_workers_see_it() -> None:
    exchange([seen(START, {1, 2, 3})], 60, START)
    exchange([seen(START + 5, {4})], 60, START + 5)
    known = exchange([seen(START + 3, {1, 2, 3, 5})], 60, START + 6)

    row = Incident.objects.get()
    assert (row.credentials, row.last_seen_at.timestamp()) == (4, START + 5)
    assert [(i.reason, i.since, i.last_seen) for i in known] == [
        ("UpstreamFailed (row 12)", START, START + 5)
    ]


def test_it_ends_when_nobody_has_seen_it_for_a_window() -> None:
    exchange([seen(START, {1})], 60, START)
    assert len(exchange([], 60, START + 59)) == 1
    assert exchange([], 60, START + 60) == []
    assert Incident.objects.get().ended_at is not None
    exchange([seen(START + 100, {1})], 60, START + 100)
    assert Incident.objects.count() == 2


def test_another_worker_stops_penalising_too() -> None:
    clock = Clock(time.time())
    for number in range(1, 6):
        add(number)
    with Worker(clock, policy=WATCHFUL) as first, Worker(clock, policy=WATCHFUL) as second:
        for _ in range(3):
            first.use(DEAD)
        first.flush()
        first.refresh()
        second.refresh()
        for _ in range(5):
            second.use(DEAD)
        assert all(entry.active for pool in (first.pool, second.pool) for entry in pool.entries)
    assert not Credential.objects.filter(status=Status.INVALID).exists()


def test_who_was_disabled_meanwhile_stays_disabled() -> None:
    clock = Clock(time.time())
    rows = [add(number) for number in range(1, 4)]
    with Worker(clock, policy=WATCHFUL) as worker:
        worker.use(DEAD)
        worker.flush()
        retired = Credential.objects.get(status=Status.INVALID)
        operations.disable(Credential.objects.filter(pk=retired.pk))
        worker.refresh()
        worker.use(DEAD)
        worker.use(DEAD)
    assert len(rows) == 3
    retired.refresh_from_db()
    assert retired.status == Status.DISABLED


def test_the_operator_is_told_on_every_page(client: Client) -> None:
    admin = User.objects.create(username="admin", is_staff=True, is_superuser=True)
    exchange([seen(START, {1, 2, 3})], 60, START)
    page = reverse("admin:pool_credential_changelist")

    assert "UpstreamFailed" not in client.get(reverse("admin:login")).content.decode()
    client.force_login(admin)
    body = client.get(page).content.decode()
    assert "UpstreamFailed (row 12) hit 3 credentials" in body

    unfinished().update(ended_at="2026-11-24T00:00:00Z")
    assert "UpstreamFailed" not in client.get(page).content.decode()
    assert (
        "UpstreamFailed" in client.get(reverse("admin:pool_incident_changelist")).content.decode()
    )
