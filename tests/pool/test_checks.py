"""System checks by id, and the check of stored data at start."""

from __future__ import annotations

import pytest
from django.core.checks import Tags, run_checks
from django.utils import timezone
from pytest_django.fixtures import Settings

from pool.checks import verify_secret_key
from pool.crypto import WrongKey, WrongPepper
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
def test_the_oldest_credential_needs_its_key(settings: Settings) -> None:
    settings.GROK2API_SECRET_KEYS = [OTHER]
    store("first-token\n")
    settings.GROK2API_SECRET_KEYS = [GOOD]
    store("second-token\n")
    with pytest.raises(WrongKey, match="encrypted with another secret key"):
        verify_secret_key()


@pytest.mark.django_db
def test_the_newest_credential_needs_its_key(settings: Settings) -> None:
    store("first-token\n")
    store("second-token\n")
    Credential.objects.filter(hint="oken").order_by("-pk").update(sealed=b"rubbish")
    with pytest.raises(WrongKey):
        verify_secret_key()


@pytest.mark.django_db
def test_another_pepper_is_noticed(settings: Settings) -> None:
    store("first-token\n")
    settings.GROK2API_PEPPER = GOOD
    with pytest.raises(WrongPepper, match="never rotated"):
        verify_secret_key()


def store(lines: str) -> None:
    import_credentials(lines, Kind.SSO, now=timezone.now())
