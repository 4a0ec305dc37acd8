"""The numbers of this worker: counted on the hot path, looked at now and then, scraped."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from gateway.exchange import Exchange
from gateway.telemetry.children import Children
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.loop_lag import LoopLag
from gateway.telemetry.outcomes import outcome_of
from gateway.telemetry.readings import Readings, Sampler
from gateway.telemetry.slots import Slot

DURATIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
FIRST_EVENTS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 30, 60, 120)


class Metrics:
    """One for a worker; several may live in one process as long as none has a ``slot``.

    The counting methods are for the event loop's thread and take microseconds. Two tasks
    belong to it, which the caller owns: ``sampler.run_forever()`` and
    ``lag.measure_forever()``.
    """

    def __init__(
        self, version: str, readings: Readings | None = None, slot: Slot | None = None
    ) -> None:
        _choose_store(slot)
        registry = CollectorRegistry()
        self._exposition = Exposition(registry, slot, version)
        self.sampler = Sampler(registry, readings or Readings())
        self.lag = LoopLag(registry)
        self._make_request_metrics(registry)
        self._make_upstream_metrics(registry)
        self._make_in_flight(registry)

    def _make_request_metrics(self, registry: CollectorRegistry) -> None:
        self._requests = Children(
            Counter(
                "grok2api_requests_total",
                "Model requests by operation, model, class of the HTTP status and end.",
                ("operation", "model", "status", "end"),
                registry=registry,
            )
        )
        self._durations = Children(
            Histogram(
                "grok2api_request_duration_seconds",
                "From the acceptance of a model request to its end.",
                ("operation", "end"),
                registry=registry,
                buckets=DURATIONS,
            )
        )
        self._tokens = Children(
            Counter(
                "grok2api_tokens_total",
                "Tokens by model and type, and whether measured or estimated.",
                ("model", "type", "source"),
                registry=registry,
            )
        )
        self._http = Children(
            Counter(
                "grok2api_http_requests_total",
                "Other requests to the client API, by route and class of the HTTP status.",
                ("route", "status"),
                registry=registry,
            )
        )

    def _make_upstream_metrics(self, registry: CollectorRegistry) -> None:
        self._first_events = Children(
            Histogram(
                "grok2api_time_to_first_event_seconds",
                "From the acceptance of a model request to the first event of its answer.",
                ("operation", "upstream"),
                registry=registry,
                buckets=FIRST_EVENTS,
            )
        )
        self._attempts = Children(
            Counter(
                "grok2api_upstream_attempts_total",
                "Credentials tried, by upstream and the class of error that ended the attempt.",
                ("upstream", "outcome"),
                registry=registry,
            )
        )

    def _make_in_flight(self, registry: CollectorRegistry) -> None:
        self._requests_in_flight = Gauge(
            "grok2api_requests_in_flight",
            "Model requests accepted and not yet ended.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._streams_in_flight = Gauge(
            "grok2api_streams_in_flight",
            "Streams open to clients.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def began(self) -> None:
        """A model request was accepted; ``observe`` follows in every case."""
        self._requests_in_flight.inc()

    def observe(self, exchange: Exchange) -> None:
        """The request that ``began`` has ended.

        The model becomes a label: for a name outside the catalogue, leave it empty.
        """
        operation, end = exchange.operation, exchange.end
        self._requests_in_flight.dec()
        self._requests[operation, exchange.model, status_class(exchange.status), end].inc()
        self._durations[operation, end].observe(exchange.duration)
        served = exchange.served_by
        if exchange.first_event is not None and served is not None:
            self._first_events[operation, served.upstream].observe(exchange.first_event)
        for attempt in exchange.attempts:
            self._attempts[attempt.upstream, outcome_of(attempt, end)].inc()
        if exchange.tokens:
            self._count_tokens(exchange)

    def _count_tokens(self, exchange: Exchange) -> None:
        model, source = exchange.model, exchange.tokens
        if exchange.prompt_tokens:
            self._tokens[model, "prompt", source].inc(exchange.prompt_tokens)
        if exchange.completion_tokens:
            self._tokens[model, "completion", source].inc(exchange.completion_tokens)
        if exchange.reasoning_tokens:
            self._tokens[model, "reasoning", source].inc(exchange.reasoning_tokens)

    def stream_opened(self) -> None:
        """A stream to a client began; ``stream_closed`` follows in every case."""
        self._streams_in_flight.inc()

    def stream_closed(self) -> None:
        self._streams_in_flight.dec()

    def http(self, route: str, status: int) -> None:
        """A request without an exchange was answered; ``route`` is a label, never a path."""
        self._http[route, status_class(status)].inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type of a scrape. Blocks: to be called in a thread, after
        ``sampler.sample()`` on the event loop."""
        return self._exposition.render(accept)


def _choose_store(slot: Slot | None) -> None:
    """Where prometheus-client keeps numbers: its own choice is made at import, by process id."""
    # With only one of the two formats they would, besides, be series of their own.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    if slot is None:
        values.ValueClass = values.MutexValue
        return
    by_slot = values.MultiProcessValue(lambda: slot.number)  # type: ignore[no-untyped-call]
    values.ValueClass = by_slot


def status_class(status: int) -> str:
    """ "2xx" for 200; "none" for 0, when there was no answer."""
    return f"{status // 100}xx" if status else "none"
