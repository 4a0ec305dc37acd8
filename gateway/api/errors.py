"""The one table from exceptions to OpenAI's envelope (http-contract section 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from django.db import Error as DatabaseFailed
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import ValidationError as NinjaValidationError

from gateway.api.media_errors import translate_media
from gateway.media.errors import MediaError
from gateway.translate.flatten import EmptyPrompt
from gateway.upstream.attachments import AttachmentError
from gateway.upstream.errors import UpstreamError
from gateway.wire.errors import ApiError
from pool.errors import NoCredential
from pool.keys import KeyRefused
from pool.limits.limiter import LimitExceeded

logger = logging.getLogger(__name__)
MAX_SHOWN = 100
"""Characters of a name that an error repeats."""


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def _upstream(error: UpstreamError) -> ApiError:
    headers = _retry_after(error.retry_after) if error.status in {429, 503} else {}
    return ApiError(error.status, error.message, type_=error.type, code=error.code, headers=headers)


def _no_credential(error: NoCredential) -> ApiError:
    return ApiError(
        429,
        error.message,
        type_="rate_limit_error",
        code="rate_limit_exceeded",
        headers=_retry_after(error.retry_after),
    )


def _limit_exceeded(error: LimitExceeded) -> ApiError:
    return ApiError(
        429,
        error.message,
        type_="rate_limit_error",
        code=CODES[error.bucket],
        headers=_retry_after(error.retry_after),
    )


CODES = {
    "chat": "chat_daily_quota_exceeded",
    "heavy": "heavy_daily_quota_exceeded",
    "image": "image_daily_quota_exceeded",
    "video": "video_daily_quota_exceeded",
    "requests_per_minute": "requests_per_minute_exceeded",
    "concurrent_requests": "concurrent_requests_exceeded",
}


def _unauthorized(error: KeyRefused) -> ApiError:
    """One answer for every refused key: which keys exist is nobody's business."""
    return ApiError(
        401,
        "The API key is missing, wrong, disabled or expired.",
        type_="authentication_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def shown(name: str) -> str:
    """A client's own word, as an error may repeat it."""
    return repr(name[:MAX_SHOWN])


def not_found(error: Exception | None = None) -> ApiError:
    return ApiError(404, "There is nothing here.", type_="not_found_error", code="not_found")


def wrong_method(allowed: str) -> ApiError:
    """``allowed`` goes into the Allow header."""
    return ApiError(
        405,
        "This method is not allowed here.",
        code="method_not_allowed",
        headers={"Allow": allowed} if allowed else {},
    )


def internal_error(error: Exception | None = None) -> ApiError:
    return ApiError(500, "Something broke in here.", type_="server_error", code="internal_error")


def _record_away(error: DatabaseFailed) -> ApiError:
    """Only what must be read from the record to be answered ever gets here."""
    logger.warning("a request needs the database, which is away: %s", type(error).__name__)
    return ApiError(
        503,
        "The database is away; try again in a moment.",
        type_="server_error",
        code="storage_unavailable",
        headers=_retry_after(5.0),
    )


def _attachment(error: AttachmentError) -> ApiError:
    return ApiError(400, error.message, code=error.code, param="messages")


def _empty_prompt(error: EmptyPrompt) -> ApiError:
    return ApiError(400, "The messages hold no content.", code="empty_content", param="messages")


def _ninja_invalid(error: NinjaValidationError) -> ApiError:
    problem = error.errors[0]
    path = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
    return ApiError(400, f"{path}: {problem['msg']}.", code=problem["type"], param=path)


TRANSLATIONS: tuple[tuple[type[Exception], Callable[..., ApiError]], ...] = (
    (ApiError, lambda error: error),
    (UpstreamError, _upstream),
    (NoCredential, _no_credential),
    (LimitExceeded, _limit_exceeded),
    (KeyRefused, _unauthorized),
    (AttachmentError, _attachment),
    (EmptyPrompt, _empty_prompt),
    (MediaError, translate_media),
    (NinjaValidationError, _ninja_invalid),
    (Http404, not_found),
    (DatabaseFailed, _record_away),
)


def translate(error: Exception) -> ApiError:
    """What the client sees of ``error``; an unforeseen one is logged with its traceback."""
    for kind, translation in TRANSLATIONS:
        if isinstance(error, kind):
            return translation(error)
    logger.error("unforeseen error", exc_info=error)
    return internal_error()


def respond(error: ApiError) -> HttpResponse:
    return HttpResponse(
        error.body(), status=error.status, content_type="application/json", headers=error.headers
    )


def install(api: NinjaAPI) -> None:
    """Answer every exception of ``api``'s operations in the envelope."""

    def handle(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
        return respond(translate(error if isinstance(error, Exception) else error()))

    for kind, _ in TRANSLATIONS:
        api.add_exception_handler(kind, handle)
    api.add_exception_handler(Exception, handle)
