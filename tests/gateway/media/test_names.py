"""Names on the disk, and all that must never become one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.media.errors import BadName
from gateway.media.names import MAX_NAME, name_of_asset, safe_name, spellings, with_extension

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", re.ASCII)
HOSTILE = [
    "",
    ".",
    "..",
    "../x.png",
    "../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "a%2Fb.png",
    "a%00.png",
    "a\x00.png",
    "a\n.png",
    "a\r\nX-Evil: 1.png",
    'a".png',
    "a;b.png",
    "..\\..\\x.png",
    "C:\\x.png",
    "\\\\host\\share\\x.png",
    ".hidden.png",
    ".part",
    "-rf",
    "~root",
    "a b.png",
    "画.png",
    "a\u2215b.png",
    "a\uff0fb.png",
    "a\u202egnp.png",
    "\ud800.png",
    "a" * (MAX_NAME + 1),
    "a" * 5000 + ".png",
    "$(reboot).png",
    "a|b.png",
    "a*.png",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_no_names(text: str) -> None:
    with pytest.raises(BadName):
        safe_name(text)


def test_a_slash_stands_for_a_dash() -> None:
    assert safe_name("users/u-1/a-1/image.jpg") == "users-u-1-a-1-image.jpg"
    assert safe_name("users-u-1-a-1-image.jpg") == "users-u-1-a-1-image.jpg"
    assert safe_name("a" * MAX_NAME) == "a" * MAX_NAME


def test_an_asset_keeps_the_letters_of_its_path() -> None:
    assert name_of_asset("/users/u-1/a-1/content") == "users-u-1-a-1-content"


def test_strange_asset_paths_do_not_share_a_name() -> None:
    strange = ["a b", "a_b!", "a?b", ".a", "-a", "x" * 300, "y" * 300, "é", "../a", "a/../b.png"]
    strange += ["é.png", "ü.png", "x" * 300 + ".png", "y" + "x" * 299 + ".png"]

    names = {name_of_asset(path) for path in strange}

    assert len(names) == len(strange)
    assert all(PLAIN.fullmatch(name) for name in names)
    assert name_of_asset("é/ü.png").endswith(".png")


@given(st.text(max_size=400))
@example("a" * MAX_NAME)
@example("a" * (MAX_NAME - 5))
@example("é" * MAX_NAME + ".png")
def test_whatever_upstream_calls_an_asset_it_gets_a_name_or_none(path: str) -> None:
    try:
        name = name_of_asset(path)
    except BadName:
        assert not path.strip("/")
        return
    assert PLAIN.fullmatch(name)
    assert safe_name(name) == name
    assert name_of_asset(path) == name
    assert with_extension(name, "webm").endswith(".webm")


@given(st.text(max_size=250))
def test_a_name_is_plain_or_refused(text: str) -> None:
    try:
        name = safe_name(text)
    except BadName:
        return
    assert PLAIN.fullmatch(name)
    assert "/" not in name


def test_the_extension_follows_the_content() -> None:
    assert with_extension("a.jpg", "png") == "a.png"
    assert with_extension("a.JPEG", "jpg") == "a.jpg"
    assert with_extension("a.b.content", "mp4") == "a.b.content.mp4"
    with pytest.raises(BadName):
        with_extension("a" * MAX_NAME, "png")


def test_a_file_is_looked_for_under_every_extension_it_may_have() -> None:
    assert spellings("image", "a.jpeg") == ("a.jpeg", "a.jpg", "a.png", "a.webp", "a.gif")
    assert spellings("video", "a.content") == ("a.content", "a.content.mp4", "a.content.webm")
