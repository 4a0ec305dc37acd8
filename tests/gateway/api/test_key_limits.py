"""What a client key may use per day, per minute and at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from gateway.sandbox.serve import SandboxThread
from pool.keys import KeyLimits
from tests.gateway.api.test_disconnects import RawClient, wait_for
from tests.gateway.live import KEY, LiveGateway, record


def limited(sandbox: SandboxThread, credentials: list[str], **limits: int) -> LiveGateway:
    return LiveGateway(sandbox, credentials, keys={KEY: record(limits=KeyLimits(**limits))})


def code_of(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def test_the_last_chat_of_the_day_is_served_and_the_next_is_not(sandbox: SandboxThread) -> None:
    with limited(sandbox, ["ok-1"], chat=3) as gateway:
        assert [gateway.ask().status_code for _ in range(3)] == [200, 200, 200]
        refused = gateway.ask()
    assert (refused.status_code, code_of(refused)) == (429, "chat_daily_quota_exceeded")
    error = refused.json()["error"]
    assert (error["type"], error["param"]) == ("rate_limit_error", None)
    assert "3 chats per day" in error["message"]
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400


@pytest.mark.parametrize(("limits", "code"), [
    ({"heavy": 1}, "heavy_daily_quota_exceeded"),
    ({"chat": 1}, "chat_daily_quota_exceeded"),
])  # fmt: skip
def test_a_heavy_request_counts_as_a_chat_too(
    sandbox: SandboxThread, limits: dict[str, int], code: str
) -> None:
    with limited(sandbox, ["ok-super-1"], **limits) as gateway:
        assert gateway.ask("grok-4-heavy").status_code == 200
        assert code_of(gateway.ask("grok-4-heavy")) == code
        assert (gateway.ask("grok-4").status_code == 200) is ("chat" not in limits)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_fails_before_it_begins_costs_nothing(
    sandbox: SandboxThread, stream: bool
) -> None:
    with limited(sandbox, ["moderated-1"], chat=1) as gateway:
        for _ in range(3):
            assert gateway.ask(stream=stream).status_code == 400


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_breaks_off_was_used(sandbox: SandboxThread, stream: bool) -> None:
    with limited(sandbox, ["miderror-1", "ok-2"], chat=1) as gateway:
        gateway.ask(stream=stream)
        assert gateway.ask(stream=stream).status_code == 429


@pytest.mark.parametrize(("phase", "used"), [("hang-1", False), ("ok-1", True)])
def test_a_client_that_leaves_pays_for_what_had_begun(
    sandbox: SandboxThread, phase: str, used: bool
) -> None:
    with limited(sandbox, [phase, "ok-2"], chat=1, concurrency=1) as gateway:
        client = RawClient(gateway, stream=True, content="FRAMES:400x20")
        if used:
            client.read_until(b'"content":"w1 "')
        else:
            assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)
        client.leave()
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 0, 5)
        next_one = gateway.ask("grok-4", "x")
    assert next_one.status_code == (429 if used else 200)
    if used:
        assert code_of(next_one) == "chat_daily_quota_exceeded"


def test_requests_at_the_same_time_are_counted(sandbox: SandboxThread) -> None:
    with limited(sandbox, ["ok-1"], concurrency=2) as gateway:
        running = [RawClient(gateway, stream=True, content="FRAMES:400x20") for _ in range(2)]
        for client in running:
            client.read_until(b'"content":"w1 "')
        refused = gateway.ask()
        assert (refused.status_code, code_of(refused)) == (429, "concurrent_requests_exceeded")
        assert refused.headers["Retry-After"] == "1"
        running[0].leave()
        assert wait_for(lambda: gateway.runtime.pool.open_leases == 1, 5)
        assert gateway.ask().status_code == 200
        running[1].leave()


def test_requests_per_minute_are_counted_also_when_they_fail(sandbox: SandboxThread) -> None:
    with limited(sandbox, ["badreq-1"], rpm=2) as gateway:
        codes = [code_of(gateway.ask()) for _ in range(3)]
        refused = gateway.ask()
    assert codes == ["invalid_request", "invalid_request", "requests_per_minute_exceeded"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 61


def test_exactly_as_many_pass_at_once_as_the_limit_says(sandbox: SandboxThread) -> None:
    with limited(sandbox, [f"ok-{n}" for n in range(10)], chat=7) as gateway:
        statuses: Counter[int] = Counter()
        lock = threading.Lock()

        def ask() -> None:
            status = gateway.ask().status_code
            with lock:
                statuses[status] += 1

        threads = [threading.Thread(target=ask) for _ in range(25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == {200: 7, 429: 18}


def test_the_sdk_sees_a_rate_limit(sandbox: SandboxThread) -> None:
    with limited(sandbox, ["ok-1"], chat=0) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)
        with client, pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(
                model="grok-4", messages=[{"role": "user", "content": "Hello"}]
            )
    body: Any = refused.value.body
    assert body["code"] == "chat_daily_quota_exceeded"


def test_bad_input_costs_nothing(sandbox: SandboxThread) -> None:
    with limited(sandbox, ["ok-1"], chat=1, rpm=2) as gateway:
        for _ in range(5):
            assert gateway.ask("no-such-model").status_code == 400
        assert gateway.ask().status_code == 200


def test_the_global_key_has_no_limits(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"], settings={"app.api_key": KEY}, keys={}) as gateway:
        assert [gateway.ask().status_code for _ in range(3)] == [200] * 3
