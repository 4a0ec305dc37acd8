"""The four layers: what wins, where a value says it comes from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.conf.errors import ConfigError, Problem
from gateway.conf.keys import KEYS, env_name
from gateway.conf.layers import Origin, resolve

TIMEOUT = "GROK2API_GROK__TIMEOUT"


def refusal(
    env: dict[str, str] | None = None,
    saved: dict[str, Any] | None = None,
    file: dict[str, Any] | None = None,
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(env or {}, saved or {}, file or {})
    return caught.value


def test_it_works() -> None:
    resolved = resolve({}, {}, {})
    assert resolved.config.grok.timeout == 120
    assert resolved.source_of("grok.timeout") == "default"


def test_every_documented_key_has_its_documented_default() -> None:
    config = resolve({}, {}, {}).config
    assert config.app.model_dump() == {
        "app_url": "http://127.0.0.1:8000",
        "admin_username": "admin",
        "app_key": "",
        "api_key": "",
        "image_format": "url",
        "video_format": "url",
        "sign_media_urls": True,
        "media_url_hours": 168,
        "accel_redirect": "",
    }
    grok = config.grok
    assert (grok.temporary, grok.stream, grok.thinking, grok.dynamic_statsig) == (True,) * 4
    assert grok.filter_tags == ("xaiartifact", "xai:tool_usage_card", "grok:render")
    assert (grok.video_poster_preview, grok.timeout, grok.max_retry) == (False, 120, 3)
    assert (grok.base_proxy_url, grok.asset_proxy_url, grok.cf_clearance) == ("", "", "")
    assert grok.retry_status_codes == (401, 429, 403)
    assert grok.image_generation_method == "legacy"
    assert (grok.chat_protocol, grok.rest_form, grok.media_protocol) == (
        "mgw",
        "mode_id",
        "current",
    )
    assert config.token.model_dump() == {
        "auto_refresh": True,
        "refresh_interval_hours": 8,
        "fail_threshold": 5,
        "save_delay_ms": 500,
        "reload_interval_sec": 30,
        "nsfw_refresh_concurrency": 10,
        "nsfw_refresh_retries": 3,
    }
    assert config.cache.model_dump() == {
        "enable_auto_clean": True,
        "limit_mb": 1024,
        "keep_base64_cache": True,
    }
    assert list(config.performance.model_dump().values()) == [25, 50, 25, 10, 10]
    assert config.pool.model_dump() == {
        "policy": "web_first",
        "wait_ms": 0,
        "max_waiting": 1000,
        "incident_threshold": 5,
        "incident_window_sec": 60,
        "max_concurrent_per_credential": 4,
        "max_concurrent_per_api_key": 64,
        "max_cooldown_sec": 86400,
    }
    assert (config.xai.timeout, config.server.max_body_mb, config.server.drain_sec) == (600, 50, 8)
    assert config.server.cors_origins == ("*",)


def test_every_default_is_within_its_own_limits() -> None:
    given_back = {key.name: key.default for key in KEYS.values()}
    assert resolve({}, given_back, {}).config == resolve({}, {}, {}).config


def test_every_key_says_what_it_is_for() -> None:
    assert [key.name for key in KEYS.values() if not key.description] == []


@given(
    env=st.none() | st.integers(1, 3600),
    saved=st.none() | st.integers(1, 3600),
    file=st.none() | st.integers(1, 3600),
)
def test_the_strongest_layer_that_speaks_wins(
    env: int | None, saved: int | None, file: int | None
) -> None:
    resolved = resolve(
        {} if env is None else {TIMEOUT: str(env)},
        {} if saved is None else {"grok.timeout": saved},
        {} if file is None else {"grok": {"timeout": file}},
    )
    expected = next(
        (value, source)
        for value, source in (
            (env, "environment"),
            (saved, "panel"),
            (file, "file"),
            (120, "default"),
        )
        if value is not None
    )
    found = (resolved.config.grok.timeout, resolved.source_of("grok.timeout"))
    assert found == expected


def test_layers_are_merged_key_by_key() -> None:
    resolved = resolve(
        {"GROK2API_GROK__STREAM": "no"},
        {"grok.thinking": False},
        {"grok": {"temporary": False, "stream": True, "thinking": True}},
    )
    grok = resolved.config.grok
    assert (grok.stream, grok.thinking, grok.temporary) == (False, False, False)
    names = ("grok.stream", "grok.thinking", "grok.temporary", "grok.timeout")
    assert [resolved.source_of(name) for name in names] == [
        "environment",
        "panel",
        "file",
        "default",
    ]


def test_the_source_of_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        resolve({}, {}, {}).source_of("grok.nothing")


def test_a_configuration_cannot_be_changed_in_place() -> None:
    config = resolve({}, {}, {}).config
    with pytest.raises(ValueError, match="frozen"):
        config.grok.timeout = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("grok", "timeout", "120", "must be a whole number, not text"),
        ("grok", "timeout", True, "must be a whole number, not true or false"),
        ("grok", "timeout", 1.5, "must be a whole number, not a number with a fraction"),
        ("grok", "timeout", 0, "must be greater than or equal to 1"),
        ("grok", "timeout", None, "must be a whole number, not nothing"),
        ("grok", "stream", "true", "must be true or false, not text"),
        ("grok", "stream", 1, "must be true or false, not a number"),
        ("grok", "cf_clearance", ["a"], "must be text, not a list"),
        ("grok", "filter_tags", "a,b", "must be a list, not text"),
        ("grok", "filter_tags", ["a", 5], "must be text, not a number"),
        ("grok", "retry_status_codes", [401, 4000], "must be less than or equal to 599"),
        ("grok", "chat_protocol", "grpc", "must be 'mgw' or 'rest'"),
        ("grok", "user_agent", "a\r\nX-Evil: 1", "must be one line without control characters"),
        ("grok", "base_url", "file:///etc/passwd", "must be an address such as"),
        ("grok", "base_url", "https://u:p@grok.com", "must have no user name"),
        ("grok", "base_url", "", "must be an address such as"),
        ("grok", "base_url", "https://grok.com:99999", "must be an address such as"),
        ("grok", "base_proxy_url", "ftp://proxy:21", "must begin with http://"),
        ("app", "app_url", "ftp://host", "must begin with http:// or https://"),
        ("server", "cors_origins", ["https://a.example/path"], "an origin without a path"),
        ("server", "drain_sec", 10, "must be less than or equal to 9"),
        ("pool", "wait_ms", 60_001, "must be less than or equal to 60000"),
        ("models", "aliases", {"a": 5}, "must be text, not a number"),
        ("models", "aliases", {"": "grok-4"}, "must have at least 1 character"),
        ("app", "admin_username", "a" * 151, "must have at most 150 characters"),
        ("server", "cors_origins", ["*"] * 101, "must have at most 100 items"),
        ("grok", "cf_clearance", "a" * 8193, "must have at most 8192 characters"),
        ("register", "birth_date", "31.12.1990", "must be a day as YYYY-MM-DD"),
        ("register", "birth_date", "19901231", "must be a day as YYYY-MM-DD"),
    ],
)
def test_a_wrong_value_is_refused_with_a_reason(
    section: str, key: str, value: object, reason: str
) -> None:
    error = refusal(file={section: {key: value}})
    assert (error.key, reason in error.reason) == (f"{section}.{key}", True), error.reason
    assert refusal(saved={f"{section}.{key}": value}).file == "saved in the panel"


@pytest.mark.parametrize(
    ("section", "key", "value", "kept"),
    [
        ("grok", "base_url", " http://127.0.0.1:9000/ ", "http://127.0.0.1:9000"),
        ("app", "app_url", "", ""),
        ("grok", "base_proxy_url", "socks5h://u:p@127.0.0.1:1080", "socks5h://u:p@127.0.0.1:1080"),
        ("grok", "image_generation_method", "imagine_ws", "imagine_ws_experimental"),
        ("grok", "image_generation_method", "new_method", "imagine_ws_experimental"),
        ("token", "reload_interval_sec", -1, -1),
        ("register", "birth_date", "1990-12-31", "1990-12-31"),
        ("server", "cors_origins", ["https://a.example:8443/"], ("https://a.example:8443",)),
        ("models", "aliases", {"gpt-4o": "grok-4"}, {"gpt-4o": "grok-4"}),
    ],
)
def test_a_good_value_is_kept_in_its_plain_form(
    section: str, key: str, value: object, kept: object
) -> None:
    config = resolve({}, {}, {section: {key: value}}).config
    assert getattr(getattr(config, section), key) == kept


@pytest.mark.parametrize(
    ("file", "key", "reason"),
    [
        ({"grok": {"time_out": 5}}, "grok.time_out", "did you mean grok.timeout?"),
        ({"grok": {"limit_mb": 5}}, "grok.limit_mb", "did you mean cache.limit_mb?"),
        ({"grok": {"zzz": 5}}, "grok.zzz", "unknown setting"),
        ({"gork": {"timeout": 5}}, "gork", "did you mean [grok]?"),
        ({"zzz": {}}, "zzz", "unknown section"),
        ({"filter_tags": []}, "filter_tags", "did you mean grok.filter_tags?"),
        ({"grok": 5}, "grok", "must be a section: [grok]"),
        ({"grok": [{}]}, "grok", "must be a section: [grok]"),
    ],
)
def test_an_unknown_name_in_the_file_is_refused_with_a_suggestion(
    file: dict[str, Any], key: str, reason: str
) -> None:
    error = refusal(file=file)
    assert error.key == key
    assert error.reason.endswith(reason)


def test_every_problem_of_every_layer_is_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(
            {"GROK2API_GROK__MAX_RETRY": "lots"},
            {"pool.policy": "best"},
            {"grok": {"timeout": 0, "steam": True}},
            origin=Origin("config.toml", {("grok", "timeout"): 8, ("grok", "steam"): 3}),
            earlier=[Problem("elsewhere", None, "x", "is odd")],
        )
    text = str(caught.value)
    assert "\n" not in text
    assert [(p.source, p.line, p.key) for p in caught.value.problems] == [
        ("elsewhere", None, "x"),
        ("environment", None, "GROK2API_GROK__MAX_RETRY"),
        ("saved in the panel", None, "pool.policy"),
        ("config.toml", 3, "grok.steam"),
        ("config.toml", 8, "grok.timeout"),
    ]
    assert "config.toml, line 8, grok.timeout: must be greater than or equal to 1" in text


def test_a_key_with_a_line_break_stays_on_one_line() -> None:
    text = str(refusal(file={"grok": {"a\nb" + "c" * 500: 1}}))
    assert "\n" not in text
    assert len(text) < 200


def test_old_keys_are_kept_and_named_as_not_used() -> None:
    resolved = resolve(
        {},
        {"register.solver_url": "x", "gone.key": 1},
        {
            "grok": {"dynamic_statsig": True},
            "register": {"email_domain": "x.example", "threads": 4, "birth_date": ""},
        },
    )
    assert resolved.not_used == (
        "gone.key",
        "grok.dynamic_statsig",
        "register.email_domain",
        "register.solver_url",
        "register.threads",
    )


def test_defaults_are_not_named_as_not_used() -> None:
    assert resolve({}, {}, {}).not_used == ()


def test_a_variable_gets_a_service_with_a_bad_row_going() -> None:
    saved = {"pool.policy": "a word of another version"}
    assert refusal(saved=saved).key == "pool.policy"
    resolved = resolve({env_name("pool.policy"): "api_only"}, saved, {})
    assert resolved.config.pool.policy == "api_only"
