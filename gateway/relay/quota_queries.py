"""Asking upstream about a credential itself: what is left, whose team, whether it lives.

A question that fails changes nothing; only a refusal of the credential (rows 1-3 of the
error table) retires it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from gateway.catalog import MODELS
from gateway.relay.lanes import WebForm, bucket_of
from gateway.relay.verdicts import Blame
from gateway.upstream.errors import (
    Effect,
    NetworkFailed,
    QuotaExhausted,
    SessionRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.requests import Account
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.web.quota import QuotaReading
from gateway.upstream.xai.client import KeyInfo, XaiUpstream
from pool.leases import Pool, Reading, Subject
from pool.outcomes import Outcome, Verdict

MEDIA_BUCKETS = frozenset({"image_pro", "image_edit", "video", "video_720p"})
"""The buckets that one media query answers for (upstream-web 6.3)."""
DEFAULT_MODELS = ("grok-4", "grok-3")
"""Whose buckets are asked for when none is known: ``auto``, then ``fast`` (upstream-web 6.2)."""
MOST = 1_000_000_000
"""A larger counter is none; it would not fit its column either."""
LONGEST = 31 * 86_400.0
"""Seconds; no window of upstream's is longer (upstream-web 6.4)."""
SPENT_FOR = 900.0
"""Seconds that a spent bucket cools when upstream names no time (upstream-web 12, row 5)."""
TROUBLE = (QuotaExhausted, SessionRejected, UpstreamFailed, NetworkFailed, UpstreamIncomplete)
"""Failures that say nothing of this credential: others would meet them as well."""


