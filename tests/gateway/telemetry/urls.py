"""The metrics view over a gateway of the test's own, and a way to sign in."""

from __future__ import annotations

from django.urls import path

from gateway.metrics_view import metrics_view
from gateway.telemetry.metrics import Metrics


class Gateway:
    """What the view sees; tests replace the values."""

    metrics: Metrics | None = None
    token = ""


urlpatterns = [path("metrics", metrics_view(lambda: Gateway.metrics, lambda: Gateway.token))]
