"""Secrets stay out of whatever is printed, raised or logged."""

from __future__ import annotations

import math
import traceback
from pathlib import Path

import pytest

from gateway.conf import toml_file
from gateway.conf.errors import ConfigError, SettingsRejected
from gateway.conf.keys import KEYS
from gateway.conf.layers import resolve
from gateway.conf.live_config import LiveConfig
from tests.gateway.conf.stores import MemoryStore

PLANTED = "hunter2-planted"
SECRETS = {
    "app.app_key",
    "app.api_key",
    "grok.cf_clearance",
    "grok.cf_cookies",
    "grok.statsig_id",
    "grok.base_proxy_url",
    "grok.asset_proxy_url",
    "metrics.token",
}
VALUES = {
    name: f"http://u:{PLANTED}@127.0.0.1:1" if name.endswith("proxy_url") else PLANTED
    for name in SECRETS
}


def test_the_secret_keys_are_these() -> None:
    assert {key.name for key in KEYS.values() if key.secret} == SECRETS


def test_no_secret_is_in_the_printed_configuration() -> None:
    resolved = resolve({}, VALUES, {})
    assert resolved.config.grok.cf_clearance == PLANTED
    for thing in (resolved, resolved.config, resolved.config.grok, resolved.config.app):
        assert PLANTED not in f"{thing!r} {thing!s} {thing}"


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_wrong_secret_is_not_in_the_error(name: str) -> None:
    section, _, leaf = name.partition(".")
    bad = f"{PLANTED}\r\n" + "x" * 9000
    for env, saved, file in (
        ({KEYS[name].env_name: bad}, {}, {}),
        ({}, {name: bad}, {}),
        ({}, {}, {section: {leaf: bad}}),
        ({}, {}, {section: {leaf: [PLANTED]}}),
        ({}, {}, {section: {leaf: {PLANTED: PLANTED}}}),
    ):
        with pytest.raises(ConfigError) as caught:
            resolve(env, saved, file)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.problems)
        assert PLANTED not in shown.replace(f'"{PLANTED}"', "")


def test_a_broken_line_does_not_show_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[grok]\ncf_clearance = "{PLANTED}\\q"\n', encoding="utf-8")
    file, [problem] = toml_file.read(path)
    assert PLANTED not in f"{problem!r} {file!r}"


def test_nothing_held_or_refused_shows_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveConfig(clock=lambda: math.inf)
    store = MemoryStore()
    env = {"GROK2API_METRICS__TOKEN": PLANTED}
    live.load(tmp_path, env, store)
    live.save({"grok.cf_clearance": PLANTED}, by="alice")
    with pytest.raises(SettingsRejected) as caught:
        live.save({"metrics.token": PLANTED, "grok.statsig_id": f"{PLANTED}\n"}, by="alice")
    assert PLANTED not in f"{caught.value} {caught.value!r} {caught.value.errors}"
    assert PLANTED not in f"{live!r} {live.resolved!r} {live._snapshot!r}"
    (tmp_path / "config.toml").write_text(f'[grok]\nstatsig_id = "{PLANTED}', encoding="utf-8")
    store.rows["app.api_key"] = [PLANTED]
    store.changes += 1
    live.unset(["app.app_url"])
    store.down = True
    live.unset(["app.app_url"])
    assert len(caplog.records) == 3
    shown = [f"{record.getMessage()} {record.args} {record.exc_info}" for record in caplog.records]
    assert PLANTED not in "".join(shown)
    assert "10.0.0.5" not in "".join(shown)
