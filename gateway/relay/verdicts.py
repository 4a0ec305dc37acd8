"""From the verdict an upstream error carries to the pool's outcome."""

from __future__ import annotations

from gateway.upstream.errors import Effect, UpstreamError
from pool.outcomes import NEUTRAL, Outcome, Verdict

VERDICTS = {
    Effect.NONE: Verdict.NEUTRAL,
    Effect.PROFILE_UNHEALTHY: Verdict.NEUTRAL,
    Effect.RETIRE: Verdict.RETIRE,
    Effect.COOL_BUCKET: Verdict.COOL_BUCKET,
    Effect.COOL_CREDENTIAL: Verdict.COOL_CREDENTIAL,
    Effect.COOL_TEAM: Verdict.COOL_TEAM,
    Effect.BACK_OFF: Verdict.BACK_OFF,
    Effect.PAUSE: Verdict.PAUSE,
    Effect.SKIP_MODEL: Verdict.SKIP_MODEL,
}


class Blame:
    """Lets one request penalise at most one credential, however many it tries."""

    def __init__(self) -> None:
        self._spent = False

    def outcome_of(self, error: UpstreamError) -> Outcome:
        verdict = VERDICTS[error.effect]
        if verdict is Verdict.NEUTRAL:
            return NEUTRAL
        if self._spent:
            return NEUTRAL
        self._spent = True
        return Outcome(verdict, f"{type(error).__name__} (row {error.row})", error.retry_after)
