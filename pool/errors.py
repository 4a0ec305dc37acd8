"""The pool's one refusal."""

from __future__ import annotations


class NoCredential(Exception):
    """Nothing can serve the request now.

    ``soonest`` is in how many seconds the first credential may be free: 0 when some are only
    busy, None when none will be. ``retry_after`` is the same as a hint for clients.
    """

    def __init__(self, message: str, soonest: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.soonest = soonest

    @property
    def retry_after(self) -> float | None:
        return None if self.soonest is None else max(1.0, self.soonest)
