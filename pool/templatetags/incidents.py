"""``{% open_incidents as incidents %}``: the upstream incidents that last."""

from __future__ import annotations

from django import template

from pool.incident_record import unfinished
from pool.models import Incident

register = template.Library()


@register.simple_tag
def open_incidents() -> list[Incident]:
    """Oldest first."""
    return list(unfinished()[:5])
