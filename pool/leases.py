"""What the pool hands out, and what is asked of it. Plain values; no Django in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pool.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Lane:
    """Where a request may be served: credentials of ``kind``, drawing on ``bucket``.

    ``cost`` is in quota units of that bucket (1, or 4 for the heavy models).
    """

    kind: str
    bucket: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Want:
    """One request's need: lanes in order of preference, and who must not serve it.

    ``exclude`` holds the ids of credentials already tried for this request. ``only``
    pins the request to one credential (opaque upstream state), ``model`` is the public
    id, for credentials that are not entitled to it.
    """

    lanes: tuple[Lane, ...]
    model: str
    exclude: frozenset[int] = frozenset()
    only: int | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use one credential once; give it back with ``Pool.release``."""

    id: int
    credential_id: int
    lane: Lane
    model: str
    secret: str
    user_id: str
    team_id: str
    hint: str

    def __repr__(self) -> str:
        return f"Lease({self.id}, credential={self.credential_id} …{self.hint}, {self.lane})"


class Pool(Protocol):
    """Reserve, settle, release. Backed by this process's memory or by a shared store."""

    async def lease(self, want: Want) -> Lease:
        """Reserve the best credential for ``want``; raises NoCredential."""

    async def settle(self, lease: Lease, outcome: Outcome) -> None:
        """Say how the use ended; at most once for a lease, before ``release``."""

    async def release(self, lease: Lease) -> None:
        """End the lease. An unsettled one is refunded and penalises nothing."""

    async def learn(self, lease: Lease, *, user_id: str) -> None:
        """Keep an identity that upstream told us about the leased credential."""

    def serves(self, lanes: tuple[Lane, ...]) -> bool:
        """Whether a credential could serve one of the lanes now, or after a cool-down."""

    def usable_now(self, lanes: tuple[Lane, ...]) -> bool:
        """Whether a credential could serve one of the lanes at this moment."""
