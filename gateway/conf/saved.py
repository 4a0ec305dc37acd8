"""The panel's layer: settings kept as rows of ``SavedSetting``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from django.apps import apps
from django.db import Error, close_old_connections, transaction
from django.db.models import Count, Max
from django.utils import timezone

if TYPE_CHECKING:
    from gateway.models import SavedSetting

MAX_NAME = 150
"""Characters of ``updated_by``: those of a Django user name."""


class SettingsStore(Protocol):
    """Where saved settings are kept. Its failures are ``django.db.Error``."""

    def stamp(self) -> object:
        """Something cheap that differs after every change."""

    def read(self) -> dict[str, Any]:
        """Dotted key to JSON value."""

    def write(self, values: Mapping[str, Any], by: str) -> None:
        """Add or replace, all or nothing."""

    def delete(self, keys: Iterable[str]) -> None:
        """Forget; keys that are not there do not matter."""


def _rows() -> type[SavedSetting]:
    """Looked up late: this package may be imported before Django's models are."""
    model: type[SavedSetting] = apps.get_model("gateway", "SavedSetting")
    return model


class DatabaseStore:
    def __init__(self, now: Callable[[], datetime] = timezone.now) -> None:
        self._now = now

    def stamp(self) -> object:
        """When the newest row changed, and how many there are."""
        try:
            found = _rows().objects.aggregate(newest=Max("updated_at"), count=Count("id"))
        except Error:
            close_old_connections()  # a broken connection would fail at every later look
            raise
        return (found["newest"], found["count"])

    def read(self) -> dict[str, Any]:
        return dict(_rows().objects.values_list("key", "value"))

    def write(self, values: Mapping[str, Any], by: str) -> None:
        """Rows are locked first and time never steps back, so no change escapes ``stamp``."""
        rows = _rows().objects
        with transaction.atomic():
            locked = rows.select_for_update().order_by("key").values_list("updated_at", flat=True)
            moment = max((self._now(), *(at + timedelta(microseconds=1) for at in locked)))
            for key, value in values.items():
                rows.update_or_create(
                    key=key,
                    defaults={"value": value, "updated_at": moment, "updated_by": by[:MAX_NAME]},
                )

    def delete(self, keys: Iterable[str]) -> None:
        _rows().objects.filter(key__in=list(keys)).delete()
