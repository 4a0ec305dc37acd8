"""Which failures move to another credential, what they cost it, and what the client sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.sandbox.serve import SandboxThread
from pool.entries import Entry
from tests.gateway.live import LiveGateway
from tests.gateway.protocols import PROTOCOLS, WEB, serve, token

RETRIED = [
    "limited", "limited-noretry", "expired", "deadcred", "broke", "error500", "error503-gzip",
    "reset", "hang", "silent", "inband-limit", "inband-error", "forbidden", "noent", "garbageonly",
]  # fmt: skip
"""Behaviours after which another credential answers (upstream-web 12, rows 1-6, 11-14)."""

FINAL = {
    "moderated": (400, "content_policy_violation"),
    "badreq": (400, "invalid_request"),
}
"""The request's own fault: no other credential is tried, nobody is penalised (rows 7, 8)."""


def contents(text: str) -> str:
    """The joined answer of a stream, which must have exactly one end."""
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    assert lines.count("[DONE]") == 1
    chunks = [json.loads(line) for line in lines[:-1]]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def errors(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line[6:]) for line in text.split("\n") if line.startswith('data: {"error"')]
    return [item["error"] for item in found]


def asked(gateway: LiveGateway) -> int:
    """How many chats the sandbox was asked for, over whichever protocol."""
    counters = gateway.sandbox.state.counters
    paths = ("/ws/mgw/", "/rest/app-chat/conversations/new", "/v1/chat/completions")
    return sum(counters[path] for path in paths)


@pytest.fixture(autouse=True)
def fresh_sandbox(sandbox: SandboxThread) -> None:
    sandbox.state.reset()


CASES = [(behaviour, True) for behaviour in RETRIED] + [
    (behaviour, False) for behaviour in ("limited", "expired", "reset", "inband-error")
]


