from __future__ import annotations

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    """An app only so that the project's own commands (``serve``, ``demo``) are found."""

    name = "grok2api"
    verbose_name = "grok2api"
