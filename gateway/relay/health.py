"""Whether upstream accepts the operator's browser session (upstream-web 12, rows 9 and 10)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.upstream.errors import Effect, UpstreamError

logger = logging.getLogger(__name__)


class ProfileHealth:
    """Says once when the session stops being accepted, and once when it works again."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.unhealthy_since: float | None = None

    def failed(self, error: UpstreamError) -> None:
        if error.effect is Effect.PROFILE_UNHEALTHY and self.unhealthy_since is None:
            self.unhealthy_since = self._now()
            logger.warning(
                "upstream no longer accepts the browser session (row %s): refresh your own "
                "cf_clearance, user agent or cookies in the [grok] settings",
                error.row,
            )

    def succeeded(self) -> None:
        if self.unhealthy_since is not None:
            self.unhealthy_since = None
            logger.info("upstream accepts the browser session again")
