"""The pool in Django's admin."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from pool.crypto import unseal
from pool.fingerprints import fingerprint
from pool.importing import import_credentials
from pool.keys import KeyDirectory, KeyLimits, create_client_key, limits_of
from pool.limits import record
from pool.limits.charges import Charge
from pool.limits.day import Days, date_of
from pool.models import BucketQuota, ClientKey, Credential, KeyUsage, Kind, Status

pytestmark = pytest.mark.django_db

LIST = "admin:pool_credential_changelist"
ADD = "admin:pool_credential_add"
CHANGE = "admin:pool_credential_change"
KEY_LIST = "admin:pool_clientkey_changelist"
API_KEY = "xai-" + "k" * 40


@pytest.fixture(autouse=True)
def static_root(settings: Settings, tmp_path: Path) -> None:
    """An existing directory: WhiteNoise warns of a missing one, and warnings are errors."""
    settings.STATIC_ROOT = str(tmp_path)


@pytest.fixture
def admin_client(client: Client) -> Client:
    """pytest-django's without its password, whose hashing takes longer than most tests."""
    client.force_login(User.objects.create(username="admin", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def fresh() -> Credential:
    import_credentials("planted-secret-fresh", Kind.SSO, now=timezone.now())
    return Credential.objects.get()


def post(client: Client, name: str, data: dict[str, Any], *args: object) -> Any:
    return client.post(reverse(name, args=args), data, follow=True)


def act(client: Client, name: str, action: str, *pks: int) -> Any:
    return post(client, name, {"action": action, "_selected_action": list(pks)})


def edit(client: Client, row: Credential, **fields: str) -> Any:
    """Post the change form as a browser would: with the hidden fields the page came with."""
    page = client.get(reverse(CHANGE, args=[row.pk])).content.decode()
    hidden = re.findall(r'<input type="hidden" name="(quotas-[^"]+)"(?: value="([^"]*)")?', page)
    shown = {
        "kind": row.kind,
        "status": row.status,
        "note": row.note,
        "tags": ", ".join(row.tags),
    }
    return post(client, CHANGE, dict(hidden) | shown | fields, row.pk)


def edit_key(client: Client, row: ClientKey, **fields: str) -> Any:
    page = client.get(reverse("admin:pool_clientkey_change", args=[row.pk])).content.decode()
    hidden = re.findall(r'<input type="hidden" name="(usages-[^"]+)"(?: value="([^"]*)")?', page)
    shown = {"name": row.name, "is_active": "on", "allowed_models": ""}
    return post(client, "admin:pool_clientkey_change", dict(hidden) | shown | fields, row.pk)


def test_no_page_shows_a_secret(admin_client: Client, fresh: Credential) -> None:
    BucketQuota.objects.create(credential=fresh, bucket="auto", remaining=3)
    for page in (reverse(LIST), reverse(CHANGE, args=[fresh.pk])):
        body = admin_client.get(page).content.decode()
        assert "resh" in body
        for hidden in ("planted-secret", fresh.fingerprint, bytes(fresh.sealed).decode()):
            assert hidden not in body


def test_it_shows_the_buckets(admin_client: Client, fresh: Credential) -> None:
    BucketQuota.objects.create(credential=fresh, bucket="auto-bucket", remaining=31337)
    body = admin_client.get(reverse(CHANGE, args=[fresh.pk])).content.decode()
    assert "auto-bucket" in body
    assert "31337" in body.replace(",", "")


def test_it_adds_a_credential(admin_client: Client) -> None:
    data = {"kind": "sso", "secret": "sso=planted-secret", "note": "mine", "tags": "a, b,a"}
    body = post(admin_client, ADD, data).content.decode()
    row = Credential.objects.get()
    assert unseal(row.sealed) == "planted-secret"
    assert row.fingerprint == fingerprint(Kind.SSO, "planted-secret")
    assert (row.hint, row.note, row.tags) == ("cret", "mine", ["a", "b"])
    assert "planted-secret" not in body


@pytest.mark.parametrize(
    ("kind", "secret", "message"),
    [
        ("sso", "two words", "no cookie value may hold"),
        ("sso", API_KEY, "looks like an xAI key"),
        ("api", "planted-secret", "not an xAI key"),
        ("sso", "", "This field is required"),
        ("ssoSuper", "planted-secret-fresh", "already here"),
    ],
)
def test_it_refuses_a_bad_secret_without_repeating_it(
    admin_client: Client, fresh: Credential, kind: str, secret: str, message: str
) -> None:
    body = post(admin_client, ADD, {"kind": kind, "secret": secret}).content.decode()
    assert message in body
    assert Credential.objects.get() == fresh
    assert not secret or secret not in body


def test_an_edit_writes_only_what_was_edited(
    admin_client: Client, fresh: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    BucketQuota.objects.create(credential=fresh, bucket="auto", remaining=3)
    save = Credential.save

    def count_first(self: Credential, *args: Any, **kwargs: Any) -> None:
        Credential.objects.update(use_count=77, status=Status.INVALID)
        BucketQuota.objects.update(remaining=2)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Credential, "save", count_first)
    edit(admin_client, fresh, note="edited", tags="x")
    row = Credential.objects.get()
    assert (row.note, row.tags, row.use_count, row.status) == ("edited", ["x"], 77, "invalid")
    assert row.updated_at > fresh.updated_at
    assert unseal(row.sealed) == "planted-secret-fresh"
    assert BucketQuota.objects.get().remaining == 2


def test_saving_without_an_edit_writes_nothing(admin_client: Client, fresh: Credential) -> None:
    edit(admin_client, fresh)
    assert Credential.objects.get().updated_at == fresh.updated_at


def test_a_session_may_change_tier_but_not_become_an_api_key(
    admin_client: Client, fresh: Credential
) -> None:
    edit(admin_client, fresh, kind="ssoSuper")
    assert Credential.objects.get().kind == Kind.SSO_SUPER
    edit(admin_client, fresh, kind="api")
    assert Credential.objects.get().kind == Kind.SSO_SUPER


@pytest.mark.parametrize(
    ("query", "found"), [("resh", True), ("%", False), ("_", False), ("50%", False), ("ote", True)]
)
def test_wildcards_in_a_search_are_plain_text(
    admin_client: Client, fresh: Credential, query: str, found: bool
) -> None:
    Credential.objects.update(note="a note")
    response = admin_client.get(reverse(LIST), {"q": query})
    assert (len(response.context["cl"].result_list) == 1) is found


def test_actions_touch_only_their_columns(admin_client: Client, fresh: Credential) -> None:
    Credential.objects.update(use_count=5, note="kept")
    act(admin_client, LIST, "disable", fresh.pk)
    row = Credential.objects.get()
    assert (row.status, row.use_count, row.note) == ("disabled", 5, "kept")
    assert row.updated_at > fresh.updated_at


@pytest.mark.parametrize("status", [Status.DISABLED, Status.INVALID])
def test_enable_brings_back_disabled_and_invalid(
    admin_client: Client, fresh: Credential, status: Status
) -> None:
    Credential.objects.update(status=status, status_reason="401", fail_count=5)
    act(admin_client, LIST, "enable", fresh.pk)
    row = Credential.objects.get()
    assert (row.status, row.status_reason, row.fail_count) == ("active", "", 0)


def test_enable_leaves_a_cooling_credential_cooling(
    admin_client: Client, fresh: Credential
) -> None:
    Credential.objects.update(status=Status.COOLING)
    act(admin_client, LIST, "enable", fresh.pk)
    assert Credential.objects.get().status == Status.COOLING


def test_a_new_client_key_is_shown_exactly_once(admin_client: Client) -> None:
    data = {"name": "alice", "is_active": "on", "allowed_models": "grok-4, grok-3"}
    body = post(admin_client, "admin:pool_clientkey_add", data).content.decode()
    row = ClientKey.objects.get()
    clear = body[body.index("sk-") :][:46]
    keys = KeyDirectory(lambda: "")
    keys.load()
    assert keys.lookup(clear).allowed_models == frozenset({"grok-4", "grok-3"})
    for page in (reverse(KEY_LIST), reverse("admin:pool_clientkey_change", args=[row.pk])):
        again = admin_client.get(page).content.decode()
        assert row.prefix in again
        assert clear not in again
        assert row.digest not in again


def test_a_client_key_can_be_edited_without_losing_its_digest(admin_client: Client) -> None:
    row, clear = create_client_key("alice", allowed_models=["grok-4"])
    edit_key(admin_client, row, name="alicia")
    keys = KeyDirectory(lambda: "")
    keys.load()
    assert keys.lookup(clear).name == "alicia"
    assert keys.lookup(clear).allowed_models is None


def test_limits_are_set_and_cleared(admin_client: Client) -> None:
    data = {"name": "alice", "is_active": "on", "chat_limit": "50", "heavy_limit": "0"}
    post(admin_client, "admin:pool_clientkey_add", data)
    row = ClientKey.objects.get()
    assert limits_of(row) == KeyLimits(chat=50, heavy=0)
    edit_key(admin_client, row, chat_limit="-1", rpm_limit="9", concurrency_limit="2")
    assert limits_of(ClientKey.objects.get()) == KeyLimits(rpm=9, concurrency=2)


def test_a_limit_below_unlimited_is_refused(admin_client: Client) -> None:
    data = {"name": "alice", "is_active": "on", "image_limit": "-2"}
    body = post(admin_client, "admin:pool_clientkey_add", data).content.decode()
    assert "greater than or equal to -1" in body
    assert not ClientKey.objects.exists()


def test_the_use_of_the_last_thirty_days_is_shown_and_not_edited(admin_client: Client) -> None:
    row, _ = create_client_key("alice")
    today = Days(480, time.time).today()
    record.write(
        {(row.pk, today - 29): Charge(chat=31337), (row.pk, today - 30): Charge(chat=7777)}
    )
    body = admin_client.get(reverse("admin:pool_clientkey_change", args=[row.pk])).content.decode()
    shown = body.replace(",", "")
    assert "31337" in shown
    assert "7777" not in shown
    edit_key(admin_client, row, **{"usages-0-chat": "0"})
    assert KeyUsage.objects.filter(chat=31337).exists()


@pytest.mark.parametrize("offset", ["-720", "840"])
def test_the_use_of_today_is_reset_by_an_action(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, offset: str
) -> None:
    monkeypatch.setenv("CACHE_RESET_TZ_OFFSET_MINUTES", offset)
    (row, _), (other, _) = create_client_key("alice"), create_client_key("bob")
    today = Days(int(offset), time.time).today()
    used = {(key.pk, day): Charge(chat=5) for key in (row, other) for day in (today, today - 1)}
    record.write(used)
    act(admin_client, KEY_LIST, "reset_today", row.pk)
    left = KeyUsage.objects.values_list("key__name", "day", "chat")
    assert set(left) == {
        ("alice", date_of(today), 0),
        ("alice", date_of(today - 1), 5),
        ("bob", date_of(today), 5),
        ("bob", date_of(today - 1), 5),
    }


def test_client_keys_are_switched_by_actions(admin_client: Client) -> None:
    row, _ = create_client_key("alice")
    act(admin_client, KEY_LIST, "disable", row.pk)
    off = ClientKey.objects.get()
    assert not off.is_active
    assert off.updated_at > row.updated_at
    act(admin_client, KEY_LIST, "enable", row.pk)
    assert ClientKey.objects.get().is_active


def test_outsiders_see_nothing(client: Client, fresh: Credential) -> None:
    for name in (LIST, KEY_LIST):
        response = client.get(reverse(name))
        assert response.status_code == 302
