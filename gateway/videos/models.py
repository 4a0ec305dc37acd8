"""The table of video jobs."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway.videos.jobs import Status

STATUSES = {
    Status.QUEUED.value: _("queued"),
    Status.SUBMITTING.value: _("being submitted"),
    Status.RUNNING.value: _("running"),
    Status.COMPLETED.value: _("completed"),
    Status.FAILED.value: _("failed"),
}


class VideoJob(models.Model):
    """One job. ``worker`` has claimed it until ``heartbeat_at`` is too long ago, by the
    database's clock. ``upstream_id`` is what upstream is asked about: a request id of
    api.x.ai, or the address of a video that grok.com has finished.
    """

    public_id = models.CharField(_("job"), max_length=64, unique=True)
    key_id = models.BigIntegerField(_("key number"))
    key_name = models.CharField(_("key"), max_length=100)
    model = models.CharField(_("model"), max_length=128)
    prompt = models.TextField(_("prompt"))
    ratio = models.CharField(_("aspect ratio"), max_length=8)
    seconds = models.PositiveSmallIntegerField(_("seconds"))
    size = models.CharField(_("size"), max_length=16)
    hd = models.BooleanField(_("high resolution"))
    preset = models.CharField(_("preset"), max_length=16)
    input_name = models.CharField(_("first picture"), max_length=255, blank=True)
    status = models.CharField(_("status"), max_length=16, choices=STATUSES)
    progress = models.PositiveSmallIntegerField(_("progress (%)"), default=0)
    accepted = models.BooleanField(_("accepted by upstream"), default=False)
    created_at = models.DateTimeField(_("time"))
    completed_at = models.DateTimeField(_("ended"), null=True)
    expires_at = models.DateTimeField(_("forgotten"), null=True, db_index=True)
    worker = models.CharField(_("worker"), max_length=64, blank=True)
    heartbeat_at = models.DateTimeField(_("last sign of life"), null=True)
    upstream = models.CharField(_("upstream"), max_length=16, blank=True)
    credential_id = models.BigIntegerField(_("credential number"), null=True)
    upstream_id = models.TextField(_("name at upstream"), blank=True)
    poster_url = models.TextField(_("poster at upstream"), blank=True)
    video_name = models.CharField(_("video"), max_length=255, blank=True)
    poster_name = models.CharField(_("poster"), max_length=255, blank=True)
    note = models.CharField(_("note"), max_length=255, blank=True)
    error_code = models.CharField(_("error"), max_length=64, blank=True)
    error_message = models.CharField(_("error message"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("video job")
        verbose_name_plural = _("video jobs")
        indexes = [
            models.Index(fields=["status", "id"], name="video_jobs_status"),
            models.Index(fields=["key_id", "id"], name="video_jobs_key"),
        ]

    def __str__(self) -> str:
        return self.public_id
