"""Traces, when OpenTelemetry's environment variables ask for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Protocol

from gateway.exchange import Exchange

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"


class Tracing(Protocol):
    def record(self, exchange: Exchange, parent: str | None = None) -> None:
        """Note a request that has ended. ``parent`` is the ``traceparent`` header it came with.

        Sends nothing itself: a thread does, later. What it cannot keep is dropped.
        """

    async def aclose(self) -> None:
        """Send what waits, for a few seconds at the most. Nothing is recorded afterwards."""


class NoTracing:
    """Nobody asked."""

    def record(self, exchange: Exchange, parent: str | None = None) -> None:
        return

    async def aclose(self) -> None:
        return


def open_tracing(version: str, env: Mapping[str, str] = os.environ) -> Tracing:
    """The tracing that ``env`` asks for; its details OpenTelemetry reads from the environment.

    What cannot be done is one warning in the log, and no tracing.
    """
    if not _is_wanted(env):
        return NoTracing()
    protocol = _first(env, PROTOCOLS) or SPOKEN
    if protocol != SPOKEN:
        logger.warning("traces are off: OTLP is sent as %s only, not as %r", SPOKEN, protocol)
        return NoTracing()
    try:
        from gateway.telemetry.otlp import OtlpTracing

        return OtlpTracing(version)
    except ImportError as error:
        logger.warning(
            "traces are off: %s is set, but OpenTelemetry is not installed (%s);"
            " install the extra grok2api[otel]",
            next(name for name in ENDPOINTS if env.get(name, "").strip()),
            error,
        )
    except ValueError as error:
        logger.warning("traces are off: an OTEL_ variable has an unusable value: %s", error)
    return NoTracing()


def _is_wanted(env: Mapping[str, str]) -> bool:
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = env.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return "otlp" in map(str.strip, exporters.split(",")) and bool(_first(env, ENDPOINTS))


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := env.get(name, "").strip())), "")
