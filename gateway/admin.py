"""The ledger in Django's admin, to be read: nobody adds, changes or deletes what was recorded."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

from gateway.ledger.filters import mentioning
from gateway.ledger.models import DailyUsage, HourlyUsage, RequestRecord

if TYPE_CHECKING:
    PaginatorBase = Paginator[QuerySet[Any]]
    AdminBase = admin.ModelAdmin[Any]
else:
    PaginatorBase = Paginator
    AdminBase = admin.ModelAdmin


class CappedPaginator(PaginatorBase):
    """Ends after ``MOST`` rows, which bounds both the counting and the skipping.

    Who looks for something older narrows the list down.
    """

    MOST = 10_000

    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        return self.object_list[: self.MOST].count()


class ReadOnlyAdmin(AdminBase):
    """Shows rows; nothing in its list needs a scan or a sort."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    list_per_page = 100
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(RequestRecord)
class RequestRecordAdmin(ReadOnlyAdmin):
    """Searched by the beginning of a request id or a part of a key's name."""

    list_display = (
        "started_at", "key_name", "model", "end", "status", "error_code", "upstream", "hint",
        "first_event_ms", "duration_ms",
    )  # fmt: skip
    list_filter = ("started_at", "end", "upstream", "streaming")
    search_fields = ("request_id", "key_name")
    ordering = ("-started_at", "-pk")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        found = queryset.filter(mentioning(search_term)) if search_term.strip() else queryset
        return found, False


@admin.register(HourlyUsage, DailyUsage)
class RollupAdmin(ReadOnlyAdmin):
    """Ordered as its one index is."""

    list_display = (
        "start", "model", "key_id", "upstream", "requests", "completed", "failed",
        "refused", "client_gone", "prompt_tokens", "completion_tokens",
    )  # fmt: skip
    list_filter = ("start", "upstream")
    ordering = ("-start", "-model", "-key_id", "-upstream")
