"""System checks ``pool.E0xx``, and the check of the stored data that ``serve`` makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Error
from django.db import connection
from django.utils.translation import gettext_lazy as _

from pool.crypto import WrongKey, WrongPepper, unseal
from pool.fingerprints import fingerprint
from pool.models import Credential
from pool.normalising import identity_of

MIN_KEY_LENGTH = 32
_MIN_DISTINCT_CHARACTERS = 8
_SAMPLES = (
    "django-insecure-",
    "changeme",
    "change-me",
    "change_me",
    "change-this",
    "replace-me",
    "replace-with",
    "your-secret",
    "your_secret",
    "0123456789abcdef",
    "1234567890",
)


def check_secret_keys(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[Error]:
    """``pool.E001``: no secret key. ``pool.E002``: one that anybody could guess."""
    keys = settings.GROK2API_SECRET_KEYS
    if not keys:
        return [
            Error(
                str(_("No secret key is set, so credentials cannot be encrypted.")),
                hint=str(_("Set GROK2API_SECRET_KEY to at least 32 random characters.")),
                id="pool.E001",
            )
        ]
    return [
        Error(
            str(_("Secret key number %d is too short or a known sample.") % number),
            hint=str(_("Use at least 32 random characters.")),
            id="pool.E002",
        )
        for number, key in enumerate(keys, 1)
        if is_guessable(key)
    ]


def check_pepper(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[Error]:
    """``pool.E003``: the key of the stored hashes is missing or guessable."""
    if not is_guessable(settings.GROK2API_PEPPER):
        return []
    return [
        Error(
            str(_("GROK2API_PEPPER is missing, too short or a known sample.")),
            hint=str(_("Use at least 32 random characters, and never change them.")),
            id="pool.E003",
        )
    ]


def is_guessable(key: str) -> bool:
    """Too short, a sample from somebody's documentation, or hardly more than one character."""
    return (
        len(key) < MIN_KEY_LENGTH
        or key.lower().startswith(_SAMPLES)
        or len(set(key)) < _MIN_DISTINCT_CHARACTERS
    )


def has_tables() -> bool:
    """Whether the pool's migrations have been applied; a command run first says so kindly."""
    return Credential._meta.db_table in connection.introspection.table_names()


def verify_secret_key() -> None:
    """Open the oldest and the newest stored credential; for use at start.

    Raises WrongKey when no configured key opens one, WrongPepper when it opens but its
    fingerprint does not match. Says nothing about an empty pool.
    """
    ends = (Credential.objects.order_by("pk").first(), Credential.objects.order_by("pk").last())
    for credential in filter(None, ends):
        _verify(credential)


def _verify(credential: Credential) -> None:
    try:
        secret = unseal(credential.sealed)
    except WrongKey:
        raise WrongKey(
            _(
                "The stored credentials were encrypted with another secret key. Put that key "
                "back into GROK2API_SECRET_KEY (or secret.key in the data directory), after "
                "the new one if you are rotating, or start with an empty data directory."
            )
        ) from None
    if fingerprint(credential.kind, identity_of(secret)) != credential.fingerprint:
        raise WrongPepper(
            _(
                "The stored hashes were made with another GROK2API_PEPPER (or pepper.key in "
                "the data directory). Put the former value back: it is never rotated."
            )
        )
