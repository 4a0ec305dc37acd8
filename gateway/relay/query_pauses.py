"""When not to ask upstream for numbers: one credential, or all of them."""

from __future__ import annotations

import logging

from gateway.upstream.errors import UpstreamError

logger = logging.getLogger(__name__)
QUIET = 60.0
"""Seconds that a credential is left alone after a 429 that names no time."""
LONGEST_QUIET = 3600.0
IN_A_ROW = 5
"""Failures of upstream without a success in between after which everything pauses."""
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 600.0


class QueryPauses:
    """Times are seconds of the owner's clock."""

    def __init__(self) -> None:
        self._quiet: dict[int, float] = {}
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0

    def quiet_until(self, credential_id: int) -> float:
        """When the credential may be asked about again; in the past if at any time."""
        return self._quiet.get(credential_id, float("-inf"))

    def keep_quiet(self, credential_id: int, retry_after: float | None, now: float) -> None:
        seconds = QUIET if retry_after is None else min(max(retry_after, 1.0), LONGEST_QUIET)
        self._quiet = {number: until for number, until in self._quiet.items() if until > now}
        self._quiet[credential_id] = now + seconds

    def allowed(self, limit: int, now: float) -> int:
        """How many may be asked about at the same time.

        After a pause a single one tries first.
        """
        if not self._pause:
            return limit
        return 1 if now >= self._until else 0

    def failed(self, error: UpstreamError | None, now: float) -> None:
        """Upstream failed. What was begun before a pause does not lengthen it."""
        self._failures += 1
        if self._failures < IN_A_ROW or (self._pause and now < self._until):
            return
        if not self._pause:
            logger.warning("quota queries pause, upstream fails: %s", type(error).__name__)
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._until = now + self._pause

    def succeeded(self) -> None:
        if self._pause:
            logger.info("quota queries go on")
        self._failures, self._pause = 0, 0.0
