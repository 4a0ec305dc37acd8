"""How the use of a lease ended, in the pool's own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a use says about the credential.

    SUCCESS         it served; failure counts are cleared
    SPENT           upstream worked for us but the request did not end well: costs, no blame
    NEUTRAL         nothing was used and nobody is to blame: refunded
    RETIRE          dead until the operator supplies a new secret
    COOL_BUCKET     this bucket is used up; the others stay usable
    COOL_CREDENTIAL the account cannot serve anything for a while
    COOL_TEAM       nor can any other key of its team
    BACK_OFF        upstream trouble: a short pause that doubles when it repeats
    PAUSE           network trouble: five seconds, failure count untouched
    SKIP_MODEL      not entitled to this model
    """

    SUCCESS = "success"
    SPENT = "spent"
    NEUTRAL = "neutral"
    RETIRE = "retire"
    COOL_BUCKET = "cool_bucket"
    COOL_CREDENTIAL = "cool_credential"
    COOL_TEAM = "cool_team"
    BACK_OFF = "back_off"
    PAUSE = "pause"
    SKIP_MODEL = "skip_model"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``retry_after`` is upstream's hint in seconds (clamped by the pool)."""

    verdict: Verdict
    reason: str = ""
    retry_after: float | None = None


SUCCESS = Outcome(Verdict.SUCCESS)
SPENT = Outcome(Verdict.SPENT)
NEUTRAL = Outcome(Verdict.NEUTRAL)
