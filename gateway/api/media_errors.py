"""What a client is told of trouble with files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.media.errors import BadContent, MediaError, NoSuchFile, StorageFailed, StorageFull
from gateway.wire.errors import ApiError

RETRY_AFTER = "60"


def translate_media(error: MediaError, param: str | None = None) -> ApiError:
    """``param`` names the field that the file came in."""
    match error:
        case NoSuchFile():
            return ApiError(404, error.message, type_="not_found_error", code="not_found")
        case BadContent():
            return ApiError(400, error.message, code=error.code, param=param)
        case StorageFull():
            return _unavailable(error, "storage_full")
        case StorageFailed():
            return _unavailable(error, "storage_failed")
    raise error


def _unavailable(error: StorageFailed, code: str) -> ApiError:
    headers = {"Retry-After": RETRY_AFTER}
    return ApiError(503, error.message, type_="server_error", code=code, headers=headers)


@contextmanager
def told_clients(param: str | None = None) -> Iterator[None]:
    """Around work on files: raises ApiError instead of MediaError."""
    try:
        yield
    except MediaError as error:
        raise translate_media(error, param) from error
