"""The gateway without pool, limits, ledger and numbers, to see what they cost.

python -m bench.bare serve --port PORT
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import count, cycle
from typing import Any

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")


def lighten() -> None:
    """Have the server built without them. Django has to be set up by then."""
    from gateway.relay import runtime
    from pool.crypto import unseal
    from pool.leases import Lane, Lease, Want
    from pool.limits.limiter import Ticket

    class OneAfterTheOther:
        """Hands out the credentials of the first lane in turn and remembers nothing."""

        def __init__(self, gateway: runtime.Runtime) -> None:
            self._ids = count(1)
            self._leases = {
                kind: cycle([_lease(entry) for entry in gateway.pool.entries if entry.kind == kind])
                for kind in {entry.kind for entry in gateway.pool.entries}
            }

        async def lease(self, want: Want) -> Lease:
            lane = next(lane for lane in want.lanes if lane.kind in self._leases)
            return replace(next(self._leases[lane.kind]), id=next(self._ids), lane=lane)

        async def settle(self, lease: Lease, outcome: object) -> None:
            return

        async def release(self, lease: Lease) -> None:
            return

        async def learn(self, lease: Lease, *, user_id: str) -> None:
            return

        def serves(self, lanes: tuple[Lane, ...]) -> bool:
            return True

    def _lease(entry: Any) -> Lease:
        lane = Lane(entry.kind, "")
        return Lease(0, entry.id, lane, "", unseal(entry.sealed), "user", "", entry.hint)

    class Free:
        async def reserve(self, key: Any, charge: Any) -> Ticket:
            return Ticket(key.id, 0, charge, limited=False)

        async def settle(self, ticket: Ticket, charge: Any = None) -> None:
            return

        async def release(self, ticket: Ticket) -> None:
            return

    class Silent:
        def began(self, exchange: Any) -> None:
            return

        streams = failed = began

        def ended(self, exchange: Any, *, streamed: bool) -> None:
            return

        def settled(self, lease: Any, outcome: Any) -> None:
            return

    class Bare(runtime.Runtime):
        async def start(self) -> None:
            await super().start()
            chat: Any = self.chat
            chat.pool = chat.room = OneAfterTheOther(self)
            chat.watcher = self.observers = Silent()  # type: ignore[assignment]
            self.limiter = Free()

    runtime.Runtime = Bare  # type: ignore[misc]


if __name__ == "__main__":
    import django

    django.setup()
    lighten()
    execute_from_command_line(["manage.py", *sys.argv[1:]])
