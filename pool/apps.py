"""Django's entry to the pool."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.translation import gettext_lazy as _


class PoolConfig(AppConfig):
    """Registers the system checks ``pool.E0xx``."""

    name = "pool"
    verbose_name = _("Pool")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from pool.checks import check_pepper, check_secret_keys

        register(check_secret_keys, Tags.security)
        register(check_pepper, Tags.security)
