"""The gateway's tables: settings saved in the panel, and those of the ledger."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway.ledger.models import DailyUsage, HourlyUsage, RecordedKey, RequestRecord
from gateway.videos.models import VideoJob

__all__ = ["DailyUsage", "HourlyUsage", "RecordedKey", "RequestRecord", "SavedSetting", "VideoJob"]


class SavedSetting(models.Model):
    """One setting, stronger than the file and weaker than the environment.

    ``updated_at`` is set by the writer: it only ever grows, so that workers notice changes
    by its maximum.
    """

    key = models.CharField(_("setting"), max_length=200, unique=True, help_text=_("section.name"))
    value = models.JSONField(_("value"), null=True)
    updated_at = models.DateTimeField(_("changed"), db_index=True)
    updated_by = models.CharField(_("changed by"), max_length=150, blank=True)

    class Meta:
        verbose_name = _("saved setting")
        verbose_name_plural = _("saved settings")

    def __str__(self) -> str:
        return self.key
