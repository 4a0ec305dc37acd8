"""Traces: asked for by environment variables, sent to a collector."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.exchange import End
from gateway.telemetry.tracing import NoTracing, open_tracing
from tests.gateway.telemetry.collector import Collector, attributes, need_opentelemetry
from tests.gateway.telemetry.samples import attempt, exchange
from tests.serving import free_port

ROOT = Path(__file__).parents[3]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SERVER, CLIENT = 2, 3
FAILED = 2


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv(ENDPOINT, running.url)
        yield running


async def test_a_request_is_a_span_with_one_within_for_each_attempt(collector: Collector) -> None:
    tracing = open_tracing("1.2.3")
    left = attempt(left="UpstreamFailed", seconds=0.125)
    tracing.record(exchange(attempts=[left, attempt(seconds=0.25)], first_event=0.5))
    await tracing.aclose()

    first, second, request = sorted(collector.spans, key=lambda span: span.kind == SERVER)
    assert collector.paths == ["/v1/traces"]
    assert (request.kind, first.kind, second.kind) == (SERVER, CLIENT, CLIENT)
    assert {span.name for span in collector.spans} == {"chat grok-4"}
    assert first.parent_span_id == second.parent_span_id == request.span_id
    assert request.parent_span_id == b""
    assert {span.trace_id for span in collector.spans} == {request.trace_id}
    assert request.start_time_unix_nano == 1_000_000 * 10**9
    assert request.end_time_unix_nano == 1_000_003 * 10**9
    assert first.end_time_unix_nano == second.start_time_unix_nano == 1_000_000_250_000_000
    assert attributes(request)["gen_ai.request.model"] == "grok-4"
    assert attributes(first)["error.type"] == "UpstreamFailed"
    assert [span.status.code for span in (first, second, request)] == [FAILED, 0, 0]


async def test_a_failed_request_is_a_failed_span(collector: Collector) -> None:
    tracing = open_tracing("1")
    tracing.record(exchange(end=End.FAILED, status=504, error_code="upstream_timeout", attempts=[]))
    await tracing.aclose()

    (span,) = collector.spans
    assert span.status.code == FAILED
    assert attributes(span)["error.type"] == "upstream_timeout"


async def test_a_trace_that_came_with_the_request_goes_on(collector: Collector) -> None:
    tracing = open_tracing("1")
    tracing.record(exchange(), f"00-{TRACE}-{PARENT}-01")
    await tracing.aclose()

    request = next(span for span in collector.spans if span.kind == SERVER)
    assert request.parent_span_id.hex() == PARENT
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


@pytest.mark.parametrize("nonsense", ["", "x", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "ü" * 9])
async def test_a_parent_that_makes_no_sense_is_passed_over(
    collector: Collector, nonsense: str
) -> None:
    tracing = open_tracing("1")
    tracing.record(exchange(attempts=[]), nonsense)
    await tracing.aclose()

    (span,) = collector.spans
    assert span.parent_span_id == b""


async def test_a_caller_that_does_not_sample_is_followed(collector: Collector) -> None:
    tracing = open_tracing("1")
    tracing.record(exchange(), f"00-{TRACE}-{PARENT}-00")
    await tracing.aclose()

    assert collector.spans == []


async def test_the_service_is_named_by_the_environment_or_by_us(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grok2api", "my-gateway"):
        if name == "my-gateway":
            monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        tracing = open_tracing("1.2.3")
        tracing.record(exchange())
        await tracing.aclose()
        assert collector.resource["service.name"] == name
        assert collector.resource["service.version"] == "1.2.3"


async def test_the_endpoint_for_traces_alone_is_taken_as_it_is(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/mine")
    tracing = open_tracing("1")
    tracing.record(exchange())
    await tracing.aclose()

    assert collector.paths == ["/mine"]


async def test_closing_does_not_wait_long_for_a_collector_that_hangs(
    collector: Collector,
) -> None:
    from gateway.telemetry.otlp import OtlpTracing

    collector.may_answer.clear()
    tracing = OtlpTracing("1", patience=0.2)
    tracing.record(exchange())
    began = time.monotonic()
    await tracing.aclose()

    assert time.monotonic() - began < 2


async def test_recording_goes_on_where_no_collector_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_opentelemetry()
    from gateway.telemetry.otlp import OtlpTracing

    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    tracing = OtlpTracing("1", patience=0.2)
    for _ in range(10):
        tracing.record(exchange())
    began = time.monotonic()
    await tracing.aclose()
    tracing.record(exchange())

    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "env",
    [
        {},
        {ENDPOINT: " "},
        {ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"},
        {ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "x"},
    ],
)
async def test_unless_asked_for_nothing_is_traced(
    env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    tracing = open_tracing("1", env)
    tracing.record(exchange(), f"00-{TRACE}-{PARENT}-01")
    await tracing.aclose()

    assert isinstance(tracing, NoTracing)
    assert caplog.records == []


def test_a_protocol_that_is_not_spoken_is_said_so(caplog: pytest.LogCaptureFixture) -> None:
    env = {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}

    assert isinstance(open_tracing("1", env), NoTracing)
    assert "http/protobuf" in caplog.text
    assert "grpc" in caplog.text


def test_an_unusable_value_turns_tracing_off_and_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")  # less than a batch

    assert isinstance(open_tracing("1"), NoTracing)
    assert "traces are off" in caplog.text


def script(text: str, **extra: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env={**own, **extra},
        capture_output=True,
        text=True,
        check=True,
    )


def test_opentelemetry_is_not_even_imported_unless_asked_for() -> None:
    done = script(
        "import sys\n"
        "from gateway.telemetry.tracing import open_tracing\n"
        "import gateway.telemetry.metrics\n"
        "print(type(open_tracing('1')).__name__,"
        " any(name.startswith('opentelemetry') for name in sys.modules))"
    )

    assert done.stdout.split() == ["NoTracing", "False"]


def test_without_the_extra_one_warning_says_what_to_install() -> None:
    done = script(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from gateway.telemetry.tracing import open_tracing\n"
        "print(type(open_tracing('1')).__name__)",
        **{ENDPOINT: "http://127.0.0.1:4318"},
    )

    assert done.stdout.strip() == "NoTracing"
    (warning,) = done.stderr.strip().splitlines()
    assert "grok2api[otel]" in warning
    assert ENDPOINT in warning
