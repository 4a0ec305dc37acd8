"""The pool in Django's admin. Secrets go in and never come out again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from pool import operations
from pool.forms import ClientKeyForm, CredentialAddForm, CredentialChangeForm
from pool.keys import mint
from pool.limits import record
from pool.limits.day import RESET_OFFSET, Days, date_of, offset_of
from pool.models import BucketQuota, ClientKey, Credential, Incident, KeyUsage

if TYPE_CHECKING:
    CredentialBase = admin.ModelAdmin[Credential]
    ClientKeyBase = admin.ModelAdmin[ClientKey]
    IncidentBase = admin.ModelAdmin[Incident]
    InlineBase = admin.TabularInline[BucketQuota, Credential]
    UsageInlineBase = admin.TabularInline[KeyUsage, ClientKey]
else:
    CredentialBase = ClientKeyBase = IncidentBase = admin.ModelAdmin
    InlineBase = UsageInlineBase = admin.TabularInline

USAGE_DAYS = 30
"""Days of use that the page of a client key shows."""


class BucketQuotaInline(InlineBase):
    """Shown, not edited: the pool writes these rows while the form is open."""

    model = BucketQuota
    extra = 0
    can_delete = False
    fields = ("bucket", "remaining", "total", "source", "measured_at", "resets_at", "cooling_until")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Credential)
class CredentialAdmin(CredentialBase):
    list_display = ("hint", "kind", "status", "use_count", "last_used_at", "note")
    list_display_links = ("hint", "kind")
    list_filter = ("kind", "status")
    search_fields = ("hint", "note")
    ordering = ("-pk",)
    list_per_page = 100
    show_full_result_count = False
    actions = ("enable", "disable", "clear_cooldown", "reset_quota")
    inlines = (BucketQuotaInline,)
    readonly_fields = (
        "hint", "status_reason", "user_id", "team_id", "use_count", "fail_count", "resting_until",
        "last_used_at", "last_failed_at", "last_fail_reason", "created_at", "updated_at",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        return super().get_queryset(request).defer("sealed")

    def get_form(
        self, request: HttpRequest, obj: Credential | None = None, change: bool = False, **kw: Any
    ) -> type[forms.ModelForm[Credential]]:
        kw["form"] = CredentialChangeForm if change else CredentialAddForm
        return super().get_form(request, obj, change, **kw)

    def get_fields(self, request: HttpRequest, obj: Credential | None = None) -> list[Any]:
        if obj is None:
            return [*CredentialAddForm.Meta.fields]
        return [*CredentialChangeForm.Meta.fields, *self.readonly_fields]

    def get_inlines(
        self, request: HttpRequest, obj: Credential | None
    ) -> tuple[type[BucketQuotaInline], ...]:
        return self.inlines if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Credential, form: Any, change: bool) -> None:
        """Adds a row, or writes the edited columns only: the pool counts on meanwhile."""
        if not change:
            obj.save(force_insert=True)
        elif form.changed_data:
            operations.save_edit(obj, form.changed_data)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        operations.delete(queryset)

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        """Also brings back what was retired as invalid."""
        _tell_count(self, request, operations.enable(queryset))

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        _tell_count(self, request, operations.disable(queryset))

    @admin.action(description=_("Clear cool-downs"), permissions=["change"])
    def clear_cooldown(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        _tell_count(self, request, operations.clear_cooldown(queryset))

    @admin.action(description=_("Forget quota numbers"), permissions=["change"])
    def reset_quota(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        _tell_count(self, request, operations.reset_quota(queryset))


def _today() -> int:
    return Days(offset_of(os.environ.get(RESET_OFFSET)), time.time).today()


class KeyUsageInline(UsageInlineBase):
    """Shown, not edited: the workers add to these rows while the form is open."""

    model = KeyUsage
    extra = 0
    can_delete = False
    ordering = ("-day",)
    fields = ("day", "chat", "heavy", "image", "video")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[KeyUsage]:
        return super().get_queryset(request).filter(day__gt=date_of(_today() - USAGE_DAYS))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(ClientKey)
class ClientKeyAdmin(ClientKeyBase):
    form = ClientKeyForm
    list_display = ("name", "prefix", "is_active", "expires_at", "created_at")
    list_filter = ("is_active",)
    search_fields = ("name", "prefix")
    ordering = ("-pk",)
    actions = ("enable", "disable", "reset_today")
    inlines = (KeyUsageInline,)
    readonly_fields = ("prefix", "created_at", "updated_at")

    def get_fields(self, request: HttpRequest, obj: ClientKey | None = None) -> list[Any]:
        shown = [*ClientKeyForm.Meta.fields]
        return shown if obj is None else [*shown, *self.readonly_fields]

    def get_inlines(
        self, request: HttpRequest, obj: ClientKey | None
    ) -> tuple[type[KeyUsageInline], ...]:
        return self.inlines if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: ClientKey, form: Any, change: bool) -> None:
        if change:
            if form.changed_data:
                obj.save(update_fields=[*form.changed_data, "updated_at"])
            return
        minted = mint()
        obj.prefix, obj.digest = minted.prefix, minted.digest
        obj.save(force_insert=True)
        shown_once = _("The key, shown this once: %s") % minted.clear
        self.message_user(request, shown_once, messages.WARNING)

    @admin.action(description=_("Enable"), permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        changed = queryset.filter(is_active=False)
        _tell_count(self, request, changed.update(is_active=True, updated_at=timezone.now()))

    @admin.action(description=_("Disable"), permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        changed = queryset.filter(is_active=True)
        _tell_count(self, request, changed.update(is_active=False, updated_at=timezone.now()))

    @admin.action(description=_("Reset today's use"), permissions=["change"])
    def reset_today(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        """Workers see it within about a second."""
        ids = list(queryset.values_list("pk", flat=True))
        record.reset(ids, _today())
        _tell_count(self, request, len(ids))


@admin.register(Incident)
class IncidentAdmin(IncidentBase):
    """What happened, for reading: workers open and close these rows themselves."""

    list_display = ("reason", "credentials", "started_at", "last_seen_at", "ended_at")
    ordering = ("-started_at",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _tell_count(model_admin: Any, request: HttpRequest, changed: int) -> None:
    text = ngettext("%d row changed.", "%d rows changed.", changed) % changed
    model_admin.message_user(request, text, messages.SUCCESS)
