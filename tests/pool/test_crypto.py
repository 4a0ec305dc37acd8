"""Sealing and keyed hashes."""

from __future__ import annotations

from hashlib import sha256

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from pool.crypto import (
    Opened,
    WrongKey,
    key_id,
    key_ids,
    keyed_hash,
    open_sealed,
    seal,
    sealed_columns,
    unseal,
)

OLD = "old-Qm9vb3JzZWN1cmUtcmFuZG9tLWtleQ"
NEW = "new-x8Jb0mK2sVqYt5rHd7wLzPcUeGnFaT"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_it_opens_what_it_sealed(secret: str) -> None:
    assert unseal(seal(secret)) == secret


def test_it_does_not_show_the_secret_in_the_sealed_form() -> None:
    sealed = seal("planted-secret")
    assert b"planted-secret" not in sealed
    assert sealed != seal("planted-secret")


def test_it_opens_a_memoryview() -> None:
    assert unseal(memoryview(seal("secret"))) == "secret"


def test_it_opens_what_an_older_key_sealed(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OLD]
    sealed = seal("secret")
    settings.GROK2API_SECRET_KEYS = [NEW, OLD]
    assert unseal(sealed) == "secret"


def test_it_seals_with_the_first_key(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [NEW, OLD]
    sealed = seal("secret")
    settings.GROK2API_SECRET_KEYS = [NEW]
    assert unseal(sealed) == "secret"


def test_it_raises_wrong_key_when_none_opens(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OLD]
    sealed = seal("secret")
    settings.GROK2API_SECRET_KEYS = [NEW]
    with pytest.raises(WrongKey):
        unseal(sealed)


@pytest.mark.parametrize("sealed", [b"rubbish", b"", "gAAAAA€".encode()])
def test_it_raises_wrong_key_on_rubbish(sealed: bytes) -> None:
    with pytest.raises(WrongKey):
        unseal(sealed)


def test_what_a_row_keeps_names_the_key_that_sealed(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [NEW, OLD]
    columns = sealed_columns("secret")
    assert columns["sealed_with"] == key_id(NEW)
    settings.GROK2API_SECRET_KEYS = [NEW]
    assert unseal(columns["sealed"]) == "secret"


def test_it_tells_which_key_opened(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OLD]
    sealed = seal("secret")
    settings.GROK2API_SECRET_KEYS = [NEW, OLD]
    assert open_sealed(sealed) == Opened("secret", key_id(OLD))
    assert open_sealed(seal("secret")) == Opened("secret", key_id(NEW))
    assert "secret" not in repr(open_sealed(sealed))


def test_the_current_key_comes_first_among_the_ids(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [NEW, OLD]
    assert key_ids() == (key_id(NEW), key_id(OLD))


def test_an_id_is_short_and_always_the_same_and_no_part_of_the_key() -> None:
    """The number is written down: rows that carry it must be known in every later version."""
    assert key_id(OLD) == "64f8253e072f"
    assert key_id(NEW) != key_id(OLD)


@given(st.text(alphabet="0123456789abcdef", min_size=32, max_size=64))
def test_an_id_shares_nothing_with_the_key_or_with_a_hash_of_it(key: str) -> None:
    number = key_id(key)
    assert len(number) == 12
    assert int(number, 16) >= 0
    assert number not in key
    assert number not in sha256(key.encode()).hexdigest()


def test_it_refuses_to_work_without_keys(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = []
    with pytest.raises(ImproperlyConfigured):
        seal("secret")
    settings.GROK2API_PEPPER = ""
    with pytest.raises(ImproperlyConfigured):
        keyed_hash("purpose", "text")


def test_a_hash_survives_key_rotation(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OLD]
    before = keyed_hash("purpose", "text")
    settings.GROK2API_SECRET_KEYS = [NEW]
    assert keyed_hash("purpose", "text") == before


def test_a_hash_depends_on_pepper_purpose_and_text(settings: Settings) -> None:
    settings.GROK2API_PEPPER = OLD
    hashes = {keyed_hash("a", "b"), keyed_hash("a", "c"), keyed_hash("ab", "")}
    settings.GROK2API_PEPPER = NEW
    hashes.add(keyed_hash("a", "b"))
    assert len(hashes) == 4
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in hashes)


def test_a_hash_takes_any_text() -> None:
    assert len(keyed_hash("purpose", "\udcff \0 中文")) == 64