class Answer(Enum):
    """MEASURED: some bucket has a number. CHECKED: an API key is in order. REFUSED: the
    credential is dead. NOTHING: an answer without a usable number. FAILED: no answer."""

    MEASURED = "measured"
    CHECKED = "checked"
    REFUSED = "refused"
    NOTHING = "nothing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was learnt of one credential. ``outcome`` is there for REFUSED alone.

    ``error`` is what the questions ended with, also when an earlier one was answered.
    """

    subject: Subject
    answer: Answer
    readings: Mapping[str, Reading] = field(default_factory=dict)
    outcome: Outcome | None = None
    team_id: str = ""
    error: UpstreamError | None = None

    @property
    def is_trouble(self) -> bool:
        return isinstance(self.error, TROUBLE)


@lru_cache(maxsize=8)
def chat_buckets(form: WebForm) -> frozenset[str]:
    """The names that the rate-limit query of this protocol generation knows."""
    chats = [model for model in MODELS if model.kind == "chat" and model.web is not None]
    return frozenset(bucket_of(model, form)[0] for model in chats)


@lru_cache(maxsize=8)
def default_buckets(form: WebForm) -> tuple[str, ...]:
    chosen = {model.id: model for model in MODELS if model.id in DEFAULT_MODELS}
    return tuple(bucket_of(chosen[model_id], form)[0] for model_id in DEFAULT_MODELS)


class QuotaQueries:
    """``form`` is the generation of web chat in use, ``known`` gives the buckets that the
    pool has numbers for, ``now`` Unix time in seconds."""

    def __init__(
        self,
        pool: Pool,
        web: WebUpstream,
        xai: XaiUpstream,
        *,
        form: Callable[[], WebForm],
        known: Callable[[int], Iterable[str]],
        now: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._web = web
        self._xai = xai
        self._form = form
        self._known = known
        self._now = now

    def buckets_of(self, credential_id: int) -> tuple[str, ...]:
        """The known buckets that can be asked for, else the usual two."""
        form = self._form()
        askable = chat_buckets(form) | MEDIA_BUCKETS
        return tuple(sorted(askable.intersection(self._known(credential_id)))) or default_buckets(
            form
        )

    def cheapest(self) -> tuple[str, ...]:
        """One bucket that every session has, for asking whether it is alive."""
        return default_buckets(self._form())[-1:]

    async def look(self, credential_id: int, buckets: Collection[str]) -> Finding | None:
        """Ask for ``buckets`` of a web session, or for the state of an API key.

        None when the credential is gone or cannot be opened, or when there is nothing to
        ask. Changes nothing.
        """
        subject = self._pool.subject(credential_id)
        if subject is None:
            return None
        if subject.kind == "api":
            return await self._describe(subject)
        return await self._measure(subject, sorted(buckets))

    async def take_over(self, finding: Finding) -> None:
        """Hand what was found to the pool, unless it is about a former secret."""
        subject = finding.subject
        if not self._is_current(subject):
            return
        if finding.outcome is not None:
            await self._pool.judge(subject.credential_id, "", finding.outcome)
            return
        if finding.readings:
            await self._pool.measure(subject.credential_id, finding.readings)
        if finding.team_id and finding.team_id != subject.team_id:
            await self._pool.join_team(subject.credential_id, finding.team_id)

    def _is_current(self, subject: Subject) -> bool:
        now = self._pool.subject(subject.credential_id)
        return now is not None and now.secret == subject.secret

    async def _describe(self, subject: Subject) -> Finding:
        try:
            key = await self._xai.describe_key(Account(subject.secret))
        except UpstreamError as error:
            return _failed(subject, error, {})
        if (reason := _unusable(key)) is not None:
            return Finding(subject, Answer.REFUSED, outcome=Outcome(Verdict.RETIRE, reason))
        return Finding(subject, Answer.CHECKED, team_id=key.team_id)

    async def _measure(self, subject: Subject, buckets: Sequence[str]) -> Finding | None:
        """One bucket after the other; what the first ones said counts if a later one fails."""
        form = self._form()
        modes = [bucket for bucket in buckets if bucket in chat_buckets(form)]
        media = MEDIA_BUCKETS.intersection(buckets)
        if not modes and not media:
            return None
        account = Account(subject.secret, subject.user_id or None)
        readings: dict[str, Reading] = {}
        failure: UpstreamError | None = None
        for asked in [*modes, *([""] if media else [])]:
            try:
                readings |= await self._ask(account, asked, media)
            except UpstreamError as error:
                failure = error
                if error.effect is Effect.RETIRE or isinstance(error, TROUBLE):
                    break
        if failure is not None:
            return _failed(subject, failure, readings)
        answer = Answer.MEASURED if readings else Answer.NOTHING
        return Finding(subject, answer, readings)

    async def _ask(self, account: Account, mode: str, media: Collection[str]) -> dict[str, Reading]:
        """One query: of a mode, or with "" of the ``media`` buckets."""
        if mode:
            found = {mode: await self._web.rate_limit(account, mode)}
        else:
            offered = await self._web.media_quota(account)
            found = {name: quota for name in media if (quota := offered.get(name)) is not None}
        readings = {name: self._reading(quota) for name, quota in found.items()}
        return {name: reading for name, reading in readings.items() if reading is not None}

    def _reading(self, quota: QuotaReading) -> Reading | None:
        """None for a reply without usable counters, which is neither zero nor full."""
        remaining, total = quota.remaining, quota.total
        if remaining is None or remaining > MOST or total == 0:
            return None
        now, resets_at = self._now(), quota.resets_at
        if remaining == 0 and quota.wait:
            resets_at = now + quota.wait
        if resets_at is None or not now < resets_at <= now + LONGEST:
            resets_at = now + SPENT_FOR if remaining == 0 else None
        return Reading(remaining, total if total is None or total <= MOST else None, resets_at)


def _failed(subject: Subject, error: UpstreamError, readings: Mapping[str, Reading]) -> Finding:
    if error.effect is Effect.RETIRE:
        outcome = Blame().outcome_of(error)
        return Finding(subject, Answer.REFUSED, outcome=outcome, error=error)
    answer = Answer.MEASURED if readings else Answer.FAILED
    return Finding(subject, answer, readings, error=error)


def _unusable(key: KeyInfo) -> str | None:
    """Why a key cannot be used, in words for the operator (upstream-xai 2.4)."""
    if key.disabled:
        return "the key is switched off at xAI"
    if key.blocked:
        return "the key is blocked by xAI"
    return "the team of the key is blocked by xAI" if key.team_blocked else None
