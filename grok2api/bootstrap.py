"""What has to be true before the server opens its port."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction

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
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except WrongKey as error:
        raise CommandError(str(error)) from error
    except OperationalError as error:
        raise CommandError(f"The database cannot be used: {error}") from error
    return config


WELL_KNOWN = frozenset({"admin", "password", "grok2api", "changeme", "123456"})
"""Passwords that every scanner tries; "admin" and "grok2api" were defaults of old services."""


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
    if password is None and given.lower() in WELL_KNOWN:
        raise CommandError(
            "The admin password is one that everybody knows. Set GROK2API_ADMIN_PASSWORD to "
            "another, or leave it (and app.app_key) empty to have one made."
        )
    name = config.app.admin_username
    chosen = password or given or secrets.token_urlsafe(12)
    users.create_superuser(username=name, email="", password=chosen)
    return FirstAdmin(name, None if password or given else chosen)
