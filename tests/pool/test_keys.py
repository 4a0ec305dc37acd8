"""Client keys: minting, storing, looking up."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from pool.keys import (
    GLOBAL_KEY,
    NO_LIMITS,
    DisabledKey,
    ExpiredKey,
    KeyDirectory,
    KeyLimits,
    UnknownKey,
    create_client_key,
    digest,
    mint,
)
from pool.models import ClientKey

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def directory(global_key: str = "", now: datetime = NOON) -> KeyDirectory:
    made = KeyDirectory(lambda: global_key, clock=now.timestamp)
    made.load()
    return made


def long_ago() -> datetime:
    return timezone.now() - timedelta(days=1)


def test_it_mints_a_key_that_matches_its_stored_form() -> None:
    minted = mint()
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43,}", minted.clear)
    assert minted.prefix == minted.clear[:11]
    assert minted.digest == digest(minted.clear)
    assert minted.clear not in repr(minted)


def test_it_never_mints_the_same_key_twice() -> None:
    assert len({mint().clear for _ in range(50)}) == 50


@pytest.mark.django_db
def test_it_finds_a_created_key() -> None:
    row, clear = create_client_key("alice")
    record = directory().lookup(clear)
    assert (record.id, record.name, record.prefix) == (row.pk, "alice", clear[:11])
    assert record.allowed_models is None
    assert record.expires_at is None


@pytest.mark.django_db
def test_it_stores_no_clear_text() -> None:
    row, clear = create_client_key("alice")
    stored = ClientKey.objects.filter(pk=row.pk).values().get()
    assert clear not in str(stored)
    assert clear[11:] not in str(stored)


@pytest.mark.django_db
def test_it_carries_the_allowed_models() -> None:
    _, clear = create_client_key("alice", allowed_models=["grok-4", "grok-3"])
    assert directory().lookup(clear).allowed_models == frozenset({"grok-4", "grok-3"})


@pytest.mark.django_db
def test_it_carries_the_limits() -> None:
    limits = KeyLimits(chat=1, heavy=2, image=3, video=4, rpm=5, concurrency=6)
    _, clear = create_client_key("alice", limits=limits)
    assert directory().lookup(clear).limits == limits


@pytest.mark.django_db
def test_a_key_without_limits_and_the_global_key_are_unlimited() -> None:
    _, clear = create_client_key("alice")
    assert directory().lookup(clear).limits == NO_LIMITS == GLOBAL_KEY.limits
    assert NO_LIMITS.is_unlimited


@pytest.mark.parametrize("name", ["chat", "heavy", "image", "video", "rpm", "concurrency"])
def test_any_one_limit_makes_a_key_limited(name: str) -> None:
    assert not KeyLimits(**{name: 0}).is_unlimited


@pytest.mark.django_db
def test_a_disabled_key_is_refused_as_disabled() -> None:
    row, clear = create_client_key("bob")
    ClientKey.objects.filter(pk=row.pk).update(is_active=False)
    with pytest.raises(DisabledKey):
        directory().lookup(clear)


@pytest.mark.django_db
def test_a_key_works_until_the_instant_it_expires() -> None:
    _, clear = create_client_key("carol", expires_at=NOON)
    before = directory(now=NOON - timedelta(microseconds=1))
    assert before.lookup(clear).expires_at == NOON.timestamp()
    with pytest.raises(ExpiredKey):
        directory(now=NOON).lookup(clear)


@pytest.mark.django_db
@pytest.mark.parametrize("presented", ["", "sk-", "sk-wrong", "\udcff", "ключ", "x" * 10_000])
def test_any_other_text_is_unknown(presented: str) -> None:
    create_client_key("alice")
    with pytest.raises(UnknownKey) as caught:
        directory("global").lookup(presented)
    assert caught.value.args == ()


@given(st.text())
def test_an_empty_directory_knows_no_text_at_all(presented: str) -> None:
    with pytest.raises(UnknownKey):
        KeyDirectory(lambda: "").lookup(presented)


@pytest.mark.django_db
def test_a_key_is_not_found_by_its_prefix_or_digest() -> None:
    row, clear = create_client_key("alice")
    for presented in (row.prefix, row.digest, clear[:-1], clear + " ", clear.upper()):
        with pytest.raises(UnknownKey):
            directory().lookup(presented)


def test_the_global_key_opens() -> None:
    assert KeyDirectory(lambda: "from-config").lookup("from-config") is GLOBAL_KEY


def test_the_global_key_is_asked_for_each_time() -> None:
    configured = ["first"]
    keys = KeyDirectory(lambda: configured[0])
    keys.lookup("first")
    configured[0] = "second"
    with pytest.raises(UnknownKey):
        keys.lookup("first")


@pytest.mark.django_db
def test_the_global_key_opens_even_when_a_row_with_it_is_disabled() -> None:
    row, clear = create_client_key("alice")
    ClientKey.objects.filter(pk=row.pk).update(is_active=False)
    assert directory(clear).lookup(clear) is GLOBAL_KEY


@pytest.mark.django_db
def test_refresh_sees_new_changed_and_deleted_keys() -> None:
    kept, kept_clear = create_client_key("kept")
    gone, gone_clear = create_client_key("gone")
    keys = directory()
    _, new_clear = create_client_key("new")
    ClientKey.objects.filter(pk=kept.pk).update(is_active=False, updated_at=timezone.now())
    gone.delete()

    assert keys.refresh(long_ago()) == 3
    assert keys.lookup(new_clear).name == "new"
    with pytest.raises(DisabledKey):
        keys.lookup(kept_clear)
    with pytest.raises(UnknownKey):
        keys.lookup(gone_clear)
    assert len(keys) == 2


@pytest.mark.django_db
def test_refresh_sees_changed_limits() -> None:
    row, clear = create_client_key("alice")
    keys = directory()
    row.chat_limit = 7
    row.save(update_fields=["chat_limit", "updated_at"])
    keys.refresh(long_ago())
    assert keys.lookup(clear).limits == KeyLimits(chat=7)


@pytest.mark.django_db
def test_refresh_reads_only_what_changed_since() -> None:
    row, clear = create_client_key("alice")
    keys = directory()
    ClientKey.objects.filter(pk=row.pk).update(name="renamed", updated_at=long_ago())
    assert keys.refresh(timezone.now()) == 0
    assert keys.lookup(clear).name == "alice"


@pytest.mark.django_db
def test_refresh_forgets_the_old_text_of_a_replaced_key() -> None:
    row, clear = create_client_key("alice")
    keys = directory()
    ClientKey.objects.filter(pk=row.pk).update(digest=digest("sk-other"), updated_at=timezone.now())
    keys.refresh(long_ago())
    assert keys.lookup("sk-other").id == row.pk
    with pytest.raises(UnknownKey):
        keys.lookup(clear)
