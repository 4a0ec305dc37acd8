"""The ledger in Django's admin: read, and cheap to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django.fixtures import Settings

from gateway.admin import CappedPaginator
from gateway.ledger.models import DailyUsage, HourlyUsage, RequestRecord
from tests.gateway.ledger.samples import NOON, attempt, exchange, keep

pytestmark = pytest.mark.django_db
TABLES = ("requestrecord", "hourlyusage", "dailyusage")


@pytest.fixture(autouse=True)
def static_root(settings: Settings, tmp_path: Path) -> None:
    """An existing directory: WhiteNoise warns of a missing one, and warnings are errors."""
    settings.STATIC_ROOT = str(tmp_path)


@pytest.fixture
def admin_client(client: Client) -> Client:
    """pytest-django's without its password, whose hashing takes longer than most tests."""
    client.force_login(User.objects.create(username="admin", is_staff=True, is_superuser=True))
    return client


def page(client: Client, table: str, query: str = "") -> str:
    answer = client.get(reverse(f"admin:gateway_{table}_changelist") + query)
    assert answer.status_code == 200
    body: str = answer.content.decode()
    return body


def test_it_lists_requests_and_sums(admin_client: Client) -> None:
    keep(exchange(key_name="alice", model="grok-4-heavy", error_code="upstream_error"))
    body = page(admin_client, "requestrecord")
    assert "alice" in body
    assert "upstream_error" in body
    for table in ("hourlyusage", "dailyusage"):
        assert "grok-4-heavy" in page(admin_client, table)


def test_it_shows_the_attempts_of_a_request(admin_client: Client) -> None:
    keep(exchange(attempts=[attempt(3, left="QuotaExhausted", row=5)]))
    row = RequestRecord.objects.get()
    answer = admin_client.get(reverse("admin:gateway_requestrecord_change", args=[row.pk]))
    assert "QuotaExhausted" in answer.content.decode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ali", ["alice"]),
        ("3f2a", ["bob"]),
        ("%", []),
        ("nobody", []),
        ("", ["alice", "bob"]),
        ("  ", ["alice", "bob"]),
    ],
)
def test_it_finds_by_key_and_by_request(admin_client: Client, text: str, found: list[str]) -> None:
    keep(exchange(id="77"), exchange(id="3f2abc", key_name="bob", key_id=2))
    body = page(admin_client, "requestrecord", f"?q={text.replace('%', '%25')}")
    assert [name for name in ("alice", "bob") if f">{name}</" in body] == found


def test_it_filters_by_end(admin_client: Client) -> None:
    keep(exchange(key_name="alice"))
    assert ">alice</" in page(admin_client, "requestrecord", "?end__exact=completed")
    assert ">alice</" not in page(admin_client, "requestrecord", "?end__exact=failed")


@pytest.mark.parametrize("table", TABLES)
def test_nobody_adds_changes_or_deletes(admin_client: Client, table: str) -> None:
    keep(exchange())
    rows: Any = {
        "requestrecord": RequestRecord.objects,
        "hourlyusage": HourlyUsage.objects,
        "dailyusage": DailyUsage.objects,
    }[table]
    row = rows.get()
    name = f"admin:gateway_{table}"
    assert admin_client.get(reverse(f"{name}_add")).status_code == 403
    change = reverse(f"{name}_change", args=[row.pk])
    assert admin_client.post(change, {"model": "changed"}).status_code == 403
    assert admin_client.post(reverse(f"{name}_delete", args=[row.pk])).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(reverse(f"{name}_changelist"), chosen)
    assert rows.get().model == "grok-4"


def test_staff_need_the_right_to_look(client: Client) -> None:
    staff = User.objects.create(username="staff", is_staff=True)
    client.force_login(staff)
    address = reverse("admin:gateway_requestrecord_changelist")
    assert client.get(address).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="view_requestrecord"))
    assert client.get(address).status_code == 200


@pytest.mark.parametrize("table", TABLES)
def test_a_list_reads_no_more_than_its_first_rows(admin_client: Client, table: str) -> None:
    keep(*(exchange(NOON, model=f"grok-{number}") for number in range(120)))
    with CaptureQueriesContext(connection) as caught:
        page(admin_client, table)
    asked = [query["sql"] for query in caught if f"gateway_{table}" in query["sql"]]
    assert len(asked) == 2, "the capped count, and the page"
    assert all("LIMIT" in statement for statement in asked)
    assert not any("DISTINCT" in statement for statement in asked)


def test_pages_end_where_skipping_would_be_dear() -> None:
    class Short(CappedPaginator):
        MOST = 3

    keep(*(exchange() for _ in range(5)))
    rows: Any = RequestRecord.objects.order_by("-pk")
    assert (Short(rows, 2).count, Short(rows, 2).num_pages) == (3, 2)
    assert Short(rows[:2], 2).count == 2
