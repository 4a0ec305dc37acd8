"""One secret out of what was pasted (upstream-web 1.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.models import Kind
from pool.normalising import MAX_SECRET_BYTES, BadSecret, Secret, identity_of, normalise

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
API_KEY = "xai-" + "k" * 40


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"  {TOKEN}\t\r\n",
        f"\ufeff{TOKEN}",
        f"sso={TOKEN}",
        f"SSO = {TOKEN}",
        f"sso=sso={TOKEN}",
        f"{TOKEN[:5]}\0{TOKEN[5:9]}\r\n{TOKEN[9:]}",
        f"{TOKEN};",
        f"{TOKEN}; cf_clearance=x",
        f"cf_clearance=x; sso={TOKEN}; i18n=en",
        f"Cookie: a=b; Sso={TOKEN}",
        f"sso={TOKEN}; sso-rw={TOKEN}",
        f"sso={TOKEN}; sso-rw=",
        f"sso={TOKEN}; sso=another",
    ],
)
def test_it_finds_the_bare_token(text: str) -> None:
    assert normalise(text, Kind.SSO) == Secret(TOKEN, TOKEN)


@pytest.mark.parametrize(
    "text", [f"sso={TOKEN};sso-rw=twin", f"sso-rw=twin; sso={TOKEN}", f"{TOKEN}; sso-rw=twin"]
)
def test_it_keeps_a_distinct_twin_and_the_bare_identity(text: str) -> None:
    assert normalise(text, Kind.SSO_SUPER) == Secret(f"sso={TOKEN};sso-rw=twin", TOKEN)


def test_it_keeps_base64_padding() -> None:
    assert normalise("YWJj==; a=b", Kind.SSO).value == "YWJj=="


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \r\n\0 ", "empty"),
        ("sso=", "empty"),
        ("sso=; a=b", "empty"),
        (";", "empty"),
        ("cf_clearance=x; i18n=en", "no sso cookie"),
        ("sso-rw=abc", "no sso cookie"),
        ("a" * (MAX_SECRET_BYTES + 1), "16 KiB"),
        ("two words", "no cookie value may hold"),
        ("tab\tinside", "no cookie value may hold"),
        ("esc\x1b[0m", "no cookie value may hold"),
        ("del\x7fete", "no cookie value may hold"),
        ('"quoted"', "no cookie value may hold"),
        ("a,b", "no cookie value may hold"),
        ("жетон", "no cookie value may hold"),
        (f"sso={TOKEN}; sso-rw=with space", "no cookie value may hold"),
        ("{bad", "looks like JSON"),
        ("[bad]", "looks like JSON"),
        (API_KEY, "looks like an xAI key"),
        (f"sso={API_KEY}", "looks like an xAI key"),
    ],
)
def test_it_refuses_what_cannot_be_a_session(text: str, reason: str) -> None:
    with pytest.raises(BadSecret) as caught:
        normalise(text, Kind.SSO)
    assert reason in str(caught.value.reason)


def test_it_takes_a_token_of_exactly_16_kib() -> None:
    token = "a" * MAX_SECRET_BYTES
    assert normalise(token, Kind.SSO).value == token


def test_it_takes_an_api_key() -> None:
    assert normalise(f" {API_KEY}\r\n", Kind.API) == Secret(API_KEY, API_KEY)


@pytest.mark.parametrize("length", [20, 512])
def test_it_takes_api_keys_of_the_allowed_lengths(length: int) -> None:
    key = "xai-".ljust(length, "k")
    assert normalise(key, Kind.API).value == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOKEN,
        "xai-short",
        "xai-".ljust(513, "k"),
        "xai-" + "k" * 20 + " x",
        "xai-" + "é" * 20,
    ],
)
def test_it_refuses_what_is_no_api_key(text: str) -> None:
    with pytest.raises(BadSecret):
        normalise(text, Kind.API)


@given(
    st.text(alphabet=st.sampled_from('so-rw=; :abcX\t"\0\r\n\ufeff'), max_size=60)
    | st.text(max_size=60),
    st.sampled_from(Kind),
)
def test_any_text_gives_a_header_safe_secret_or_is_refused(text: str, kind: Kind) -> None:
    try:
        secret = normalise(text, kind)
    except BadSecret:
        return
    assert secret.value.isascii()
    assert secret.value.isprintable()
    assert " " not in secret.value
    assert identity_of(secret.value) == secret.identity


def test_a_secret_does_not_show_in_its_repr() -> None:
    assert TOKEN not in repr(normalise(f"sso={TOKEN};sso-rw=twin", Kind.SSO))
