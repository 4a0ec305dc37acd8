"""The record of what the operator owns: credentials, the keys handed to clients, and their use.

The database is the record, not the hot path: selection works on an in-memory copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise


class Kind(models.TextChoices):
    """Which upstream a credential opens, and its tier."""

    SSO = "sso", _("Web session")
    SSO_SUPER = "ssoSuper", _("Web session (Super)")
    API = "api", _("xAI API key")


class Status(models.TextChoices):
    ACTIVE = "active", _("Active")
    COOLING = "cooling", _("Cooling")
    INVALID = "invalid", _("Invalid")
    DISABLED = "disabled", _("Disabled")


class Credential(models.Model):
    """One upstream identity. ``sealed`` is the encrypted secret, never shown by default."""

    kind = models.CharField(_("type"), max_length=16, choices=Kind)
    sealed = models.BinaryField(_("sealed secret"))
    sealed_with = models.CharField(
        _("sealed with"),
        max_length=16,
        blank=True,
        db_index=True,
        help_text=_("Which secret key sealed it; empty: not known."),
    )
    fingerprint = models.CharField(
        _("fingerprint"), max_length=64, unique=True, help_text=_("Keyed hash of the secret.")
    )
    hint = models.CharField(_("ends with"), max_length=8, blank=True)
    status = models.CharField(_("status"), max_length=16, choices=Status, default=Status.ACTIVE)
    status_reason = models.CharField(_("reason"), max_length=200, blank=True)
    user_id = models.CharField(_("upstream user id"), max_length=64, blank=True)
    team_id = models.CharField(_("shared bucket (xAI team)"), max_length=64, blank=True)
    note = models.CharField(_("note"), max_length=500, blank=True)
    tags = models.JSONField(_("tags"), default=list, blank=True)
    legacy = models.JSONField(_("fields kept from an import"), default=dict, blank=True)
    use_count = models.PositiveBigIntegerField(_("uses"), default=0)
    fail_count = models.PositiveIntegerField(_("failures in a row"), default=0)
    resting_until = models.DateTimeField(_("resting until"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    last_failed_at = models.DateTimeField(_("last failed"), null=True, blank=True)
    last_fail_reason = models.CharField(_("last failure"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("added"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("changed"), auto_now=True, db_index=True)
    revision = models.PositiveBigIntegerField(
        _("revision"),
        default=0,
        editable=False,
        help_text=_("Counts the operator's changes, which outrank what workers know."),
    )

    class Meta:
        verbose_name = _("credential")
        verbose_name_plural = _("credentials")
        indexes = [models.Index(fields=["kind", "status"], name="credential_kind_status")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} …{self.hint}"


class BucketQuota(models.Model):
    """What is left in one bucket of one credential.

    ``remaining`` null means never measured: eligible, neither zero nor full.
    ``cooling_until`` in the future means the bucket is not used before then.
    """

    class Source(models.TextChoices):
        UPSTREAM = "upstream", _("Reported by upstream")
        ESTIMATE = "estimate", _("Counted here")
        IMPORT = "import", _("Imported")

    credential = models.ForeignKey(Credential, models.CASCADE, related_name="quotas")
    bucket = models.CharField(_("bucket"), max_length=64)
    remaining = models.IntegerField(_("remaining"), null=True, blank=True)
    total = models.IntegerField(_("total"), null=True, blank=True)
    source = models.CharField(_("source"), max_length=16, choices=Source, blank=True)
    measured_at = models.DateTimeField(_("measured"), null=True, blank=True)
    resets_at = models.DateTimeField(_("resets"), null=True, blank=True)
    cooling_until = models.DateTimeField(_("cooling until"), null=True, blank=True)

    class Meta:
        verbose_name = _("bucket quota")
        verbose_name_plural = _("bucket quotas")
        constraints = [
            models.UniqueConstraint(fields=["credential", "bucket"], name="one_quota_per_bucket")
        ]

    def __str__(self) -> str:
        return f"{self.bucket}: {'?' if self.remaining is None else self.remaining}"


UNLIMITED = -1
"""What a limit of a client key holds when there is none; 0 lets nothing pass."""


def _limit(label: StrPromise) -> models.IntegerField[int, int]:
    return models.IntegerField(
        label,
        default=UNLIMITED,
        validators=[MinValueValidator(UNLIMITED)],
        help_text=_("-1: unlimited."),
    )


class ClientKey(models.Model):
    """A key handed to a client; the clear text exists only when it is made.

    The four daily limits count in the buckets of http-contract section 9.
    """

    name = models.CharField(_("name"), max_length=100)
    prefix = models.CharField(_("begins with"), max_length=16)
    digest = models.CharField(_("keyed hash"), max_length=64, unique=True)
    is_active = models.BooleanField(_("active"), default=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    allowed_models = models.JSONField(
        _("allowed models"), default=list, blank=True, help_text=_("Empty: all models.")
    )
    chat_limit = _limit(_("chats per day"))
    heavy_limit = _limit(_("heavy chats per day"))
    image_limit = _limit(_("images per day"))
    video_limit = _limit(_("videos per day"))
    rpm_limit = _limit(_("requests per minute"))
    concurrency_limit = _limit(_("requests at the same time"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("changed"), auto_now=True, db_index=True)

    class Meta:
        verbose_name = _("client key")
        verbose_name_plural = _("client keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class KeyUsage(models.Model):
    """What one client key has used of its daily buckets on one day (of the reset time zone)."""

    key = models.ForeignKey(ClientKey, models.CASCADE, related_name="usages")
    day = models.DateField(_("day"))
    chat = models.PositiveBigIntegerField(_("chats"), default=0)
    heavy = models.PositiveBigIntegerField(_("heavy chats"), default=0)
    image = models.PositiveBigIntegerField(_("images"), default=0)
    video = models.PositiveBigIntegerField(_("videos"), default=0)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("key usage")
        verbose_name_plural = _("key usage")
        constraints = [models.UniqueConstraint(fields=["key", "day"], name="one_usage_per_day")]
        indexes = [models.Index(fields=["day"], name="key_usage_day")]

    def __str__(self) -> str:
        return f"{self.key_id} {self.day}"


class Leadership(models.Model):
    """Who does the work that must be done once, however many workers there are."""

    name = models.CharField(_("duty"), max_length=32, unique=True)
    holder = models.CharField(_("worker"), max_length=64, blank=True)
    expires_at = models.DateTimeField(_("held until"))

    class Meta:
        verbose_name = _("leadership")
        verbose_name_plural = _("leaderships")

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"


class Incident(models.Model):
    """Upstream trouble that hit many credentials at once; while it lasts none is penalised."""

    reason = models.CharField(_("error"), max_length=200)
    credentials = models.PositiveIntegerField(_("credentials hit"), default=0)
    started_at = models.DateTimeField(_("began"))
    last_seen_at = models.DateTimeField(_("last seen"))
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True, db_index=True)

    class Meta:
        verbose_name = _("upstream incident")
        verbose_name_plural = _("upstream incidents")

    def __str__(self) -> str:
        return f"{self.reason} ({self.started_at:%Y-%m-%d %H:%M})"
