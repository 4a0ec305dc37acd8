"""Every way an attempt can end settles and releases its lease exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.attempts import Attempts, Call, Committed, RetryPolicy
from gateway.relay.verdicts import VERDICTS, Blame
from gateway.upstream import errors
from gateway.upstream.errors import (
    ContentRefused,
    CredentialRejected,
    Effect,
    QuotaExhausted,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.events import Event, Finished, Source, Text
from gateway.upstream.requests import Account
from pool.errors import NoCredential
from pool.leases import Lane, Lease, Pool, Want
from pool.outcomes import NEUTRAL, SPENT, Outcome, Verdict
from pool.waiting import Patience, WaitingRoom
from tests.gateway.relay.recordings import Heard, recording

LANE = Lane("sso", "auto")
WANT = Want((LANE,), "grok-4")
DONE: list[Event] = [Text("a"), Finished()]
Step = Any
"""A batch to yield, an exception to raise, or an asyncio.Event to wait for."""


class ScriptedPool:
    """Leases the credentials 1..n in order, and counts what is done with each lease."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.done: Counter[tuple[str, int]] = Counter()
        self.outcomes: list[Outcome] = []
        self.learned: dict[int, str] = {}

    async def lease(self, want: Want) -> Lease:
        left = [n for n in range(1, self._size + 1) if n not in want.exclude]
        if not left:
            raise NoCredential("none left")
        self.done["lease", left[0]] += 1
        return Lease(left[0], left[0], LANE, want.model, "secret", "", "", "")

    async def settle(self, lease: Lease, outcome: Outcome) -> None:
        self.done["settle", lease.id] += 1
        self.outcomes.append(outcome)

    async def release(self, lease: Lease) -> None:
        assert self.done["settle", lease.id] == 1
        self.done["release", lease.id] += 1

    async def learn(self, lease: Lease, *, user_id: str) -> None:
        self.learned[lease.id] = user_id

    def assert_balanced(self) -> None:
        for credential in range(1, self._size + 1):
            leased = self.done["lease", credential]
            assert leased <= 1
            assert self.done["settle", credential] == leased
            assert self.done["release", credential] == leased


class Script:
    """What each credential's upstream does; remembers which generators were closed."""

    def __init__(self, *answers: Iterable[Step]) -> None:
        self._answers = [list(steps) for steps in answers]
        self.opened = 0
        self.closed = 0

    def __call__(self, lease: Lease, account: Account) -> AsyncGenerator[list[Event], None]:
        return self._run(self._answers[lease.credential_id - 1], account)

    async def _run(self, steps: list[Step], account: Account) -> AsyncGenerator[list[Event], None]:
        self.opened += 1
        account.user_id = "user-1"
        try:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.closed += 1


class Watching:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.failures: list[UpstreamError] = []
        self.outcomes: list[Outcome] = []

    def failed(self, error: UpstreamError) -> None:
        self.failures.append(error)

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


async def commit(
    pool: ScriptedPool, want: Want, call: Call, policy: RetryPolicy, heard: Heard | None = None
) -> Committed:
    room = WaitingRoom(cast("Pool", pool), Patience)
    watching = Watching()
    attempts = Attempts(
        cast("Pool", pool), room, call, policy, recording(heard or Heard()), watching
    )
    try:
        return await attempts.commit(want)
    finally:
        assert watching.outcomes == pool.outcomes


async def whole(committed: Committed) -> list[Event]:
    try:
        return [event async for batch in committed.batches() for event in batch]
    finally:
        await committed.aclose()


async def test_it_works() -> None:
    pool, script = ScriptedPool(1), Script([[Source("https://x.test")], DONE])

    events = await whole(await commit(pool, WANT, script, RetryPolicy(3)))

    assert events == [Source("https://x.test"), *DONE]
    assert [outcome.verdict for outcome in pool.outcomes] == [Verdict.SUCCESS]
    assert pool.learned == {1: "user-1"}
    assert script.closed == 1
    pool.assert_balanced()


async def test_a_failure_before_the_first_event_moves_on() -> None:
    pool = ScriptedPool(2)
    script = Script([[Source("x")], QuotaExhausted(retry_after=7)], [DONE])

    events = await whole(await commit(pool, WANT, script, RetryPolicy(3)))

    assert events == DONE
    assert pool.outcomes[0].verdict is Verdict.COOL_BUCKET
    assert pool.outcomes[0].retry_after == 7
    pool.assert_balanced()


async def test_an_answer_that_holds_nothing_moves_on() -> None:
    pool, script = ScriptedPool(2), Script([[Finished()]], [DONE])

    assert await whole(await commit(pool, WANT, script, RetryPolicy(3))) == DONE
    assert pool.outcomes[0] == NEUTRAL
    pool.assert_balanced()


async def test_a_failure_after_the_first_event_is_raised_and_never_retried() -> None:
    pool, script = ScriptedPool(2), Script([[Text("a")], UpstreamFailed()], [DONE])
    committed = await commit(pool, WANT, script, RetryPolicy(3))

    with pytest.raises(UpstreamFailed):
        await whole(committed)

    assert script.opened == 1
    assert pool.outcomes[0].verdict is Verdict.BACK_OFF
    pool.assert_balanced()


