"""The first admin, and keeping the demo's data apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError
from pytest_django import Settings

from gateway.conf import Config
from gateway.conf.schema import App
from grok2api.bootstrap import (
    DEMO_KEY,
    FirstAdmin,
    claim_demo_data,
    ensure_admin,
    refuse_demo_data,
)

PASSWORD = "correct horse battery"


def config(**app: Any) -> Config:
    return Config(app=App(**app))


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROK2API_ADMIN_PASSWORD", "GROK2API_ADMIN_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.django_db
def test_an_admin_is_made_up_with_a_password_that_works_and_is_told_once() -> None:
    first = ensure_admin(config())
    assert first is not None
    assert first.username == "admin"
    assert first.password is not None
    user = authenticate(username="admin", password=first.password)
    assert user is not None
    assert user.is_superuser
    assert ensure_admin(config()) is None


@pytest.mark.django_db
def test_a_given_password_is_used_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROK2API_ADMIN_PASSWORD", PASSWORD)
    assert ensure_admin(config(admin_username="boss", app_key="of the file")) == FirstAdmin(
        "boss", None
    )
    assert authenticate(username="boss", password=PASSWORD) is not None


@pytest.mark.django_db
def test_the_password_of_the_configuration_is_the_next_choice() -> None:
    assert ensure_admin(config(app_key=PASSWORD)) == FirstAdmin("admin", None)
    assert authenticate(username="admin", password=PASSWORD) is not None


@pytest.mark.django_db
def test_a_password_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n", encoding="utf-8")
    monkeypatch.setenv("GROK2API_ADMIN_PASSWORD_FILE", str(file))
    ensure_admin(config())
    assert authenticate(username="admin", password=PASSWORD) is not None


@pytest.mark.django_db
@pytest.mark.parametrize("password", ["admin", "Grok2API", "changeme", "password1", "12345678"])
def test_a_password_that_everybody_tries_is_refused(password: str) -> None:
    with pytest.raises(CommandError, match="GROK2API_ADMIN_PASSWORD"):
        ensure_admin(config(app_key=password))
    assert not get_user_model().objects.exists()


@pytest.mark.django_db
def test_a_later_password_does_not_change_an_existing_admin() -> None:
    ensure_admin(config(app_key=PASSWORD))
    assert ensure_admin(config(app_key="admin")) is None
    assert authenticate(username="admin", password=PASSWORD) is not None


def test_the_demo_claims_an_empty_directory_and_its_own(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    refuse_demo_data()
    mark = claim_demo_data()
    assert mark == tmp_path / DEMO_KEY
    (tmp_path / "grok2api.sqlite3").touch()
    assert claim_demo_data() == mark
    with pytest.raises(CommandError, match="holds the data of the demo"):
        refuse_demo_data()


def test_the_demo_leaves_an_operators_data_alone(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "grok2api.sqlite3").touch()
    with pytest.raises(CommandError, match="not the demo's"):
        claim_demo_data()
    settings.STORAGE_TYPE = "pgsql"
    with pytest.raises(CommandError, match="SERVER_STORAGE_TYPE"):
        claim_demo_data()
    assert not (tmp_path / DEMO_KEY).exists()
