"""The ledger's tables. Nothing in them refers to a row elsewhere: keys and credentials come
and go, what they did stays in the record until it is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.utils.translation import gettext_lazy as _

from gateway.exchange import End

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise

ENDS = {
    End.COMPLETED.value: _("completed"),
    End.REFUSED.value: _("refused"),
    End.FAILED.value: _("failed"),
    End.BROKEN.value: _("broken off"),
    End.CLIENT_GONE.value: _("client gone"),
    End.STOPPED.value: _("service stopped"),
}
UPSTREAMS = {"": _("none"), "web": _("web"), "api": _("API")}
TOKEN_SOURCES = {"": _("not known"), "measured": _("measured"), "estimated": _("estimated")}


class RequestRecord(models.Model):
    """One request. ``credential_id``, ``hint`` and ``upstream`` are those of the attempt that
    answered, or else of the last one; null and "" when no credential was tried.

    The list is ordered by ``started_at`` and then the primary key, which the indexes follow.
    """

    started_at = models.DateTimeField(_("time"))
    request_id = models.CharField(_("request"), max_length=64)
    key_id = models.BigIntegerField(_("key number"))
    key_name = models.CharField(_("key"), max_length=100)
    operation = models.CharField(_("operation"), max_length=32)
    model = models.CharField(_("model"), max_length=128)
    streaming = models.BooleanField(_("streaming"))
    upstream = models.CharField(_("upstream"), max_length=16, choices=UPSTREAMS)
    credential_id = models.BigIntegerField(_("credential number"), null=True)
    hint = models.CharField(_("credential ends with"), max_length=16)
    attempts = models.JSONField(_("attempts"))
    end = models.CharField(_("end"), max_length=16, choices=ENDS)
    status = models.PositiveSmallIntegerField(_("status"))
    error_code = models.CharField(_("error"), max_length=64)
    first_event_ms = models.PositiveIntegerField(_("first event after (ms)"), null=True)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"))
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), null=True)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), null=True)
    reasoning_tokens = models.PositiveIntegerField(_("reasoning tokens"), null=True)
    tokens = models.CharField(_("token counts"), max_length=16, choices=TOKEN_SOURCES)
    bytes_in = models.PositiveBigIntegerField(_("bytes in"))
    bytes_out = models.PositiveBigIntegerField(_("bytes out"))

    class Meta:
        verbose_name = _("request")
        verbose_name_plural = _("requests")
        indexes = [
            # The two last columns are looked at in the index, row by row: they have so few
            # values that an index of their own would mislead the planners.
            models.Index(fields=["started_at", "id", "end", "upstream"], name="ledger_time"),
            models.Index(fields=["key_id", "started_at"], name="ledger_key"),
            models.Index(fields=["model", "started_at"], name="ledger_model"),
            models.Index(fields=["credential_id", "started_at"], name="ledger_credential"),
            models.Index(fields=["error_code", "started_at"], name="ledger_error"),
            # PostgreSQL looks a beginning up in an index of this kind only.
            models.Index(
                fields=["request_id"], name="ledger_request", opclasses=["varchar_pattern_ops"]
            ),
        ]

    def __str__(self) -> str:
        return self.request_id


class RecordedKey(models.Model):
    """Every name that a client key had in the ledger; the newest row of a key is its last one.

    What finds a key by a part of its name without reading a million requests, and names
    the keys of the roll-ups.
    """

    key_id = models.BigIntegerField(_("key number"))
    name = models.CharField(_("name"), max_length=100)

    class Meta:
        verbose_name = _("recorded key")
        verbose_name_plural = _("recorded keys")
        constraints = [models.UniqueConstraint(fields=["key_id", "name"], name="ledger_key_once")]

    def __str__(self) -> str:
        return f"{self.key_id} {self.name}"


def _counter(label: StrPromise) -> models.PositiveBigIntegerField[int, int]:
    return models.PositiveBigIntegerField(label, default=0)


class Rollup(models.Model):
    """Sums over the requests of one model, key and upstream that began in one period.

    ``failed`` counts FAILED and BROKEN. ``requests`` is more than the four ends together
    by what ended because the service stopped. Tokens that are not known count as none.
    """

    start = models.DateTimeField(_("begins"))
    model = models.CharField(_("model"), max_length=128)
    key_id = models.BigIntegerField(_("key number"))
    upstream = models.CharField(_("upstream"), max_length=16, choices=UPSTREAMS)
    requests = _counter(_("requests"))
    completed = _counter(_("completed"))
    failed = _counter(_("failed"))
    refused = _counter(_("refused"))
    client_gone = _counter(_("client gone"))
    prompt_tokens = _counter(_("prompt tokens"))
    completion_tokens = _counter(_("completion tokens"))
    first_event_ms = _counter(_("first events after, together (ms)"))
    first_events = _counter(_("first events"))
    duration_ms = _counter(_("duration, together (ms)"))
    bytes_out = _counter(_("bytes out"))

    class Meta:
        abstract = True
        constraints = [
            models.UniqueConstraint(
                fields=["start", "model", "key_id", "upstream"], name="ledger_%(class)s_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} {self.model}"


class HourlyUsage(Rollup):
    """A table of its own, so that a query over days does not pass by the hours."""

    class Meta(Rollup.Meta):
        verbose_name = _("usage by hour")
        verbose_name_plural = _("usage by hour")


class DailyUsage(Rollup):
    """Days are those of UTC, whatever the time zone of the keys' limits."""

    class Meta(Rollup.Meta):
        verbose_name = _("usage by day")
        verbose_name_plural = _("usage by day")
