"""What follows from uses of credentials, beside the pool's own verdict."""

from __future__ import annotations

from gateway.relay.health import ProfileHealth
from gateway.relay.quota_sync import QuotaSync
from gateway.upstream.errors import UpstreamError
from pool.leases import Lease
from pool.outcomes import Outcome, Verdict

USED = frozenset({Verdict.SUCCESS, Verdict.SPENT})


class Aftermath:
    """Asks upstream what a use has left, and watches whether the session is accepted."""

    def __init__(self, health: ProfileHealth, quota_sync: QuotaSync) -> None:
        self._health = health
        self._quota_sync = quota_sync

    def failed(self, error: UpstreamError) -> None:
        self._health.failed(error)

    def settled(self, lease: Lease, outcome: Outcome) -> None:
        if outcome.verdict in USED:
            self._quota_sync.after_use(lease)
        elif outcome.verdict is Verdict.SKIP_MODEL and lease.lane.kind == "api":
            self._quota_sync.check(lease.credential_id)
