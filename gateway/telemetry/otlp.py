"""Traces over OTLP. The one module that imports OpenTelemetry, which may not be installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.exchange import Exchange
from gateway.telemetry.spans import SpanFacts, attempt_spans, request_span

PATIENCE = 1.0


class OtlpTracing:
    """A provider of its own, so that nothing global is set.

    A queue of OTEL_BSP_MAX_QUEUE_SIZE spans (2048) is emptied by a thread; what finds it
    full is dropped, which OpenTelemetry logs. ``patience`` is what ``aclose`` may take, in
    seconds.
    """

    def __init__(self, version: str, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("grok2api", version)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, exchange: Exchange, parent: str | None = None) -> None:
        around = Context()
        if parent:
            around = self._propagator.extract({"traceparent": parent}, around)
        facts = request_span(exchange)
        span = self._start(facts, around, SpanKind.SERVER)
        if span.is_recording():
            within = set_span_in_context(span, Context())
            for attempt in attempt_spans(exchange):
                _end(self._start(attempt, within, SpanKind.CLIENT), attempt)
        _end(span, facts)

    def _start(self, facts: SpanFacts, context: Context, kind: SpanKind) -> Span:
        return self._tracer.start_span(
            facts.name,
            context=context,
            kind=kind,
            attributes=facts.attributes,
            start_time=_nanoseconds(facts.started_at),
        )

    async def aclose(self) -> None:
        # A thread of its own: asyncio would wait for one of its pool however long it takes.
        give_up: Callable[[], None] = self._exporter.shutdown
        sending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, self._patience)
        if sending.is_alive():
            give_up()


def _end(span: Span, facts: SpanFacts) -> None:
    if facts.failed:
        span.set_status(StatusCode.ERROR)
    span.end(_nanoseconds(facts.ended_at))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _resource(version: str) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and our name if they say none."""
    resource = Resource.create({SERVICE_VERSION: version})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "grok2api"}))
    return resource
