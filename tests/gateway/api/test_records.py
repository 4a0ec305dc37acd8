"""Every request leaves one record that says how it ended, however it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.exchange import End, Exchange
from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.test_disconnects import RawClient, wait_for
from tests.gateway.api.test_draining import STOPPING
from tests.gateway.live import KEY, LiveGateway, record
from tests.gateway.relay.recordings import Heard


@contextmanager
def listening(
    sandbox: SandboxThread, credentials: list[str], **options: Any
) -> Iterator[tuple[LiveGateway, Heard]]:
    heard = Heard()
    gateway = LiveGateway(sandbox, credentials, **options)

    def listen(gateway: LiveGateway) -> None:
        gateway.runtime.observers = heard  # type: ignore[assignment]

    gateway.prepare = listen
    with gateway:
        yield gateway, heard


def only(heard: Heard) -> Exchange:
    """The one request there was, once it is over; it is over once."""
    assert wait_for(lambda: len(heard.over) >= 1, 5)
    ((exchange, streamed),) = heard.over
    assert exchange is heard.exchange
    assert streamed is bool(heard.streaming)
    return exchange


@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_answer(sandbox: SandboxThread, stream: bool) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard):
        answer = gateway.ask("grok-4", "Hello there", stream=stream)
        exchange = only(heard)

    assert (exchange.end, exchange.status, exchange.error_code) == (End.COMPLETED, 200, "")
    assert (exchange.operation, exchange.model, exchange.streaming) == ("chat", "grok-4", stream)
    assert (exchange.key_id, exchange.key_name) == (1, "test")
    assert exchange.bytes_out == len(answer.content)
    assert exchange.bytes_in == len(answer.request.content)
    assert exchange.tokens == "estimated"
    assert exchange.prompt_tokens and exchange.completion_tokens
    assert exchange.first_event is not None
    assert 0 < exchange.first_event <= exchange.duration
    (attempt,) = exchange.attempts
    assert (attempt.upstream, attempt.hint, attempt.left) == ("web", "ok-1", "")
    assert 0 < attempt.seconds <= exchange.first_event


def test_measured_tokens_are_told_from_estimated_ones(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["xai-ok-1"]) as (gateway, heard):
        usage = gateway.ask("grok-4", stream=False).json()["usage"]
        exchange = only(heard)
    assert exchange.tokens == "measured"
    assert exchange.prompt_tokens == usage["prompt_tokens"]
    assert exchange.attempts[0].upstream == "api"


REFUSED = [
    ({"model": "no-such-model"}, 400, "model_not_found"),
    ({"model": "grok-4", "n": 3}, 400, None),
    ({"model": "grok-4-heavy"}, 429, "rate_limit_exceeded"),
]


@pytest.mark.parametrize(("fields", "status", "code"), REFUSED)
def test_a_request_refused_before_any_upstream(
    sandbox: SandboxThread, fields: dict[str, Any], status: int, code: str | None
) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard):
        answer = gateway.ask(**fields)
        exchange = only(heard)
    assert (answer.status_code, exchange.end, exchange.status) == (status, End.REFUSED, status)
    assert exchange.error_code == answer.json()["error"]["code"]
    if code is not None:
        assert exchange.error_code == code
    assert exchange.attempts == []
    assert exchange.first_event is None


def test_a_name_that_is_no_model_becomes_no_label(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard):
        gateway.ask("made-up-by-a-client")
        assert only(heard).model == ""


def test_a_request_that_no_credential_could_serve_names_each_attempt(
    sandbox: SandboxThread,
) -> None:
    with listening(sandbox, ["limited-1", "error500-2"]) as (gateway, heard):
        answer = gateway.ask("grok-4", stream=True)
        exchange = only(heard)
    assert answer.status_code == exchange.status == 502
    assert exchange.end is End.FAILED
    assert [(a.hint, a.left, a.row) for a in exchange.attempts] == [
        ("ed-1", "QuotaExhausted", 5), ("00-2", "UpstreamFailed", 12),
    ]  # fmt: skip


@pytest.mark.parametrize(("stream", "status"), [(True, 200), (False, 502)])
def test_an_answer_that_breaks_off(sandbox: SandboxThread, stream: bool, status: int) -> None:
    with listening(sandbox, ["miderror-1"]) as (gateway, heard):
        answer = gateway.ask("grok-4", stream=stream)
        exchange = only(heard)
    assert (answer.status_code, exchange.end, exchange.status) == (status, End.BROKEN, status)
    assert exchange.error_code == "upstream_error"
    assert exchange.first_event is not None


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_while_it_waits(sandbox: SandboxThread, stream: bool) -> None:
    with listening(sandbox, ["hang-1"]) as (gateway, heard):
        client = RawClient(gateway, stream=stream)
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)
        client.leave()
        exchange = only(heard)
    assert (exchange.end, exchange.status) == (End.CLIENT_GONE, 499)
    assert exchange.attempts[0].left == "CancelledError"


def test_a_client_that_leaves_in_the_middle_of_a_stream(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard):
        client = RawClient(gateway, stream=True, content="FRAMES:400x20")
        client.read_until(b'"content":"w1 "')
        client.leave()
        exchange = only(heard)
    assert (exchange.end, exchange.status) == (End.CLIENT_GONE, 200)
    assert exchange.bytes_out > 0


def test_a_stop_in_the_middle_of_a_stream(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard):
        client = RawClient(gateway, stream=True, content="FRAMES:400x20")
        client.read_until(b'"content":"w1 "')
        gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))
        client.read_until(b"[DONE]")
        exchange = only(heard)
        client.leave()
    assert (exchange.end, exchange.status) == (End.STOPPED, 200)
    assert exchange.error_code == "service_stopping"


def test_a_stop_while_a_request_waits(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["hang-1"]) as (gateway, heard):
        client = RawClient(gateway, stream=True)
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)
        gateway.inside(lambda: gateway.application.interrupt_all(STOPPING))
        client.read_until(b"service_stopping")
        exchange = only(heard)
        client.leave()
    assert (exchange.end, exchange.status) == (End.STOPPED, 503)


def test_a_stranger_leaves_no_record(sandbox: SandboxThread) -> None:
    with listening(sandbox, ["ok-1"]) as (gateway, heard), gateway.client() as client:
        answer = client.post("/v1/chat/completions", headers={"Authorization": "Bearer sk-no"})
        assert answer.status_code == 401
    assert heard.began_ == []


def test_a_key_may_not_use_what_it_is_not_allowed(sandbox: SandboxThread) -> None:
    keys = {KEY: record(allowed_models=frozenset({"grok-3"}))}
    with listening(sandbox, ["ok-1"], keys=keys) as (gateway, heard):
        assert gateway.ask("grok-4").status_code == 403
        exchange = only(heard)
    assert (exchange.end, exchange.error_code) == (End.REFUSED, "model_not_allowed")
