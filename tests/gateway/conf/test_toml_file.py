"""config.toml: made once, read faithfully, and every mistake told with its line."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conf import toml_file
from gateway.conf.errors import ConfigError
from gateway.conf.keys import KEYS, SECTIONS
from gateway.conf.layers import Resolved, resolve

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def load(path: Path, text: str | bytes) -> Resolved:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    file, problems = toml_file.read(path)
    return resolve({}, {}, file.values, origin=file.origin, earlier=problems)


def refusal(tmp_path: Path, text: str | bytes) -> ConfigError:
    path = tmp_path / "config.toml"
    with pytest.raises(ConfigError) as caught:
        load(path, text)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_it_works(tmp_path: Path) -> None:
    resolved = load(tmp_path / "config.toml", "[grok]\ntimeout = 5\n")
    assert (resolved.config.grok.timeout, resolved.source_of("grok.timeout")) == (5, "file")


def test_the_first_file_has_every_section_and_key_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data" / "config.toml"
    assert toml_file.create(path)
    text = path.read_text(encoding="utf-8")
    assert set(tomllib.loads(text)) == set(SECTIONS)
    assert [key.name for key in KEYS.values() if f"\n# {key.leaf} = " not in text] == []
    assert load(path, text).sources == {}
    assert max(map(len, text.split("\n"))) <= 120


def test_removing_the_comment_signs_sets_every_default() -> None:
    lines = toml_file.render().split("\n")
    leaves = {key.leaf for key in KEYS.values()}
    opened = [
        line[2:] if line.startswith("# ") and line[2:].partition(" = ")[0] in leaves else line
        for line in lines
    ]
    resolved = resolve({}, {}, tomllib.loads("\n".join(opened)))
    assert set(resolved.sources) == set(KEYS)
    assert resolved.config == resolve({}, {}, {}).config


def test_the_first_file_is_for_its_owner_only_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    toml_file.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_never_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("broken = ", encoding="utf-8")
    assert not toml_file.create(path)
    assert path.read_text(encoding="utf-8") == "broken = "


def test_a_file_made_meanwhile_by_another_process_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("theirs = 1", encoding="utf-8")
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert not toml_file.create(path)
    assert path.read_text(encoding="utf-8") == "theirs = 1"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "config.toml"
    assert toml_file.create(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    file, problems = toml_file.read(tmp_path / "config.toml")
    assert (file.stamp, file.values, problems) == (None, {}, [])


@given(password=TEXT, tags=st.lists(TEXT), aliases=st.dictionaries(TEXT, TEXT))
def test_any_text_survives_the_file(
    password: str, tags: list[str], aliases: dict[str, str]
) -> None:
    written = toml_file.render(
        {"app.app_key": password, "grok.filter_tags": tags, "models.aliases": aliases}
    )
    values = tomllib.loads(written)
    assert values["app"]["app_key"] == password
    assert values["grok"]["filter_tags"] == tags
    assert values["models"]["aliases"] == aliases


@pytest.mark.parametrize("password", ["C:\\new\\table", 'say "hi"', "a'b''c", "пароль密码🙂", "\\"])
def test_a_hard_password_survives_from_file_to_configuration(tmp_path: Path, password: str) -> None:
    path = tmp_path / "config.toml"
    toml_file.create(path, {"app.app_key": password})
    assert load(path, path.read_bytes()).config.app.app_key == password


def test_windows_editors_are_welcome(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf[grok]\r\ntimeout = 7\r\n"
    assert load(tmp_path / "config.toml", text).config.grok.timeout == 7


def test_an_old_file_loads_without_error(tmp_path: Path) -> None:
    old = """\
[app]
app_url = "http://127.0.0.1:8000"
admin_username = "admin"
app_key = "a password"
api_key = ""
image_format = "url"
video_format = "url"

[grok]
temporary = true
stream = true
thinking = true
dynamic_statsig = true
filter_tags = ["xaiartifact", "xai:tool_usage_card", "grok:render"]
video_poster_preview = false
timeout = 120
base_proxy_url = ""
asset_proxy_url = ""
cf_clearance = ""
max_retry = 3
retry_status_codes = [401, 429, 403]
image_generation_method = "imagine_ws"

[token]
auto_refresh = true
refresh_interval_hours = 8
fail_threshold = 5
save_delay_ms = 500
reload_interval_sec = 30
nsfw_refresh_concurrency = 10
nsfw_refresh_retries = 3

[cache]
enable_auto_clean = true
limit_mb = 1024
keep_base64_cache = true

