from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from gateway import conf, views
from gateway.metrics_view import metrics_view
from gateway.relay import runtime
from gateway.telemetry.metrics import Metrics
from grok2api.api import api


def _metrics() -> Metrics | None:
    return runtime.current().metrics if runtime.is_running() else None


def _metrics_token() -> str:
    return conf.current().metrics.token


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    path("health", views.health, name="health"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", metrics_view(_metrics, _metrics_token), name="metrics"),
    path("v1/", api.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
]
