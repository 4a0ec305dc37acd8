"""Asking upstream what is left: when, of whom, how many at once, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from gateway.relay.query_pauses import FIRST_PAUSE, IN_A_ROW, LONGEST_PAUSE, QUIET
from gateway.relay.quota_queries import MEDIA_BUCKETS
from gateway.relay.quota_sync import AFTER_USE, HOUR, STRETCH, TICK
from gateway.sandbox.serve import SandboxThread
from gateway.upstream.web.quota import parse_media_quota
from gateway.upstream.web.settings import WebSettings
from pool.entries import Entry, Quota
from tests.gateway.relay.quota_rig import (
    RATE_LIMITS,
    Rig,
    Scripted,
    always,
    breathe,
    reply,
    token_of,
)

LONG_ENOUGH = AFTER_USE[1] + TICK


def asked_of_sandbox(sandbox: SandboxThread, token: str) -> list[dict[str, Any]]:
    requests = sandbox.state.requests_to(RATE_LIMITS)
    return [request.json() for request in requests if request.token == token]


def facts(entry: Entry) -> tuple[object, ...]:
    """All that a failed question must leave as it was."""
    quotas = {name: (q.remaining, q.cooling_until) for name, q in entry.quotas.items()}
    return entry.active, entry.failures, entry.resting_until, entry.team_id, quotas


# After use


async def test_several_uses_become_one_question_for_each_bucket(sandbox: SandboxThread) -> None:
    rig = Rig(sandbox, ["ok-coalesced"])
    async with rig.running():
        for bucket in ("fast", "auto", "fast", "fast"):
            rig.use(bucket=bucket)
        await rig.advance(LONG_ENOUGH)

    asked = asked_of_sandbox(sandbox, "ok-coalesced")
    assert sorted(body["modelName"] for body in asked) == ["auto", "fast"]
    assert (rig.remaining(bucket="fast"), rig.remaining(bucket="auto")) == (30, 20)


async def test_a_use_during_the_question_is_asked_about_again() -> None:
    upstream = Scripted()
    upstream.gate = asyncio.Event()
    rig = Rig(upstream)
    async with rig.running():
        rig.use()
        await rig.time.advance(LONG_ENOUGH)
        assert rig.sync.running == 1
        rig.use()
        await rig.time.advance(2 * LONG_ENOUGH)
        assert len(upstream.asked) == 1
        upstream.gate.set()
        await rig.advance(2 * LONG_ENOUGH)
        assert len(upstream.asked) == 2


async def test_the_delay_after_the_first_use_is_drawn_within_its_bounds() -> None:
    delays = []
    for seed in range(40):
        upstream = Scripted()
        rig = Rig(upstream, seed=seed)
        async with rig.running():
            begun = rig.time.now
            rig.use()
            await rig.advance(1.0)
            rig.use()
            await rig.advance(LONG_ENOUGH)
        assert len(upstream.asked) == 1
        delays.append(upstream.asked[0][0] - begun)

    assert min(delays) >= AFTER_USE[0]
    assert max(delays) <= LONG_ENOUGH
    assert max(delays) - min(delays) > 2


FORMS = {
    "mgw": (WebSettings(timeout=5), "auto", {"modelName": "auto"}),
    "mode": (WebSettings(timeout=5, chat_protocol="rest"), "expert", {"modelName": "expert"}),
    "model": (
        WebSettings(timeout=5, chat_protocol="rest", rest_form="model_name"),
        "grok-4",
        {"requestKind": "DEFAULT", "modelName": "grok-4"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_the_question_names_exactly_the_bucket_used(
    sandbox: SandboxThread, form: str
) -> None:
    settings, bucket, body = FORMS[form]
    rig = Rig(sandbox, [f"ok-super-form-{form}"], web=settings)
    async with rig.running():
        rig.use(bucket=bucket)
        await rig.advance(LONG_ENOUGH)

    assert asked_of_sandbox(sandbox, f"ok-super-form-{form}") == [body]
    assert rig.remaining(bucket=bucket) in {50, 140}


async def test_counters_that_fell_upstream_are_taken_over(sandbox: SandboxThread) -> None:
    rig = Rig(sandbox, ["ok-fallen"])
    sandbox.state.spend(sandbox.state.account("ok-fallen"), "fast", 11)
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    assert rig.remaining() == 19
    reading = rig.entries[0].quotas["fast"].reading
    assert reading is not None
    assert reading.total == 30


async def test_a_spent_bucket_cools_until_upstream_says(sandbox: SandboxThread) -> None:
    rig = Rig(sandbox, ["limited-spent"])
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    quota = rig.entries[0].quotas["fast"]
    assert quota.remaining == 0
    assert 86_000 < quota.cooling_until - rig.unix() <= 86_400


async def test_the_time_until_the_next_request_goes_before_the_end_of_the_window() -> None:
    rig = Rig(always(lambda: reply(0, waitTimeSeconds=90)))
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    assert rig.entries[0].quotas["fast"].cooling_until == pytest.approx(rig.unix() + 90, abs=0.01)


async def test_a_spent_bucket_without_a_time_cools_all_the_same() -> None:
    rig = Rig(always(lambda: reply(0, windowSizeSeconds=1e300)))
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    assert rig.entries[0].quotas["fast"].cooling_until == rig.unix() + 900


async def test_media_buckets_are_asked_for_together(sandbox: SandboxThread) -> None:
    rig = Rig(sandbox, ["ok-media"])
    async with rig.running():
        rig.use(bucket="image_pro")
        rig.use(bucket="video_720p")
        rig.use(bucket="image_edit")
        await rig.advance(LONG_ENOUGH)

    asked = [
        request
        for request in sandbox.state.requests_to("/rest/media/imagine/quota_info")
        if request.token == "ok-media"
    ]
    assert len(asked) == 1
    assert asked_of_sandbox(sandbox, "ok-media") == []
    assert (rig.remaining(bucket="image_pro"), rig.remaining(bucket="video_720p")) == (5, 2)
    assert rig.remaining(bucket="image_edit") == 0
    assert rig.entries[0].quotas["image_edit"].cooling_until > rig.unix()


def test_the_media_buckets_are_those_of_the_media_reply() -> None:
    nothing = dict.fromkeys(("image", "imagePro", "imageEdit", "video", "video720p"))
    assert parse_media_quota(nothing, 0.0).keys() == MEDIA_BUCKETS


async def test_a_bucket_that_upstream_does_not_know_is_not_asked_for() -> None:
    upstream = Scripted()
    rig = Rig(upstream)
    async with rig.running():
        rig.use(bucket="imagine-video-gen")
        rig.use(bucket="*")
        await rig.advance(LONG_ENOUGH)
    assert upstream.asked == []


# How many at once


async def test_the_bound_on_questions_at_once_is_never_exceeded_and_read_live() -> None:
    upstream = Scripted()
    upstream.gate = asyncio.Event()
    rig = Rig(upstream, [f"ok-{number}" for number in range(40)])
    rig.set("performance", usage_max_concurrent=3)
    async with rig.running():
        for number in range(1, 41):
            rig.use(number)
        await rig.time.advance(LONG_ENOUGH)
        assert (upstream.open, rig.sync.running, rig.sync.queued) == (3, 3, 37)
        rig.set("performance", usage_max_concurrent=5)
        await rig.time.advance(TICK)
        assert upstream.open == 5
        upstream.gate.set()
        await rig.advance(1.0)
        assert rig.sync.queued == 0

    assert upstream.most_open == 5
    assert len(upstream.asked) == 40


async def test_a_full_queue_drops_whose_turn_was_next_and_counts_it() -> None:
    upstream = Scripted()
    rig = Rig(upstream, [f"ok-{number}" for number in range(10)], max_queued=4)
    async with rig.running():
        for number in range(1, 11):
            rig.use(number)
            await rig.advance(0.01)
        assert (rig.sync.queued, rig.sync.dropped) == (4, 6)
        await rig.advance(LONG_ENOUGH)
        assert len(upstream.asked) == 4
        assert rig.sync.queued == 0
        for number in range(1, 11):  # what was dropped may come again
            rig.use(number)
        assert rig.sync.queued == 4


# What a failure means


DEAD = ("expired", "unknown", "unauthenticated", "blocked", "deadcred")
ALIVE = ("ok", "challenge", "empty403", "error500", "limited", "forbidden", "broke")


@pytest.mark.parametrize("behaviour", [*DEAD, *ALIVE])
async def test_only_a_refusal_of_the_credential_retires_it(
    sandbox: SandboxThread, behaviour: str
) -> None:
    rig = Rig(sandbox, [f"{behaviour}-retire"])
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    assert rig.entries[0].active == (behaviour in ALIVE)
    if behaviour in DEAD:
        assert "CredentialRejected" in rig.entries[0].invalid_reason


def raising(error: type[httpx.TransportError]) -> Callable[[], httpx.Response]:
    def answer() -> httpx.Response:
        raise error("made up")

    return answer


BROKEN: dict[str, Callable[[], httpx.Response]] = {
    "500": lambda: httpx.Response(500, json={"code": 13, "message": "Internal error."}),
    "503 empty": lambda: httpx.Response(503),
    "502 page": lambda: httpx.Response(502, text="<html>token expired</html>"),
    "402": lambda: httpx.Response(402, json={"message": "You have run out of credits."}),
    "400": lambda: httpx.Response(400, json={"code": 3, "message": "bad_request"}),
    "404": lambda: httpx.Response(404),
    "403 json": lambda: httpx.Response(403, json={"code": "permission-denied"}),
    "403 page": lambda: httpx.Response(403, text="<html>Just a moment...</html>"),
    "429": lambda: httpx.Response(429, json={"message": "Too many requests"}),
    "page": lambda: httpx.Response(200, text="<!DOCTYPE html>"),
    "garbage": lambda: httpx.Response(200, content=b"\x00\xff{"),
    "list": lambda: httpx.Response(200, json=[]),
    "empty": lambda: httpx.Response(200),
    "redirect": lambda: httpx.Response(302, headers={"location": "/login"}),
    "reset": raising(httpx.ReadError),
    "unreachable": raising(httpx.ConnectError),
    "timeout": raising(httpx.ReadTimeout),
}


@pytest.mark.parametrize("failure", BROKEN)
@pytest.mark.parametrize("token", ["ok-1", "xai-ok-1"])
async def test_a_question_that_fails_changes_nothing(failure: str, token: str) -> None:
    upstream = always(BROKEN[failure])
    rig = Rig(upstream, [token])
    before = facts(rig.entries[0])
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)

    assert len(upstream.asked) == 1
    assert facts(rig.entries[0]) == before


async def test_upstream_that_never_answers_changes_nothing_and_holds_nothing_up() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    class Hanging(SandboxThread):
        url = f"http://127.0.0.1:{port}"

    rig = Rig(Hanging(), web=WebSettings(timeout=0.2))
    before = facts(rig.entries[0])
    async with rig.running():
        rig.use()
        await rig.advance(LONG_ENOUGH)
        assert rig.sync.failed == 1
    server.close()
    assert facts(rig.entries[0]) == before


UNUSABLE: dict[str, dict[str, object]] = {
    "nothing": {},
    "a total of zero": {"remainingQueries": 0, "totalQueries": 0},
    "zero of everything": {
        "remainingQueries": 0, "totalQueries": 0, "remainingTokens": 0, "totalTokens": 0,
    },
    "no remaining": {"totalQueries": 30},
    "null": {"remainingQueries": None, "totalQueries": 30},
    "text": {"remainingQueries": "12", "totalQueries": 30},
    "negative": {"remainingQueries": -1, "totalQueries": 30},
    "truth": {"remainingQueries": True, "totalQueries": 30},
    "beyond any column": {"remainingQueries": 1e300, "totalQueries": 30},
}  # fmt: skip


@pytest.mark.parametrize("counters", UNUSABLE)
async def test_a_reply_without_usable_counters_is_neither_zero_nor_full(counters: str) -> None:
    rig = Rig(always(lambda: httpx.Response(200, json=UNUSABLE[counters])), ["ok-1", "ok-2"])
    rig.entries[1].quotas["fast"] = Quota(None)
    before = [facts(entry) for entry in rig.entries]
    async with rig.running():
        rig.use(1)
        rig.use(2)
        await rig.advance(LONG_ENOUGH)

    assert [facts(entry) for entry in rig.entries] == before


async def test_a_number_of_one_bucket_counts_although_the_next_question_fails() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return reply(3) if b'"auto"' in request.content else httpx.Response(500)

    rig = Rig(Scripted(answer))
    async with rig.running():
        rig.sync._want(1, ("auto", "fast"), (0, 0))
        await rig.advance(1)

    assert (rig.remaining(bucket="auto"), rig.remaining(bucket="fast")) == (3, 7)
    assert rig.entries[0].active


async def test_a_dead_credential_is_asked_no_further() -> None:
    upstream = always(lambda: httpx.Response(401))
    rig = Rig(upstream)
    async with rig.running():
        for bucket in ("fast", "auto", "image_pro"):
            rig.use(bucket=bucket)
        await rig.advance(LONG_ENOUGH)

    assert len(upstream.asked) == 1
    assert not rig.entries[0].active


@pytest.mark.parametrize("status", [200, 401])
async def test_an_answer_about_a_former_secret_is_not_taken(status: int) -> None:
    upstream = always(lambda: httpx.Response(status, json=reply(99).json()))
    upstream.gate = asyncio.Event()
    rig = Rig(upstream)
    before = facts(rig.entries[0])
    async with rig.running():
        rig.use()
        await rig.time.advance(LONG_ENOUGH)
        rig.entries[0].sealed = b"ok-new"
        upstream.gate.set()
        await rig.advance(1)

    assert facts(rig.entries[0]) == before


async def test_a_credential_that_is_gone_is_not_asked_about() -> None:
    upstream = Scripted()
    rig = Rig(upstream)
    async with rig.running():
        rig.use()
        rig.pool.remove(1)
        await rig.advance(LONG_ENOUGH)
    assert upstream.asked == []


# API keys


async def test_a_key_joins_its_team_after_its_first_use_and_is_not_asked_again(
    sandbox: SandboxThread,
) -> None:
    rig = Rig(sandbox, ["xai-ok-key-team-red", "xai-ok-key-team-blue"])
    async with rig.running():
        for _ in range(3):
            rig.use(1, bucket="grok-4.3")
            rig.use(1, bucket="grok-4.3")
            await rig.advance(LONG_ENOUGH)

    assert [entry.team_id for entry in rig.entries] == ["t-red", ""]
    asked = [request.token for request in sandbox.state.requests_to("/v1/api-key")]
    assert asked.count("xai-ok-key-team-red") == 1


async def test_a_key_whose_team_upstream_does_not_tell_is_asked_once() -> None:
    upstream = always(lambda: httpx.Response(200, json={}))
    rig = Rig(upstream, ["xai-ok-1"])
    async with rig.running():
        for _ in range(3):
            rig.use()
            await rig.advance(LONG_ENOUGH)

    assert len(upstream.asked) == 1
    assert rig.entries[0].active


@pytest.mark.parametrize("flag", ["api_key_disabled", "api_key_blocked", "team_blocked"])
async def test_a_key_that_xai_has_switched_off_is_retired_with_the_reason(flag: str) -> None:
    rig = Rig(always(lambda: httpx.Response(200, json={"team_id": "t-1", flag: True})), ["xai-1"])
    async with rig.running():
        rig.sync.check(1)
        await rig.advance(2)

    assert not rig.entries[0].active
    assert "xAI" in rig.entries[0].invalid_reason


@pytest.mark.parametrize("behaviour", ["expired", "unknown", "blocked", "deadcred"])
async def test_a_dead_key_is_retired(sandbox: SandboxThread, behaviour: str) -> None:
    rig = Rig(sandbox, [f"xai-{behaviour}-probe"])
    async with rig.running():
        rig.sync.check(1)
        await rig.advance(2)
    assert not rig.entries[0].active


# Suspicion


@pytest.mark.parametrize(("token", "alive"), [("expired-check", False), ("ok-check", True)])
async def test_a_suspect_is_asked_soon(sandbox: SandboxThread, token: str, alive: bool) -> None:
    rig = Rig(sandbox, [token])
    async with rig.running():
        rig.sync.check(1)
        rig.sync.check(1)
        await rig.advance(1 + TICK)

    assert len(asked_of_sandbox(sandbox, token)) == 1
    assert rig.entries[0].active is alive
    assert rig.remaining() == (30 if alive else 7)


# Pauses


async def test_a_credential_that_asks_too_often_is_left_alone_for_as_long_as_told() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        limited = token_of(request) == "ok-1"
        return httpx.Response(429, headers={"Retry-After": "120"}) if limited else reply(40)

    upstream = Scripted(answer)
    rig = Rig(upstream, ["ok-1", "ok-2"])
    async with rig.running():
        rig.use(1)
        await rig.advance(LONG_ENOUGH)
        rig.use(1)
        rig.use(2)
        await rig.advance(110)
        assert upstream.tokens == ["ok-1", "ok-2"]
        await rig.advance(20)
        assert upstream.tokens == ["ok-1", "ok-2", "ok-1"]
    assert rig.remaining(1) == 7
    assert rig.entries[0].active


async def test_a_row_of_failures_pauses_everything_ever_longer_until_one_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream = always(lambda: httpx.Response(500))
    rig = Rig(upstream, [f"ok-{number}" for number in range(200)])
    caplog.set_level(logging.INFO, "gateway.relay.query_pauses")
    async with rig.running():
        for number in range(1, 201):
            rig.use(number)
        await rig.advance(4000)
        times = [when for when, _, _ in upstream.asked]
        probes = [b - a for a, b in pairwise(times) if b - a > FIRST_PAUSE / 2]
        assert len(times) - len(probes) <= IN_A_ROW + rig.config.performance.usage_max_concurrent
        assert probes[:3] == pytest.approx([10, 20, 40], abs=2 * TICK)
        assert probes[-1] == pytest.approx(LONGEST_PAUSE, abs=2 * TICK)
        upstream.answer = None
        await rig.advance(LONGEST_PAUSE + 5)
        assert rig.sync.queued == 0

    assert [record.message for record in caplog.records] == [
        "quota queries pause, upstream fails: UpstreamFailed",
        "quota queries go on",
    ]


async def test_rate_limited_questions_of_many_credentials_pause_the_whole_sync() -> None:
    upstream = always(lambda: httpx.Response(429))
    rig = Rig(upstream, [f"ok-{number}" for number in range(IN_A_ROW + 1)])
    rig.set("performance", usage_max_concurrent=1)
    async with rig.running():
        for number in range(1, IN_A_ROW + 1):
            rig.use(number)
        await rig.advance(LONG_ENOUGH)
        assert len(upstream.asked) == IN_A_ROW
        rig.use(IN_A_ROW + 1)
        await rig.advance(FIRST_PAUSE / 2)
        assert len(upstream.asked) == IN_A_ROW
        await rig.advance(FIRST_PAUSE + QUIET)
        assert len(upstream.asked) == IN_A_ROW + 1


async def test_failures_between_successes_pause_nothing() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        number = int(token_of(request).removeprefix("ok-"))
        return reply() if number % IN_A_ROW == 0 else httpx.Response(500)

    upstream = Scripted(answer)
    rig = Rig(upstream, [f"ok-{number}" for number in range(30)])
    rig.set("performance", usage_max_concurrent=1)
    async with rig.running():
        for number in range(1, 31):
            rig.sync._want(number, ("fast",), (0, 0))
        await rig.advance(1)
    assert len(upstream.asked) == 30


# The regular refresh


def rest(rig: Rig, *numbers: int, bucket: str = "fast") -> None:
    for number in numbers:
        entry = rig.entries[number - 1]
        entry.quotas[bucket] = Quota(0, rig.unix() + 50_000)
        rig.pool.update(entry, entry)


async def test_the_leader_frees_what_cools_with_quota_left(sandbox: SandboxThread) -> None:
    rig = Rig(sandbox, ["ok-cooling-1", "ok-cooling-2", "expired-cooling-3", "ok-warm-4"])
    rest(rig, 1, 2, 3)
    rig.leads = True
    async with rig.running():
        await rig.advance(10)

    assert rig.pool.cooling() == []
    assert [rig.remaining(number) for number in (1, 2)] == [30, 30]
    assert not rig.entries[2].active
    assert asked_of_sandbox(sandbox, "ok-warm-4") == []


async def test_only_the_leader_refreshes_and_whoever_becomes_it_begins_at_once() -> None:
    upstream = Scripted()
    rig = Rig(upstream)
    rest(rig, 1)
    rig.set("token", refresh_interval_hours=1)
    async with rig.running():
        await rig.advance(1.5 * HOUR)
        assert upstream.asked == []
        rig.leads = True
        await rig.advance(3)
        assert len(upstream.asked) == 1
        rig.leads = False
        await rig.advance(3)
        rest(rig, 1)
        rig.leads = True
        await rig.advance(3)
        assert len(upstream.asked) == 2


async def test_it_comes_again_after_about_the_interval_which_is_read_live() -> None:
    upstream = always(lambda: reply(0))
    rig = Rig(upstream)
    rest(rig, 1)
    rig.leads = True
    rig.set("token", refresh_interval_hours=2)
    async with rig.running():
        await rig.advance(2.3 * HOUR)
        first, second = (when for when, _, _ in upstream.asked)
        assert STRETCH[0] * 2 * HOUR - 2 <= second - first <= STRETCH[1] * 2 * HOUR + 2
        rig.set("token", refresh_interval_hours=1)
        await rig.advance(1.2 * HOUR)
        assert len(upstream.asked) == 3


async def test_it_can_be_switched_off_while_it_runs() -> None:
    upstream = always(lambda: reply(0))
    rig = Rig(upstream, [f"ok-{number}" for number in range(20)])
    rest(rig, *range(1, 21))
    rig.leads = True
    rig.set("token", auto_refresh=False, refresh_interval_hours=1)
    async with rig.running():
        await rig.advance(1.5 * HOUR)
        assert upstream.asked == []
        rig.set("token", auto_refresh=True)
        await rig.advance(10)
        begun = len(upstream.asked)
        assert 0 < begun < 20
        rig.set("token", auto_refresh=False)
        await rig.advance(100)
        assert len(upstream.asked) <= begun + 1


async def test_losing_the_lead_ends_a_refresh_under_way() -> None:
    upstream = Scripted()
    rig = Rig(upstream, [f"ok-{number}" for number in range(20)])
    rest(rig, *range(1, 21))
    rig.leads = True
    async with rig.running():
        await rig.advance(8)
        begun = len(upstream.asked)
        assert 0 < begun < 20
        rig.leads = False
        await rig.advance(100)
        assert len(upstream.asked) <= begun + 1


async def test_many_are_spread_over_time_and_leave_room_for_those_in_use() -> None:
    many = 400
    upstream = Scripted()
    rig = Rig(upstream, [f"ok-{number}" for number in range(many + 1)])
    rig.set("performance", usage_max_concurrent=2)
    rest(rig, *range(1, many + 1))
    rig.leads = True
    async with rig.running():
        await rig.advance(100)
        assert 60 < len(upstream.asked) < 140
        upstream.gate = asyncio.Event()
        await rig.time.advance(300)
        assert rig.sync.queued <= 4
        rig.use(many + 1)
        upstream.gate.set()
        await rig.advance(LONG_ENOUGH)
        assert f"ok-{many}" in upstream.tokens
        await rig.advance(900)
    assert sorted(upstream.tokens) == sorted(f"ok-{number}" for number in range(many + 1))


# The end


async def test_draining_cancels_what_runs_and_begins_nothing_more() -> None:
    upstream = Scripted()
    upstream.gate = asyncio.Event()
    rig = Rig(upstream, ["ok-1", "ok-2"])
    rest(rig, 2)
    async with rig.running():
        rig.use(1)
        await rig.time.advance(LONG_ENOUGH)
        rig.use(1)
        assert (rig.sync.running, rig.sync.queued) == (1, 1)
        rig.sync.drain()
        await breathe(rig.is_calm)
        rig.use(1)
        rig.sync.check(1)
        rig.leads = True
        await rig.advance(100)
        assert (rig.sync.running, rig.sync.queued, upstream.open) == (0, 0, 0)
    assert len(upstream.asked) == 1


async def test_cancelling_it_leaves_no_task_behind() -> None:
    upstream = Scripted()
    upstream.gate = asyncio.Event()
    rig = Rig(upstream, ["ok-1", "ok-2"])
    before = asyncio.all_tasks()
    async with rig.running():
        rig.use(1)
        rig.use(2)
        await rig.time.advance(LONG_ENOUGH)
        assert rig.sync.running == 2
    assert asyncio.all_tasks() == before
    assert upstream.open == 0


async def test_a_question_that_dies_of_a_bug_is_reported_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if token_of(request) == "ok-1":
            raise RuntimeError("a bug")
        return reply(33)

    rig = Rig(Scripted(answer), ["ok-1", "ok-2"])
    async with rig.running():
        rig.use(1)
        await rig.advance(LONG_ENOUGH)
        rig.use(2)
        await rig.advance(LONG_ENOUGH)
    assert rig.remaining(2) == 33
    assert "a quota query died" in caplog.text
