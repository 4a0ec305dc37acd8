"""Variables: their names, how values are spelled, and secrets read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.conf.environment import read_secret_files
from gateway.conf.errors import ConfigError
from gateway.conf.keys import KEYS, by_env_name
from gateway.conf.layers import resolve


def reason_for(name: str, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve({name: text}, {}, {})
    assert (caught.value.file, caught.value.key) == ("environment", name)
    assert str(caught.value) == f"environment, {name}: {caught.value.reason}"
    return caught.value.reason


def test_it_works() -> None:
    config = resolve({"GROK2API_XAI__TIMEOUT": " 30 "}, {}, {}).config
    assert config.xai.timeout == 30


def test_every_key_has_a_variable_of_its_own() -> None:
    found = [by_env_name(key.env_name) for key in KEYS.values()]
    assert found == list(KEYS.values())


@pytest.mark.parametrize("word", ["1", "true", "YES", " On "])
def test_words_for_true(word: str) -> None:
    assert resolve({"GROK2API_GROK__NSFW_ENABLED": word}, {}, {}).config.grok.nsfw_enabled


@pytest.mark.parametrize("word", ["0", "false", "NO", " Off "])
def test_words_for_false(word: str) -> None:
    assert not resolve({"GROK2API_GROK__STREAM": word}, {}, {}).config.grok.stream


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a,b", ("a", "b")),
        (" a , b, ", ("a", "b")),
        ('["a,b", "c"]', ("a,b", "c")),
        ("[]", ()),
    ],
)
def test_lists_are_json_or_separated_by_commas(text: str, tags: tuple[str, ...]) -> None:
    assert resolve({"GROK2API_GROK__FILTER_TAGS": text}, {}, {}).config.grok.filter_tags == tags


@pytest.mark.parametrize("text", ["401, 503", "[401, 503]", '["401", 503]'])
def test_lists_of_numbers(text: str) -> None:
    config = resolve({"GROK2API_GROK__RETRY_STATUS_CODES": text}, {}, {}).config
    assert config.grok.retry_status_codes == (401, 503)


@pytest.mark.parametrize(
    "text", ["gpt-4o=grok-4, o1 = grok-3", '{"gpt-4o": "grok-4", "o1": "grok-3"}']
)
def test_tables_are_json_or_pairs(text: str) -> None:
    config = resolve({"GROK2API_MODELS__ALIASES": text}, {}, {}).config
    assert config.models.aliases == {"gpt-4o": "grok-4", "o1": "grok-3"}


def test_an_empty_variable_counts_as_not_set() -> None:
    resolved = resolve({"GROK2API_GROK__STREAM": "", "GROK2API_GROK__NONSENSE": " "}, {}, {})
    assert resolved.source_of("grok.stream") == "default"


def test_process_settings_and_other_programs_are_left_alone() -> None:
    env = {"GROK2API_DATA_DIR": "/d", "GROK2API_SECRET_KEY_FILE": "/k", "APP__X": "1", "TZ": "UTC"}
    assert resolve(env, {}, {}).sources == {}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("GROK2API_GROK__STREAM", "maybe", "must be one of true, false"),
        ("GROK2API_GROK__TIMEOUT", "soon", "must be a whole number"),
        ("GROK2API_GROK__TIMEOUT", "0", "must be greater than or equal to 1"),
        ("GROK2API_GROK__RETRY_STATUS_CODES", "401,x", "must be a whole number"),
        ("GROK2API_GROK__FILTER_TAGS", "[oops", "is not valid JSON"),
        ("GROK2API_GROK__FILTER_TAGS", "[5]", "must be text, not a number"),
        ("GROK2API_MODELS__ALIASES", "gpt-4o", "must be a JSON object or name=value pairs"),
        ("GROK2API_MODELS__ALIASES", "[" * 100_000, "must be a JSON object or name=value pairs"),
        ("GROK2API_MODELS__ALIASES", '{"a":' * 100_000, "is not valid JSON"),
        ("GROK2API_GROK__STEAM", "1", "did you mean GROK2API_GROK__STREAM?"),
        ("GROK2API_GORK__STREAM", "1", "did you mean GROK2API_GROK__STREAM?"),
        ("GROK2API_ZZZ__QQQ", "1", "unknown setting"),
        ("GROK2API_GROK_TIMEOUT", "5", "did you mean GROK2API_GROK__TIMEOUT?"),
        ("GROK2API_GROK__STREAM_FILE", "/x", "only secrets can be read from a file"),
        ("GROK2API_REGISTER__SOLVER", "x", "unknown setting"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, text: str, reason: str) -> None:
    assert reason in reason_for(name, text)


def test_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cf"
    path.write_text("\ufeffvery-secret\n", encoding="utf-8")
    env, problems = read_secret_files({"GROK2API_GROK__CF_CLEARANCE_FILE": str(path), "HOME": "/"})
    assert problems == []
    assert env == {"GROK2API_GROK__CF_CLEARANCE": "very-secret"}


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none"
    env, [problem] = read_secret_files({"GROK2API_METRICS__TOKEN_FILE": str(path)})
    assert env == {}
    assert problem.key == "GROK2API_METRICS__TOKEN_FILE"
    assert problem.reason == f"cannot read {path}: No such file or directory"


def test_a_secret_file_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "cf"
    path.write_bytes(b"\xff\xfe\x00secret")
    _, [problem] = read_secret_files({"GROK2API_METRICS__TOKEN_FILE": str(path)})
    assert problem.reason == f"{path} is not UTF-8 text"


def test_a_secret_given_twice_is_refused() -> None:
    env = {"GROK2API_METRICS__TOKEN": "a", "GROK2API_METRICS__TOKEN_FILE": "/x"}
    _, [problem] = read_secret_files(env)
    assert problem.reason == "set this or GROK2API_METRICS__TOKEN, not both"


def test_a_file_variable_of_something_that_is_no_secret_is_left_to_be_refused() -> None:
    env, problems = read_secret_files({"GROK2API_GROK__STREAM_FILE": "/x"})
    assert (env, problems) == ({"GROK2API_GROK__STREAM_FILE": "/x"}, [])
