"""System checks ``pool.E0xx``, and the check of the stored data that ``serve`` makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Error
from django.db import connection
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from pool.crypto import WrongKey, WrongPepper, key_ids, unseal
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
    """Whether the configured keys open what is stored; for use at start, in milliseconds.

    Raises WrongKey when a credential names a key that is not configured, or when the oldest
    or the newest of all, or of those that name none, does not open. Raises WrongPepper when
    one opens but its fingerprint does not match. Says nothing about an empty pool.
    """
    if set(key_labels()).difference(key_ids(), {""}):
        raise WrongKey(_missing_key())
    for rows in (Credential.objects.filter(sealed_with=""), Credential.objects.all()):
        for credential in (rows.order_by("pk").first(), rows.order_by("pk").last()):
            if credential is not None:
                _verify(credential)


def key_labels() -> Iterator[str]:
    """The ids of secret keys that stored credentials name; "" stands for one not known.

    From each to the next in the index: DISTINCT would read all of it.
    """
    labels = Credential.objects.order_by("sealed_with").values_list("sealed_with", flat=True)
    label = labels.first()
    while label is not None:
        yield label
        label = labels.filter(sealed_with__gt=label).first()


def _missing_key() -> str:
    count = Credential.objects.exclude(sealed_with__in=["", *key_ids()]).count()
    found = ngettext(
        "%d stored credential was encrypted with a secret key that is not configured.",
        "%d stored credentials were encrypted with a secret key that is not configured.",
        count,
    )
    return f"{found % count} {_PUT_BACK}"


_PUT_BACK = _(
    "Put that key back into GROK2API_SECRET_KEY (or secret.key in the data directory), after "
    "the current one, and run manage.py rotate_encryption before you remove it. If the key is "
    "lost, import the credentials again, or start with an empty data directory."
)


def _verify(credential: Credential) -> None:
    try:
        secret = unseal(credential.sealed)
    except WrongKey:
        found = _("The stored credentials were encrypted with another secret key.")
        raise WrongKey(f"{found} {_PUT_BACK}") from None
    if fingerprint(credential.kind, identity_of(secret)) != credential.fingerprint:
        raise WrongPepper(
            _(
                "The stored hashes were made with another GROK2API_PEPPER (or pepper.key in "
                "the data directory). Put the former value back: it is never rotated."
            )
        )