@pytest.mark.parametrize(("behaviour", "stream"), CASES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_answers_with_the_second_credential(
    sandbox: SandboxThread, protocol: str, behaviour: str, stream: bool
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        response = gateway.ask(prompt="FRAMES:3", stream=stream)

        assert response.status_code == 200
        if stream:
            assert contents(response.text) == "w0 w1 w2 "
            assert errors(response.text) == []
        else:
            assert response.json()["choices"][0]["message"]["content"] == "w0 w1 w2 "
        assert set(gateway.penalised()) <= {1}
        assert gateway.runtime.pool.open_leases == 0
    assert sandbox.state.violations == []


@pytest.mark.parametrize("behaviour", FINAL)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_does_not_retry_what_is_the_requests_own_fault(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        response = gateway.ask(stream=True)

        status, code = FINAL[behaviour]
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert gateway.penalised() == []
        assert asked(gateway) == 1


@pytest.mark.parametrize("behaviour", ["challenge", "empty403", "inband-antibot", "html"])
@pytest.mark.parametrize("protocol", WEB)
def test_it_reports_a_refused_browser_session_without_blaming_the_account(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        response = gateway.ask(stream=True)

        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_session_rejected"
        assert gateway.penalised() == []
        assert gateway.runtime.health.unhealthy_since is not None


def bucket_of(entry: Entry, protocol: str) -> str:
    return {"mgw": "auto", "rest-mode": "auto", "rest-name": "grok-4", "xai": "grok-4.3"}[protocol]


@pytest.mark.parametrize("behaviour", ["limited", "limited-noretry", "inband-limit"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_spent_quota_cools_only_its_bucket(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        gateway.ask()

        entry = gateway.entry(1)
        cooling = [name for name, quota in entry.quotas.items() if quota.cooling_until]
        assert cooling == [bucket_of(entry, protocol)]
        assert entry.active
        assert not entry.resting_until


@pytest.mark.parametrize("behaviour", ["expired", "deadcred"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dead_credential_is_retired(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        gateway.ask()

        assert not gateway.entry(1).active
        assert gateway.entry(2).active


@pytest.mark.parametrize("protocol", WEB)
def test_a_blocked_account_is_retired(sandbox: SandboxThread, protocol: str) -> None:
    with serve(sandbox, protocol, ["blocked", "ok"]) as gateway:
        assert gateway.ask().status_code == 200
        assert not gateway.entry(1).active


@pytest.mark.parametrize("behaviour", ["limited", "expired", "error500", "reset"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_request_penalises_one_credential_however_many_fail(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour] * 3 + ["ok"]) as gateway:
        assert gateway.ask().status_code == 200
        assert gateway.penalised() == [1]
        assert asked(gateway) >= 1


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ("limited", 429, "rate_limit_exceeded"),
        ("expired", 503, "upstream_unavailable"),
        ("broke", 503, "upstream_unavailable"),
        ("error500", 502, "upstream_error"),
        ("reset", 502, "upstream_network_error"),
        ("hang", 504, "upstream_timeout"),
        ("forbidden", 502, "upstream_forbidden"),
        ("garbageonly", 502, "upstream_incomplete"),
    ],
)
def test_the_last_failure_is_what_the_client_sees(
    sandbox: SandboxThread, behaviour: str, status: int, code: str
) -> None:
    with serve(sandbox, "rest-mode", [behaviour] * 2) as gateway:
        response = gateway.ask(stream=True)

        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        if status == 429:
            assert int(response.headers["retry-after"]) == 7


def test_it_stops_after_max_retry_further_credentials(sandbox: SandboxThread) -> None:
    settings = {"grok.max_retry": 1}
    with serve(sandbox, "rest-mode", ["error500"] * 2 + ["ok"], settings) as gateway:
        assert gateway.ask().status_code == 502
        assert asked(gateway) == 2


def test_it_retries_only_the_configured_statuses(sandbox: SandboxThread) -> None:
    settings = {"grok.retry_status_codes": [401]}
    with serve(sandbox, "rest-mode", ["limited", "ok"], settings) as gateway:
        assert gateway.ask().status_code == 429
        assert asked(gateway) == 1
        assert gateway.penalised() == [1]


def test_an_unclassified_refusal_is_tried_with_one_other_account_only(
    sandbox: SandboxThread,
) -> None:
    with serve(sandbox, "rest-mode", ["forbidden"] * 3) as gateway:
        assert gateway.ask().status_code == 502
        assert asked(gateway) == 2
        assert gateway.penalised() == []


def test_upstreams_retry_after_is_clamped(sandbox: SandboxThread) -> None:
    settings = {"pool.max_cooldown_sec": 3}
    with serve(sandbox, "rest-mode", ["limited", "ok"], settings) as gateway:
        gateway.ask()

        entry = gateway.entry(1)
        quota = entry.quotas["auto"]
        assert 0 < quota.cooling_until - entry.last_failed <= 3


@pytest.mark.parametrize("behaviour", ["midlimit", "cut", "cutclean"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_the_first_event_there_is_an_error_event_and_no_second_answer(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    if protocol == "xai" and behaviour == "midlimit":
        behaviour = "miderror"
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        response = gateway.ask(stream=True)

        assert response.status_code == 200
        assert len(errors(response.text)) == 1
        assert response.text.rstrip().endswith("data: [DONE]")
        assert asked(gateway) == 1
        assert gateway.runtime.pool.open_leases == 0


@pytest.mark.parametrize("behaviour", ["cut", "cutclean"])
@pytest.mark.parametrize("protocol", WEB)
def test_a_broken_answer_is_an_error_when_it_was_wanted_whole(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    with serve(sandbox, protocol, [behaviour, "ok"]) as gateway:
        response = gateway.ask(stream=False)

        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_incomplete"
        assert gateway.penalised() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_break_after_the_answers_end_is_a_normal_finish(
    sandbox: SandboxThread, protocol: str
) -> None:
    with serve(sandbox, protocol, ["late-cut"]) as gateway:
        response = gateway.ask(stream=True)

        assert errors(response.text) == []
        assert "You said" in contents(response.text)
        assert gateway.penalised() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_garbage_among_the_frames_is_passed_over(sandbox: SandboxThread, protocol: str) -> None:
    with serve(sandbox, protocol, ["garbage", "ok"]) as gateway:
        response = gateway.ask(stream=True)

        assert response.status_code == 200
        assert response.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("behaviour", ["split1", "split7", "wrap-sse", "wrap-concat"])
def test_the_answer_is_the_same_however_it_is_cut_and_wrapped(
    sandbox: SandboxThread, behaviour: str
) -> None:
    with serve(sandbox, "rest-mode", ["ok"]) as gateway:
        plain = contents(gateway.ask(stream=True).text)
    with serve(sandbox, "rest-mode", [behaviour]) as gateway:
        assert contents(gateway.ask(stream=True).text) == plain


def test_an_empty_pool_says_so(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, []) as gateway:
        response = gateway.ask()

        assert response.status_code == 429
        error = response.json()["error"]
        assert error["code"] == "rate_limit_exceeded"
        assert "basic" in error["message"]


def test_no_secret_of_a_credential_reaches_the_client(sandbox: SandboxThread) -> None:
    with serve(sandbox, "rest-mode", ["error500"]) as gateway:
        assert token("rest-mode", "error500") not in gateway.ask().text
