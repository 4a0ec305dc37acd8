"""Recognising a credential."""

from __future__ import annotations

from pool.fingerprints import fingerprint, hint
from pool.models import Kind


def test_it_is_64_hex_digits() -> None:
    value = fingerprint(Kind.SSO, "token")
    assert len(value) == 64
    assert set(value) <= set("0123456789abcdef")


def test_a_session_is_the_same_account_in_either_tier() -> None:
    assert fingerprint(Kind.SSO, "token") == fingerprint(Kind.SSO_SUPER, "token")


def test_an_api_key_is_never_a_session() -> None:
    assert fingerprint(Kind.SSO, "token") != fingerprint(Kind.API, "token")


def test_different_secrets_differ() -> None:
    assert fingerprint(Kind.SSO, "token") != fingerprint(Kind.SSO, "token2")


def test_the_hint_is_the_last_four_characters() -> None:
    assert hint("abcdefghi") == "fghi"


def test_a_short_secret_has_no_hint() -> None:
    assert hint("abcdefgh") == ""
    assert hint("") == ""
