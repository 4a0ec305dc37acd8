"""Who hears of every request: the numbers, the ledger and the traces."""

from __future__ import annotations

from gateway.exchange import Exchange
from gateway.ledger.writer import LedgerWriter
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Tracing


class Observers:
    """Each takes microseconds and never raises."""

    def __init__(self, metrics: Metrics, ledger: LedgerWriter, tracing: Tracing) -> None:
        self._metrics = metrics
        self._ledger = ledger
        self._tracing = tracing

    def began(self, exchange: Exchange) -> None:
        self._metrics.began()

    def streams(self, exchange: Exchange) -> None:
        self._metrics.stream_opened()

    def ended(self, exchange: Exchange, *, streamed: bool) -> None:
        if streamed:
            self._metrics.stream_closed()
        self._metrics.observe(exchange)
        self._ledger.append(exchange)
        self._tracing.record(exchange, exchange.traceparent or None)
