"""Addresses that end with time, and cannot be made by others."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.media.links import LinkPolicy, LinkRefused, MediaLinks

KEY = b"k" * 32
NOW = 1_000_000.0
WEEK = 7 * 24 * 3600


def links(key: bytes = KEY, *, now: float = NOW, base: str = "", signed: bool = True) -> MediaLinks:
    policy = LinkPolicy(base, signed=signed, lifetime=WEEK)
    return MediaLinks(key, lambda: policy, now=lambda: now)


def query(url: str) -> tuple[str, str]:
    fields = parse_qs(urlsplit(url).query)
    return fields["exp"][0], fields["sig"][0]


def test_a_link_opens_what_it_was_made_for_until_it_expires() -> None:
    expires, signature = query(links().url("image", "a.png"))

    assert WEEK <= links().verify("image", "a.png", expires, signature) <= WEEK + 3600
    with pytest.raises(LinkRefused) as caught:
        links(now=float(expires)).verify("image", "a.png", expires, signature)
    assert caught.value.expired


def test_a_file_keeps_its_address_for_a_while() -> None:
    assert links(now=NOW).url("image", "a.png") == links(now=NOW + 60).url("image", "a.png")
    assert links(now=NOW).url("image", "a.png") != links(now=NOW + 4000).url("image", "a.png")


@pytest.mark.parametrize(
    ("base", "start"),
    [
        ("", "/v1/files/image/a.png"),
        ("https://x.example", "https://x.example/v1/files/image/a.png"),
        ("https://x.example/api/", "https://x.example/api/v1/files/image/a.png"),
    ],
)
def test_it_is_absolute_as_configured(base: str, start: str) -> None:
    assert links(base=base).url("image", "a.png").partition("?")[0] == start
    assert links(base=base, signed=False).url("image", "a.png") == start


def test_any_other_kind_name_time_key_or_signature_is_refused() -> None:
    expires, signature = query(links().url("image", "a.png"))
    wrong = [
        ("video", "a.png", expires, signature),
        ("image", "b.png", expires, signature),
        ("image", "a.png", str(int(expires) + 1), signature),
        ("image", "a.png", "0" + expires, signature),
        ("image", "a.png", expires + " ", signature),
        ("image", "a.png", expires, signature.upper()),
        ("image", "a.png", expires, signature[:-1]),
        ("image", "a.png", expires, ""),
        ("image", "a.png", "", ""),
        ("image\na.png", "", expires, signature),
    ]
    for attempt in wrong:
        with pytest.raises(LinkRefused) as caught:
            links().verify(*attempt)
        assert not caught.value.expired
    with pytest.raises(LinkRefused):
        links(b"x" * 32).verify("image", "a.png", expires, signature)


@pytest.mark.parametrize("expires", ["9" * 5000, "１２３", "-5", "1e9", "", "9999999999999"])
def test_a_signed_oddity_is_no_time(expires: str) -> None:
    signature = links().sign("image", "a.png", expires)

    with pytest.raises(LinkRefused):
        links().verify("image", "a.png", expires, signature)


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_opens_anything_or_makes_it_fail_in_another_way(
    kind: str, name: str, expires: str, signature: str
) -> None:
    with pytest.raises(LinkRefused):
        links().verify(kind, name, expires, signature)


@pytest.mark.parametrize("key", [b"", b"short"])
def test_without_a_real_key_there_are_no_links(key: bytes) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        links(key)
