"""The pool's one refusal."""

from __future__ import annotations


class NoCredential(Exception):
    """Nothing can serve the request now. ``retry_after`` is in seconds, None if unknown."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