[performance]
assets_max_concurrent = 25
media_max_concurrent = 50
usage_max_concurrent = 25
assets_delete_batch_size = 10
admin_assets_batch_size = 10

[register]
worker_domain = ""
email_domain = ""
admin_password = ""
yescaptcha_key = ""
solver_url = "http://127.0.0.1:5072"
register_threads = "10"
auto_start_solver = true
nested = { a = 1 }
"""
    resolved = load(tmp_path / "config.toml", old)
    assert resolved.config.app.app_key == "a password"
    assert resolved.config.grok.image_generation_method == "imagine_ws_experimental"
    assert "grok.dynamic_statsig" in resolved.not_used
    assert "register.solver_url" in resolved.not_used
    assert len(resolved.not_used) == 10


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("[grok]\n\n# a comment\ntimeout = 0\n", 4, "grok.timeout"),
        ("grok.timeout = 0\n", 1, "grok.timeout"),
        ("# first\ngrok = { stream = true, timeout = 0 }\n", 2, "grok.timeout"),
        ('["grok"]\n"timeout" = 0\n', 2, "grok.timeout"),
        ("[ grok ] # here\n  timeout=0", 2, "grok.timeout"),
        ('[app]\napi_key = """\n[grok]\ntimeout = 1\n"""\n[grok]\ntimeout = 0\n', 2, "app.api_key"),
        ("[grok]\nfilter_tags = [\n'a', # x\n'b'\n]\ntimeout = 0\n", 6, "grok.timeout"),
        ("[grok]\nretry_status_codes = [\n  401,\n  9,\n]\n", 2, "grok.retry_status_codes"),
        ("[models.aliases]\na = 'b'\nc = 5\n", 3, "models.aliases"),
        ("[models]\naliases = { a = 'b', c = 5 }\n", 2, "models.aliases"),
        ("[models]\naliases.a = 'b'\naliases.c = 5\n", 3, "models.aliases"),
        ("[app]\n[gork]\n", 2, "gork"),
        ("[app]\n[grok.deep]\nx = 1\n", 2, "grok.deep"),
        ("[[grok]]\ntimeout = 1\n", 1, "grok"),
        ("timeout = 5\n", 1, "timeout"),
        ("[app]\r\n\r\n[grok]\r\nsteam = true\r\n", 4, "grok.steam"),
        ("# a line \u2028 for some\n[grok]\ntimeout = 0", 3, "grok.timeout"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, key: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.line, error.key) == (line, key), str(error)
    assert str(error).startswith(f"{tmp_path}/config.toml, line {line}, {key}: ")


@pytest.mark.parametrize(
    ("text", "line", "key", "reason"),
    [
        ("[grok]\ntimeout = \n", 2, "grok.timeout", "invalid value (column 11)"),
        ("[grok]\ntimeout 5\n", 2, "", "expected '=' after a key"),
        ('[app]\napp_key = "a\\qb"\n', 2, "app.app_key", "a backslash in double quotes"),
        ('[app]\n\napp_key = "abc\n', 3, "app.app_key", "the line ends inside a text"),
        ("[grok]\ntimeout = 1\ntimeout = 2\n", 3, "grok.timeout", "the key is set twice"),
        ("[grok]\n[app]\n[grok]\n", 3, "", "the section is written twice"),
        ("[grok\ntimeout = 1\n", 1, "", "expected ']'"),
        ('[app]\napp_key = """abc\n\n', 2, "app.app_key", "at the end of the file"),
        ("a = " + "[" * 100_000, None, "", "nested too deep"),
        ("a = " + "9" * 5000, None, "", "too long"),
    ],
)
def test_broken_toml_is_told_with_its_line(
    tmp_path: Path, text: str, line: int | None, key: str, reason: str
) -> None:
    error = refusal(tmp_path, text)
    assert (error.line, error.key) == (line, key), str(error)
    assert error.reason.startswith("not valid TOML: ")
    assert reason in error.reason


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, b"[app]\n# ok\napp_key = '\xff'\n")
    assert (error.line, error.reason) == (3, "is not UTF-8 text")


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.mkdir()
    _, [problem] = toml_file.read(path)
    assert str(problem) == f"{path}: cannot be read: Is a directory"


def test_all_mistakes_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, "[grok]\nstream = 1\nsteam = 1\n[pool]\npolicy = 'x'\nwait_ms = -1\n")
    assert [problem.line for problem in error.problems] == [2, 3, 5, 6]
