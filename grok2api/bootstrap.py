"""What has to be true before the server opens its port."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import CommandError, call_command
from django.db import Error, transaction

from gateway import conf
from gateway.conf import Config, ConfigError
from grok2api.env import env_secret
from pool.checks import verify_secret_key
from pool.crypto import WrongKey


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The admin user made just now; ``password`` is set only when it was made up here."""

    username: str
    password: str | None


def prepare() -> Config:
    """Migrate, load the configuration, check the secret key; raises CommandError."""
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    try:
        call_command("migrate", verbosity=0, interactive=False)
        config = conf.live.load(settings.DATA_DIR, os.environ).config
        verify_secret_key()
    except (ConfigError, WrongKey) as error:
        raise CommandError(str(error)) from error
    except (Error, ImproperlyConfigured) as error:
        raise CommandError(f"The database cannot be used: {error}") from error
    return config


DEMO_KEY = "demo.key"
"""The demo's client key, in a data directory whose admin has a password that all know."""


def refuse_demo_data() -> None:
    """Raises CommandError when the data directory is the demo's."""
    if (settings.DATA_DIR / DEMO_KEY).exists():
        raise CommandError(
            f"{settings.DATA_DIR} holds the data of the demo, whose admin password is public. "
            "Set GROK2API_DATA_DIR to another directory."
        )


def claim_demo_data() -> Path:
    """The file for the demo's key, which marks its data; raises CommandError when it is not.

    The demo makes an admin whose password is public, so it never touches other data.
    """
    if settings.STORAGE_TYPE != "local":
        raise CommandError("The demo keeps its data in files: unset SERVER_STORAGE_TYPE.")
    mark: Path = settings.DATA_DIR / DEMO_KEY
    if not mark.exists() and (settings.DATA_DIR / "grok2api.sqlite3").exists():
        raise CommandError(
            f"{settings.DATA_DIR} holds data that is not the demo's. "
            "Set GROK2API_DATA_DIR to another directory."
        )
    mark.touch(mode=0o600)
    return mark


WELL_KNOWN = frozenset({"admin", "grok2api", "changeme"})
"""Defaults of old services, beside the common passwords that Django lists."""


@transaction.atomic
def ensure_admin(config: Config, password: str | None = None) -> FirstAdmin | None:
    """Create the first admin user if there is no superuser yet; raises CommandError.

    ``password`` is for the demo alone; otherwise the environment's, the configured one,
    or a random one that is returned to be shown once.
    """
    users = get_user_model()._default_manager
    if users.filter(is_superuser=True).exists():
        return None
    given = env_secret("GROK2API_ADMIN_PASSWORD") or config.app.app_key
    if password is None and given and _is_well_known(given):
        raise CommandError(
            "The admin password is one that everybody knows. Set GROK2API_ADMIN_PASSWORD to "
            "another, or leave it (and app.app_key) empty to have one made."
        )
    name = config.app.admin_username
    chosen = password or given or secrets.token_urlsafe(12)
    users.create_superuser(username=name, email="", password=chosen)
    return FirstAdmin(name, None if password or given else chosen)


def _is_well_known(password: str) -> bool:
    try:
        CommonPasswordValidator().validate(password)
    except ValidationError:
        return True
    return password.lower() in WELL_KNOWN
