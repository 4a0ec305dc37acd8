"""Metrics and traces of the whole service: its workers, its requests, its end."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.telemetry.collector import Collector, attributes
from tests.gateway.telemetry.samples import Scrape
from tests.serving import Served, wait_for
from tests.test_serve import children

TOKEN = "metrics-token-of-the-test"
EXTRA = {"GROK2API_METRICS__TOKEN": TOKEN}
CHAT = {"operation": "chat", "model": "grok-4", "status": "2xx", "end": "completed"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def get(served: Served, **headers: str) -> httpx.Response:
    return httpx.get(f"{served.url}/metrics", headers=headers, timeout=10)


def scrape(served: Served) -> Scrape:
    """On a connection of its own, so that any worker may answer."""
    answer = get(served, Authorization=f"Bearer {TOKEN}")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


def chats(seen: Scrape) -> float:
    return seen.get("grok2api_requests_total", **CHAT) or 0


def active(served: Served) -> float | None:
    """Counted every few seconds only, there may be so many."""
    return scrape(served).get("grok2api_pool_credentials", kind="sso", state="active")


class HeldStream(threading.Thread):
    """A stream that goes on for a minute unless it is cut off."""

    def __init__(self, served: Served, key: str) -> None:
        super().__init__(daemon=True)
        self._served, self._key = served, key
        self.begun = threading.Event()
        self.start()

    def run(self) -> None:
        body = {
            "model": "grok-4",
            "stream": True,
            "messages": [{"role": "user", "content": "FRAMES:1200x50"}],
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self._served.url}/v1/chat/completions"
        with (
            suppress(httpx.TransportError),
            httpx.stream("POST", url, json=body, headers=headers, timeout=30) as answer,
        ):
            for _ in answer.iter_text():
                self.begun.set()


def test_requests_show_in_the_metrics(data_dir: Path, sandbox: SandboxThread) -> None:
    with Served(data_dir, sandbox, extra=EXTRA) as served:
        key = served.seed("ok-1", "ok-2")
        before = chats(scrape(served))
        assert before >= 1
        assert served.ask(key, stream=True).status_code == 200
        served.ask(key, model='no"such')
        seen = scrape(served)

        first = {"operation": "chat", "upstream": "web"}
        assert chats(seen) == before + 1
        assert seen.get("grok2api_upstream_attempts_total", upstream="web", outcome="ok")
        assert seen.get("grok2api_time_to_first_event_seconds_count", **first)
        assert seen.get("grok2api_requests_in_flight") == 0
        assert seen.get("grok2api_streams_in_flight") == 0
        assert wait_for(lambda: active(served) == 2, 12)
        assert seen.series("grok2api_queue_depth")
        assert seen.series("grok2api_queue_dropped_total")
        assert seen.get("grok2api_incident_open") == 0
        assert seen.get("grok2api_leader") is not None
        assert seen.get("grok2api_redis_up") is None
        assert seen.get("grok2api_workers") == 1
        models = {dict(labels)["model"] for labels in seen.series("grok2api_requests_total")}
        assert models <= {"grok-4", ""}
        assert wait_for(
            lambda: bool(scrape(served).get("grok2api_event_loop_lag_seconds_count")), 3
        )


def test_only_admins_and_the_token_see_them(data_dir: Path, sandbox: SandboxThread) -> None:
    extra = {**EXTRA, "GROK2API_ADMIN_PASSWORD": "a-password-for-this-test"}
    with Served(data_dir, sandbox, extra=extra) as served:
        key = served.seed("ok-1")
        assert get(served).status_code == 401
        assert get(served, Authorization=f"Bearer {key}").status_code == 401
        head = httpx.head(f"{served.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (head.status_code, head.content) == (200, b"")

        with httpx.Client(base_url=served.url, timeout=10) as admin:
            admin.get("/admin/login/")
            password = {"username": "admin", "password": extra["GROK2API_ADMIN_PASSWORD"]}
            proof = {"csrfmiddlewaretoken": admin.cookies["csrftoken"]}
            admin.post("/admin/login/", data={**password, **proof})
            assert admin.get("/metrics").status_code == 200


def test_the_counts_of_two_workers_add_up_whichever_answers(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    with Served(data_dir, sandbox, "--workers", "2", extra=EXTRA) as served:
        key = served.seed("ok-1", "ok-2")
        assert wait_for(lambda: all(served.ask(key).status_code == 200 for _ in range(12)), 5)
        before = chats(scrape(served))
        for _ in range(20):
            assert served.ask(key).status_code == 200
        counts = {chats(scrape(served)) for _ in range(10)}

        assert counts == {before + 20}
        seen = scrape(served)
        assert seen.get("grok2api_workers") == 2
        assert wait_for(lambda: active(served) == 2, 12)
        assert len(seen.series("process_resident_memory_bytes")) == 2


def test_a_killed_worker_leaves_nothing_in_flight(data_dir: Path, sandbox: SandboxThread) -> None:
    with Served(data_dir, sandbox, "--workers", "2", extra=EXTRA) as served:
        key = served.seed("ok-1", "ok-2")
        assert wait_for(lambda: all(served.ask(key).status_code == 200 for _ in range(12)), 5)
        before = chats(scrape(served))
        held = HeldStream(served, key)
        assert held.begun.wait(10)
        seen = scrape(served)
        assert seen.get("grok2api_streams_in_flight") == 1
        assert seen.get("grok2api_requests_in_flight") == 1

        workers = children(served.process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        held.join(10)
        assert wait_for(lambda: not set(workers) & set(children(served.process.pid)), 10)
        assert wait_for(lambda: is_scraped(served) and in_full_number(served), 20)
        seen = scrape(served)

        assert seen.get("grok2api_streams_in_flight") == 0
        assert seen.get("grok2api_requests_in_flight") == 0
        assert chats(seen) == before


def is_scraped(served: Served) -> bool:
    try:
        return get(served, Authorization=f"Bearer {TOKEN}").status_code == 200
    except httpx.TransportError:
        return False


def in_full_number(served: Served) -> bool:
    return scrape(served).get("grok2api_workers") == 2


def test_requests_are_traced_and_the_last_ones_sent_at_the_stop(
    data_dir: Path, sandbox: SandboxThread
) -> None:
    with Collector() as collector:
        extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with Served(data_dir, sandbox, extra=extra) as served:
            key = served.seed("ok-1")
            headers = {
                "Authorization": f"Bearer {key}",
                "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
            }
            body = {"model": "grok-4", "messages": [{"role": "user", "content": "FRAMES:1"}]}
            url = f"{served.url}/v1/chat/completions"
            assert httpx.post(url, json=body, headers=headers, timeout=20).status_code == 200
            served.stop(signal.SIGTERM)

        spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]
        request, attempt = sorted(spans, key=lambda span: span.kind)
        assert request.name == "chat grok-4"
        assert request.parent_span_id.hex() == "b7ad6b7169203331"
        assert attempt.parent_span_id == request.span_id
        assert attributes(request)["http.response.status_code"] == 200
        assert attributes(attempt)["grok2api.upstream"] == "web"
        assert key not in str(collector.spans)
