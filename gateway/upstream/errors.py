"""What can go wrong upstream: one small tree, and the verdict travels on the exception.

UpstreamError
├── CredentialRejected    rows 1-3   the credential is dead: retire it
├── QuotaExhausted        row 5      this bucket is spent: cool it
├── BalanceExhausted      row 6      the account is out of money: cool it for long
├── ContentRefused        row 7      moderation: the request's own
├── RequestRejected       row 8      bad request: the request's own
├── SessionRejected       rows 9-10  cookies/user agent not accepted: the profile's own
├── Forbidden             row 11     unclassified 403: one other account may try
│   └── NotEntitled       row 11     this account may not use this model: skip it for it
├── UpstreamFailed        row 12     5xx: short cool-down
├── NetworkFailed         row 13     connect, TLS, reset
│   └── UpstreamTimeout   row 13     no headers or no bytes in time
├── UpstreamIncomplete    row 14     the stream ended before its end
│   └── ImagesIncomplete  row 14     it ended without a usable picture
└── PostprocessingFailed  row 15     an asset could not be fetched

Rows are those of upstream-web section 12. ``effect`` says what happens to the
credential, ``retry`` whether another credential may try before the commit point,
``status``/``type``/``code`` what the client sees when no attempt is left. Nobody
branches on message text or status numbers after this point.
"""

from __future__ import annotations

from enum import Enum


class Effect(Enum):
    """What an error means for the credential that met it."""

    NONE = "none"
    RETIRE = "retire"
    COOL_BUCKET = "cool_bucket"
    COOL_CREDENTIAL = "cool_credential"
    COOL_TEAM = "cool_team"
    BACK_OFF = "back_off"
    PAUSE = "pause"
    SKIP_MODEL = "skip_model"
    PROFILE_UNHEALTHY = "profile_unhealthy"


class UpstreamError(Exception):
    """Base class; ``message`` is written by us and safe to show to a client.

    ``retry_after`` is in seconds when upstream named a time. ``row`` is the row of the
    taxonomy that matched, ``evidence`` a short redacted description for the operator
    (kind, length, hash; never upstream's text). ``upstream_status`` is the HTTP status
    seen, if any. ``max_attempts`` bounds how many credentials may be tried in all.
    ``maybe_accepted`` says that upstream may be at work on the request all the same (a
    video, say): it must not be submitted again, and ``retry`` is then False.
    """

    effect = Effect.NONE
    retry = False
    status = 502
    type = "server_error"
    code = "upstream_error"
    max_attempts: int | None = None
    maybe_accepted = False
    message = "The upstream failed."

    def __init__(
        self,
        message: str = "",
        *,
        row: int | str = 0,
        retry_after: float | None = None,
        upstream_status: int | None = None,
        evidence: str = "",
    ) -> None:
        self.message = message or type(self).message
        super().__init__(self.message)
        self.row = row
        self.retry_after = retry_after
        self.upstream_status = upstream_status
        self.evidence = evidence


class CredentialRejected(UpstreamError):
    effect = Effect.RETIRE
    retry = True
    status = 503
    code = "upstream_unavailable"
    message = "No upstream credential was accepted."


class QuotaExhausted(UpstreamError):
    effect = Effect.COOL_BUCKET
    retry = True
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    message = "The upstream quota for this model is used up."


class BalanceExhausted(UpstreamError):
    effect = Effect.COOL_CREDENTIAL
    retry = True
    status = 503
    code = "upstream_unavailable"
    message = "The upstream account has no balance left."


class TeamBalanceExhausted(BalanceExhausted):
    """Out of credit on api.x.ai: every key of the team (upstream-xai 10.2)."""

    effect = Effect.COOL_TEAM


class ContentRefused(UpstreamError):
    status = 400
    type = "invalid_request_error"
    code = "content_policy_violation"
    message = "The upstream refused this content."


class RequestRejected(UpstreamError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    message = "The upstream did not accept this request."


class SessionRejected(UpstreamError):
    effect = Effect.PROFILE_UNHEALTHY
    code = "upstream_session_rejected"
    message = "The upstream did not accept the browser session; the operator must refresh it."


class Forbidden(UpstreamError):
    retry = True
    max_attempts = 2
    code = "upstream_forbidden"
    message = "The upstream refused access."


class NotEntitled(Forbidden):
    effect = Effect.SKIP_MODEL


class UpstreamFailed(UpstreamError):
    effect = Effect.BACK_OFF
    retry = True
    code = "upstream_error"
    message = "The upstream answered with an error."


class NetworkFailed(UpstreamError):
    """``sent`` is False where the request certainly never left: no connection was made."""

    sent = True
    effect = Effect.PAUSE
    retry = True
    code = "upstream_network_error"
    message = "The upstream could not be reached."


class UpstreamTimeout(NetworkFailed):
    status = 504
    code = "upstream_timeout"
    message = "The upstream did not answer in time."


class UpstreamIncomplete(UpstreamError):
    retry = True
    code = "upstream_incomplete"
    message = "The upstream ended its answer before it was complete."


class ImagesIncomplete(UpstreamIncomplete):
    code = "image_generation_incomplete"
    message = "The upstream ended without a usable picture."


class PostprocessingFailed(UpstreamError):
    code = "media_postprocessing_failed"
    message = "The upstream made the media, but it could not be fetched."
