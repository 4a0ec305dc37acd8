"""Exchanges to observe, and scrapes to read."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.exchange import Attempt, End, Exchange
from gateway.telemetry.metrics import Metrics


def attempt(**changes: Any) -> Attempt:
    facts = {"credential_id": 7, "hint": "c0ffee", "kind": "sso", "upstream": "web"}
    return Attempt(**{**facts, "bucket": "grok-4", **changes})


def exchange(**changes: Any) -> Exchange:
    """A streamed chat that went well, 0.4 s to its first event and 3 s long."""
    facts = {
        "id": "r-1",
        "operation": "chat",
        "started_at": 1_000_000.0,
        "key_id": 3,
        "key_name": "secret name",
        "model": "grok-4",
        "streaming": True,
        "attempts": [attempt(seconds=0.25)],
        "end": End.COMPLETED,
        "status": 200,
        "first_event": 0.4,
        "duration": 3.0,
    }
    return Exchange(**{**facts, **changes})


class Scrape:
    """``scrape.get("name", label="value")`` is the value of that series, None without it."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {labels: value for (own, labels), value in self._values.items() if own == name}


def scrape(metrics: Metrics) -> Scrape:
    metrics.sampler.sample()
    return Scrape(metrics.render()[0].decode())
