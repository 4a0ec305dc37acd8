"""Detecting and reading the import formats."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.models import Kind, Status
from pool.token_formats import MAX_LINE_BYTES, FormatError, open_source
from pool.token_items import COLUMN_LENGTHS, Parsed, Rejected

API_KEY = "xai-" + "k" * 40


def read(data: bytes | str, kind: Kind = Kind.SSO) -> list[Parsed | Rejected]:
    raw = data.encode() if isinstance(data, str) else data
    return list(open_source(BytesIO(raw), kind).entries)


def good(data: bytes | str, kind: Kind = Kind.SSO) -> list[tuple[int, str, str]]:
    entries = read(data, kind)
    return [(e.number, e.kind.value, e.secret.value) for e in entries if isinstance(e, Parsed)]


def bad(data: bytes | str, kind: Kind = Kind.SSO) -> list[tuple[int, str]]:
    return [(e.number, str(e.reason)) for e in read(data, kind) if isinstance(e, Rejected)]


def only(item: object, kind: Kind = Kind.SSO) -> Parsed:
    [entry] = read(json.dumps([item]), kind)
    assert isinstance(entry, Parsed)
    return entry


def test_it_reads_one_token_per_line() -> None:
    assert good("aaa\nsso=bbb\r\n\n# note\n  ccc") == [
        (1, "sso", "aaa"),
        (2, "sso", "bbb"),
        (5, "sso", "ccc"),
    ]


def test_it_keeps_good_lines_and_numbers_the_bad() -> None:
    data = b"aaa\nb b\n\xff\xfe\n" + b"x" * 20_000 + b"\nccc\n"
    assert [number for number, *_ in good(data)] == [1, 5]
    assert [number for number, _ in bad(data)] == [2, 3, 4]


@pytest.mark.parametrize("data", ["aaa\n", '["aaa"]', '{"sso": ["aaa"]}', '{"token": "aaa"}'])
def test_it_tolerates_a_byte_order_mark_and_blank_lines_before(data: str) -> None:
    assert [value for *_, value in good(b"\xef\xbb\xbf" + data.encode())] == ["aaa"]
    assert [value for *_, value in good(b"\xef\xbb\xbf\r\n\n" + data.encode())] == ["aaa"]


@pytest.mark.parametrize("data", ["", "\n\n", "# nothing\n", "[]", "{}", '{"ssoBasic": []}'])
def test_an_empty_input_holds_nothing(data: str) -> None:
    assert read(data) == []


def test_an_overlong_line_is_refused_and_the_next_is_read() -> None:
    long = b"x" * (MAX_LINE_BYTES * 2 + 7)
    assert good(long + b"\naaa\n" + long + b"\nbbb") == [(2, "sso", "aaa"), (4, "sso", "bbb")]
    assert [reason for _, reason in bad(long + b"\naaa")] == ["line too long"]


def test_api_lines_must_be_api_keys() -> None:
    assert good(f"{API_KEY}\nsession", Kind.API) == [(1, "api", API_KEY)]
    assert [number for number, _ in bad(f"{API_KEY}\nsession", Kind.API)] == [2]


def test_an_api_key_among_sessions_is_refused() -> None:
    assert bad(API_KEY) == [(1, "looks like an xAI key, not a web session")]


def test_an_old_token_json_files_by_pool_name() -> None:
    pools = {
        "ssoBasic": ["aaa", {"token": "sso=bbb"}],
        "ssoSuper": ["ccc"],
        "api": [API_KEY],
        "custom": ["ddd"],
        "broken": None,
    }
    expected = [
        (1, "sso", "aaa"),
        (2, "sso", "bbb"),
        (3, "ssoSuper", "ccc"),
        (4, "api", API_KEY),
        (5, "sso", "ddd"),
    ]
    assert good(json.dumps(pools), Kind.SSO_SUPER) == expected
    assert good(json.dumps(pools, indent=2), Kind.SSO_SUPER) == expected
    assert open_source(BytesIO(json.dumps(pools).encode()), Kind.SSO).unit == "item"


def test_an_accounts_list_files_by_tier() -> None:
    document = {
        "provider": "grok_web",
        "accounts": [
            {"name": "first", "sso_token": "aaa", "tier": "super", "user_id": "u-1"},
            {"token": "bbb", "tier": "basic"},
            {"token": "ccc", "tier": "unheard of"},
        ],
    }
    assert good(json.dumps(document), Kind.SSO_SUPER) == [
        (1, "ssoSuper", "aaa"),
        (2, "sso", "bbb"),
        (3, "ssoSuper", "ccc"),
    ]
    first = read(json.dumps(document))[0]
    assert isinstance(first, Parsed)
    assert (first.details.note, first.details.user_id) == ("first", "u-1")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"provider": "other", "accounts": [{"token": "a"}]}', Kind.SSO),
        ('{"provider": "grok_web", "accounts": [{"token": "a"}]}', Kind.API),
        ('{"answer": 42}', Kind.SSO),
        ('["aaa"', Kind.SSO),
        ("[aaa]", Kind.SSO),
        ('{\n"ssoBasic": [\n{"token": "aaa"}\n', Kind.SSO),
        ("[" * 100_000, Kind.SSO),
        ("[" + "9" * 5_000 + "]", Kind.SSO),
    ],
)
def test_json_that_cannot_be_understood_is_an_error(data: str, kind: Kind) -> None:
    with pytest.raises(FormatError):
        read(data, kind)


def test_broken_json_says_where() -> None:
    with pytest.raises(FormatError) as caught:
        read('\n{\n "ssoBasic": [\n  oops\n ]\n}')
    assert str(caught.value.reason) == "broken JSON at line 4, column 3"


def test_it_reads_json_lines() -> None:
    lines = [
        '{"token": "aaa"}',
        "",
        '{"sso_token": "bbb"}',
        "oops",
        "42",
        '["ccc", "ddd"]',
        '"eee"',
    ]
    data = "\n".join(lines)
    assert [(n, v) for n, _, v in good(data)] == [
        (1, "aaa"),
        (3, "bbb"),
        (6, "ccc"),
        (6, "ddd"),
        (7, "eee"),
    ]
    assert [number for number, _ in bad(data)] == [4, 5]


def test_json_lines_survive_a_broken_first_line() -> None:
    data = '{"token": "aaa"\n{"token": "bbb"}\n{"token": "ccc"}\n'
    assert [number for number, *_ in good(data)] == [2, 3]
    assert bad(data) == [(1, "broken JSON")]


def test_a_token_line_may_begin_with_neither_bracket_nor_brace_later_on() -> None:
    assert bad('aaa\n{"token": "bbb"}') == [(2, "holds a character that no cookie value may hold")]


@pytest.mark.parametrize("item", [None, 7, True, ["aaa"], {}, {"note": "x"}, {"token": 7}])
def test_items_without_a_token_are_refused_alone(item: object) -> None:
    data = json.dumps(["aaa", item, "bbb"])
    assert [number for number, *_ in good(data)] == [1, 3]
    assert [number for number, _ in bad(data)] == [2]


def test_invalid_utf8_spoils_only_its_own_item() -> None:
    data = b'["aaa", "b\xff", "ccc"]'
    assert [value for *_, value in good(data)] == ["aaa", "ccc"]
    assert [number for number, _ in bad(data)] == [2]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("active", Status.ACTIVE),
        ("cooling", Status.COOLING),
        ("invalid", Status.INVALID),
        ("expired", Status.INVALID),
        ("Disabled ", Status.DISABLED),
        ("unheard of", None),
        (3, None),
    ],
)
def test_it_understands_status_words(word: object, status: Status | None) -> None:
    assert only({"token": "aaa", "status": word}).details.status == status


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (0, 0),
        (80, 80),
        (79.0, 79),
        (10**30, 2**31 - 1),
        (None, None),
        ("", None),
        ("80", None),
        (-1, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_quota_is_known_or_unknown(value: object, known: int | None) -> None:
    details = only({"token": "aaa", "quota": value, "heavy_quota": value}).details
    assert (details.quota, details.heavy_quota) == (known, known)


def test_a_number_too_large_for_a_float_is_unknown() -> None:
    [entry] = read('[{"token": "aaa", "quota": 1e999, "odd": 1e999}]')
    assert isinstance(entry, Parsed)
    assert entry.details.quota is None
    assert entry.details.legacy == {"odd": None}


@pytest.mark.parametrize("value", [None, 0, -5, "soon", 10**18, True])
def test_times_that_make_no_sense_do_not_stop_an_item(value: object) -> None:
    details = only({"token": "aaa", "last_used_at": value}).details
    assert details.last_used_at is None or details.last_used_at.year == 9999


def test_unknown_fields_are_kept_and_secrets_are_not() -> None:
    item: dict[str, Any] = {
        "token": "the-token",
        "quota": 1,
        "last_asset_clear_at": 5,
        "email": "a@example.org",
        "raw": "sso=the-token; x=y",
        "cloudflare_cookies": "cf",
        "nested": {"password": "p", "kept": [1, None, "the-token"]},
        "name-the-token": 1,
    }
    assert only(item).details.legacy == {
        "last_asset_clear_at": 5,
        "email": "a@example.org",
        "raw": None,
        "nested": {"kept": [1, None, None]},
    }


def test_text_is_made_storable() -> None:
    [entry] = read(
        r'[{"token": "aaa", "note": "a\u0000b\ud800", "x": "\u0000", "tags": ["t", "t", 1, " "]}]'
    )
    assert isinstance(entry, Parsed)
    assert entry.details.note == "ab?"
    assert entry.details.legacy == {"x": ""}
    assert entry.details.tags == ["t"]


def test_deep_fields_end_in_null() -> None:
    deep: object = "bottom"
    for _ in range(50):
        deep = [deep]
    assert "bottom" not in json.dumps(only({"token": "aaa", "deep": deep}).details.legacy)


def test_long_text_is_cut_to_its_column() -> None:
    from pool.models import Credential

    for column, length in COLUMN_LENGTHS.items():
        assert Credential._meta.get_field(column).max_length == length  # type: ignore[union-attr]
    assert only({"token": "aaa", "note": "n" * 999}).details.note == "n" * 500


@given(
    st.binary(max_size=300) | st.text(alphabet='[]{}",:\n aton#;=1', max_size=80).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        source = open_source(BytesIO(data), Kind.SSO)
    except FormatError:
        return
    numbers = [entry.number for entry in source.entries]
    assert numbers == sorted(numbers)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.text() | st.sampled_from(["token", "tags", "status", "quota"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        entries = read(json.dumps([value]))
    except FormatError:
        return
    assert len(entries) == 1


@given(st.lists(st.sampled_from(["good", "b d", "", "# c", "sso=other", '"q"'])))
def test_every_line_is_accounted_for(lines: list[str]) -> None:
    entries = read("\n".join(lines))
    expected = [n for n, line in enumerate(lines, 1) if line and not line.startswith("#")]
    assert [entry.number for entry in entries] == expected
