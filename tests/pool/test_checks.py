"""System checks by id, and the check of stored data at start."""

from __future__ import annotations

import pytest
from django.core.checks import Tags, run_checks
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from pool.checks import key_labels, verify_secret_key
from pool.crypto import WrongKey, WrongPepper, key_id, sealed_columns
from pool.fingerprints import fingerprint
from pool.importing import import_credentials
from pool.models import Credential, Kind

GOOD = "Zk3vQ9xT1bN7mR5wY8cL2hJ6dF4gS0pA"
OTHER = "aP0Sg4Fd6Jh2Lc8Yw5Rm7Nb1Tx9Qv3kZ"


def ids() -> list[str | None]:
    found = run_checks(tags=[Tags.security])
    return [message.id for message in found if (message.id or "").startswith("pool.")]


def test_good_settings_pass(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [GOOD, OTHER]
    settings.GROK2API_PEPPER = GOOD
    assert ids() == []


def test_e001_no_secret_key(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = []
    assert ids() == ["pool.E001"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        GOOD[:31],
        "x" * 64,
        "django-insecure-" + GOOD,
        "CHANGEME-" + GOOD,
        "change-me-" + GOOD,
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_e002_a_guessable_secret_key(settings: Settings, key: str) -> None:
    settings.GROK2API_SECRET_KEYS = [GOOD, key]
    assert ids() == ["pool.E002"]


@pytest.mark.parametrize("pepper", ["", "short", "x" * 64])
def test_e003_a_missing_or_guessable_pepper(settings: Settings, pepper: str) -> None:
    settings.GROK2API_PEPPER = pepper
    assert ids() == ["pool.E003"]


@pytest.mark.django_db
def test_an_empty_pool_verifies() -> None:
    verify_secret_key()


@pytest.mark.django_db
def test_credentials_of_this_key_verify(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OTHER]
    store("first-token\nsso=second-token; sso-rw=twin\n")
    settings.GROK2API_SECRET_KEYS = [GOOD, OTHER]
    verify_secret_key()


@pytest.mark.django_db
def test_every_credential_needs_its_key_not_only_those_at_the_ends(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [GOOD]
    store("first\n")
    settings.GROK2API_SECRET_KEYS = [OTHER]
    store("second\nthird\n")
    settings.GROK2API_SECRET_KEYS = [GOOD]
    store("fourth\n")

    with pytest.raises(WrongKey) as refused:
        verify_secret_key()

    assert str(refused.value).startswith("2 stored credentials were encrypted with a secret key")
    assert "rotate_encryption" in str(refused.value)
    settings.GROK2API_SECRET_KEYS = [GOOD, OTHER]
    verify_secret_key()


@pytest.mark.django_db
@pytest.mark.parametrize("which", ["first", "last"])
def test_of_those_from_before_the_labels_the_ends_are_tried(settings: Settings, which: str) -> None:
    settings.GROK2API_SECRET_KEYS = [GOOD]
    store("first\n")
    settings.GROK2API_SECRET_KEYS = [OTHER]
    store("old-1\nold-2\nold-3\n")
    settings.GROK2API_SECRET_KEYS = [GOOD, OTHER]
    store("last\n")
    Credential.objects.filter(sealed_with=key_id(OTHER)).update(sealed_with="")
    verify_secret_key()

    rows = Credential.objects.filter(sealed_with="").order_by("pk")
    lost = rows.first() if which == "first" else rows.last()
    assert lost is not None
    Credential.objects.filter(pk=lost.pk).update(sealed=b"rubbish")

    with pytest.raises(WrongKey, match="encrypted with another secret key"):
        verify_secret_key()


@pytest.mark.django_db
@pytest.mark.parametrize("end", ["pk", "-pk"])
def test_a_label_is_not_believed_of_the_oldest_and_the_newest(end: str) -> None:
    store("first-token\n")
    store("second-token\n")
    row = Credential.objects.order_by(end)[0]
    Credential.objects.filter(pk=row.pk).update(sealed=b"rubbish")
    with pytest.raises(WrongKey):
        verify_secret_key()


@pytest.mark.django_db
def test_labels_are_found_without_reading_every_row(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    rows = [
        Credential(kind=Kind.SSO, fingerprint=f"{n:064}", sealed=b"x", sealed_with=label)
        for n, label in enumerate(["", "b" * 12, "a" * 12, "0" * 12] * 5)
    ]
    Credential.objects.bulk_create(rows)
    with django_assert_num_queries(5):
        assert list(key_labels()) == ["", "0" * 12, "a" * 12, "b" * 12]


@pytest.mark.django_db
def test_a_start_asks_little_however_many_credentials_there_are(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    Credential.objects.bulk_create(
        Credential(
            kind=Kind.SSO, fingerprint=fingerprint(Kind.SSO, f"t{n}"), **sealed_columns(f"t{n}")
        )
        for n in range(300)
    )
    with django_assert_max_num_queries(7):
        verify_secret_key()


@pytest.mark.django_db
def test_another_pepper_is_noticed(settings: Settings) -> None:
    store("first-token\n")
    settings.GROK2API_PEPPER = GOOD
    with pytest.raises(WrongPepper, match="never rotated"):
        verify_secret_key()


def store(lines: str) -> None:
    import_credentials(lines, Kind.SSO, now=timezone.now())
