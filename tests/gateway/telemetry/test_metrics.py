"""What is counted of requests."""

from __future__ import annotations

import pytest

from gateway.exchange import End
from gateway.telemetry.metrics import Metrics
from tests.gateway.telemetry.samples import attempt, exchange, scrape


def metrics() -> Metrics:
    return Metrics("1.2.3")


def test_a_request_is_counted_by_operation_model_status_and_end() -> None:
    own = metrics()
    for _ in range(2):
        own.began()
        own.observe(exchange())
    own.began()
    own.observe(exchange(operation="images", model="", status=429, end=End.REFUSED))
    seen = scrape(own)

    name = "grok2api_requests_total"
    chat = {"operation": "chat", "model": "grok-4", "status": "2xx", "end": "completed"}
    images = {"operation": "images", "model": "", "status": "4xx", "end": "refused"}
    assert seen.get(name, **chat) == 2
    assert seen.get(name, **images) == 1
    assert sum(seen.series(name).values()) == 3


@pytest.mark.parametrize(
    ("status", "shown"), [(0, "none"), (200, "2xx"), (404, "4xx"), (504, "5xx")]
)
def test_statuses_are_shown_by_class(status: int, shown: str) -> None:
    own = metrics()
    own.http("models", status)

    assert scrape(own).get("grok2api_http_requests_total", route="models", status=shown) == 1


def test_durations_fall_into_buckets_of_seconds() -> None:
    own = metrics()
    own.observe(exchange(duration=3.0))
    own.observe(exchange(duration=0.2))
    seen = scrape(own)

    name, labels = "grok2api_request_duration_seconds", {"operation": "chat", "end": "completed"}
    assert seen.get(f"{name}_sum", **labels) == pytest.approx(3.2)
    assert seen.get(f"{name}_count", **labels) == 2
    assert seen.get(f"{name}_bucket", **labels, le="2.5") == 1
    assert seen.get(f"{name}_bucket", **labels, le="5.0") == 2


def test_the_first_event_is_timed_by_the_upstream_that_sent_it() -> None:
    own = metrics()
    left = attempt(upstream="web", left="UpstreamFailed")
    own.observe(exchange(attempts=[left, attempt(upstream="api")], first_event=0.6))
    own.observe(exchange(first_event=None))
    seen = scrape(own)

    name = "grok2api_time_to_first_event_seconds"
    assert seen.series(f"{name}_count") == {
        frozenset({("operation", "chat"), ("upstream", "api")}): 1
    }
    assert seen.get(f"{name}_sum", operation="chat", upstream="api") == pytest.approx(0.6)


def test_requests_and_streams_are_in_flight_until_they_end() -> None:
    own = metrics()
    own.began()
    own.began()
    own.stream_opened()
    during = scrape(own)
    own.stream_closed()
    own.observe(exchange(end=End.CLIENT_GONE, status=0))
    after = scrape(own)

    assert during.get("grok2api_requests_in_flight") == 2
    assert during.get("grok2api_streams_in_flight") == 1
    assert after.get("grok2api_requests_in_flight") == 1
    assert after.get("grok2api_streams_in_flight") == 0


def test_each_attempt_counts_with_the_error_it_was_left_for() -> None:
    own = metrics()
    left = [attempt(left="QuotaExhausted"), attempt(left="QuotaExhausted"), attempt(upstream="api")]
    own.observe(exchange(attempts=left))
    own.observe(exchange(end=End.BROKEN))
    failed, cut_off = attempt(left="UpstreamFailed", row=12), attempt(left="CancelledError")
    own.observe(exchange(attempts=[failed, cut_off], end=End.CLIENT_GONE, status=0))
    seen = scrape(own)

    assert seen.series("grok2api_upstream_attempts_total") == {
        frozenset({("upstream", upstream), ("outcome", outcome)}): count
        for upstream, outcome, count in [
            ("web", "QuotaExhausted", 2),
            ("api", "ok", 1),
            ("web", "broken", 1),
            ("web", "UpstreamFailed", 1),
            ("web", "client_gone", 1),
        ]
    }


def test_tokens_say_whether_they_were_measured_and_unknown_ones_are_no_zero() -> None:
    own = metrics()
    own.observe(exchange(prompt_tokens=10, completion_tokens=20, tokens="measured"))
    own.observe(exchange(completion_tokens=5, reasoning_tokens=2, tokens="estimated"))
    own.observe(exchange())
    seen = scrape(own).series("grok2api_tokens_total")

    assert seen == {
        frozenset({("model", "grok-4"), ("type", type_), ("source", source)}): count
        for type_, source, count in [
            ("prompt", "measured", 10),
            ("completion", "measured", 20),
            ("completion", "estimated", 5),
            ("reasoning", "estimated", 2),
        ]
    }


def test_labels_survive_whatever_characters_a_model_name_has() -> None:
    own = metrics()
    strange = 'a"b\\c\nd}е'
    own.observe(exchange(model=strange))

    (labels,) = scrape(own).series("grok2api_requests_total")
    assert dict(labels)["model"] == strange


def test_what_runs_is_told() -> None:
    seen = scrape(metrics())

    (build,) = seen.series("grok2api_build_info")
    assert dict(build)["version"] == "1.2.3"
    assert seen.get("grok2api_workers") == 1
    rss = seen.get("process_resident_memory_bytes", worker="0")
    assert rss is not None and rss > 1_000_000
    assert seen.get("process_open_fds", worker="0")


def test_names_follow_the_conventions_of_prometheus() -> None:
    own = metrics()
    own.observe(exchange(prompt_tokens=1, tokens="measured"))
    own.http("models", 200)
    families = scrape(own).families.values()

    assert len(families) > 15
    for family in families:
        assert family.name.startswith(("grok2api_", "process_")), family.name
        assert family.documentation, family.name
        # The parser takes the suffix off; without it the type would be "unknown".
        assert family.type in {"counter", "gauge", "histogram"}, family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), family.name


def test_a_series_has_no_second_one_for_when_it_was_made() -> None:
    own = metrics()
    own.observe(exchange())

    assert b"_created" not in own.render()[0]


def test_two_gateways_in_one_process_count_apart() -> None:
    one, other = metrics(), metrics()
    one.began()

    assert scrape(one).get("grok2api_requests_in_flight") == 1
    assert scrape(other).get("grok2api_requests_in_flight") == 0


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    own = metrics()
    own.observe(exchange())
    text, plain = own.render("text/plain")
    body, content_type = own.render("application/openmetrics-text; version=1.0.0")

    assert plain.startswith("text/plain; version=0.0.4")
    assert b"# EOF" not in text
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert b"# TYPE grok2api_requests counter" in body