async def test_an_answer_without_its_end_is_incomplete() -> None:
    pool, script = ScriptedPool(1), Script([[Text("a")]])

    with pytest.raises(UpstreamIncomplete):
        await whole(await commit(pool, WANT, script, RetryPolicy(0)))

    assert pool.outcomes == [NEUTRAL]
    pool.assert_balanced()


async def test_a_refusal_of_the_request_is_final() -> None:
    pool, script = ScriptedPool(2), Script([ContentRefused()], [DONE])

    with pytest.raises(ContentRefused):
        await commit(pool, WANT, script, RetryPolicy(3))

    assert (script.opened, pool.outcomes) == (1, [NEUTRAL])
    pool.assert_balanced()


async def test_when_all_were_tried_the_last_failure_is_raised() -> None:
    pool, script = ScriptedPool(2), Script([CredentialRejected()], [UpstreamFailed()])

    with pytest.raises(UpstreamFailed):
        await commit(pool, WANT, script, RetryPolicy(9))

    assert [outcome.verdict for outcome in pool.outcomes] == [Verdict.RETIRE, Verdict.NEUTRAL]
    pool.assert_balanced()


async def test_an_empty_pool_is_not_an_upstream_failure() -> None:
    with pytest.raises(NoCredential):
        await commit(ScriptedPool(0), WANT, Script(), RetryPolicy(3))


@pytest.mark.parametrize("before", [[], [[Source("x")]]], ids=["at once", "after a source"])
async def test_a_cancelled_wait_gives_everything_back(before: list[Any]) -> None:
    pool, never = ScriptedPool(1), asyncio.Event()
    script = Script([*before, never])
    task = asyncio.create_task(commit(pool, WANT, script, RetryPolicy(3)))
    await asyncio.sleep(0)
    assert script.opened == 1

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert script.closed == 1
    assert pool.outcomes == [SPENT]
    pool.assert_balanced()


async def test_a_stream_that_nobody_reads_on_costs_but_blames_nobody() -> None:
    pool, never = ScriptedPool(1), asyncio.Event()
    committed = await commit(pool, WANT, Script([[Text("a")], never]), RetryPolicy(3))

    await committed.aclose()

    assert pool.outcomes == [SPENT]
    pool.assert_balanced()


async def test_a_bug_blames_nobody_and_gives_everything_back() -> None:
    pool, script = ScriptedPool(2), Script([KeyError("bug")], [DONE])

    with pytest.raises(KeyError):
        await commit(pool, WANT, script, RetryPolicy(3))

    assert pool.outcomes == [NEUTRAL]
    pool.assert_balanced()


async def test_every_attempt_is_recorded_with_why_it_was_left() -> None:
    heard = Heard()
    pool = ScriptedPool(3)
    failed = UpstreamFailed(row=12, upstream_status=503)
    script = Script([QuotaExhausted(row=5)], [failed], [DONE])

    await (await commit(pool, WANT, script, RetryPolicy(3), heard)).aclose()

    tried = [
        (a.credential_id, a.upstream, a.left, a.row, a.status) for a in heard.exchange.attempts
    ]
    assert tried == [
        (1, "web", "QuotaExhausted", 5, None),
        (2, "web", "UpstreamFailed", 12, 503),
        (3, "web", "", None, None),
    ]
    assert heard.exchange.first_event is not None


@pytest.mark.parametrize(
    ("error", "statuses", "allowed"),
    [
        (QuotaExhausted(upstream_status=429), {429}, True),
        (QuotaExhausted(upstream_status=429), {401}, False),
        (QuotaExhausted(), set(), True),
        (CredentialRejected(upstream_status=400), set(), True),
        (UpstreamFailed(upstream_status=503), set(), True),
        (ContentRefused(upstream_status=403), {403}, False),
    ],
)
def test_configured_statuses_govern_only_what_may_be_retried(
    error: UpstreamError, statuses: set[int], allowed: bool
) -> None:
    assert RetryPolicy(3, frozenset(statuses)).allows(error, 1) is allowed
    assert RetryPolicy(0, frozenset(statuses)).allows(error, 1) is False


def kinds() -> list[type[UpstreamError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, UpstreamError)]


def test_every_effect_has_a_verdict() -> None:
    assert set(VERDICTS) == set(Effect)


@given(st.lists(st.sampled_from(kinds()), max_size=6))
def test_blame_falls_on_one_credential_at_the_most(failures: list[type[UpstreamError]]) -> None:
    blame = Blame()

    outcomes = [blame.outcome_of(kind()) for kind in failures]

    penalties = [outcome for outcome in outcomes if outcome.verdict is not Verdict.NEUTRAL]
    assert len(penalties) <= 1
    if any(VERDICTS[kind.effect] is not Verdict.NEUTRAL for kind in failures):
        assert len(penalties) == 1
