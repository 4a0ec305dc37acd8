"""What the pool hands out, and what is asked of it. Plain values; no Django in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Subject:
    """A credential opened for a question about itself (its quota, its team), without a lease."""

    credential_id: int
    kind: str
    secret: str = field(repr=False)
    user_id: str
    team_id: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What upstream says of one bucket. None is unknown, never zero and never full.

    ``resets_at`` is a Unix time. With ``remaining`` 0 the bucket cools until then.
    """

    remaining: int | None
    total: int | None = None
    resets_at: float | None = None


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

    def subject(self, credential_id: int) -> Subject | None:
        """The credential, opened; None when it is gone or cannot be opened."""

    async def measure(self, credential_id: int, readings: Mapping[str, Reading]) -> None:
        """Take over what upstream said of some buckets, by name; ends their cool-downs if any
        is left. Nothing happens for a credential that is gone."""

    async def judge(self, credential_id: int, bucket: str, outcome: Outcome) -> None:
        """Apply an outcome that was learnt without a lease (a quota query, a probe)."""

    async def join_team(self, credential_id: int, team_id: str) -> None:
        """Let the credential share its cool-downs with those of an xAI team."""

    def cooling(self) -> list[int]:
        """The ids of active credentials that rest, or some bucket of which does."""

    def serves(self, lanes: tuple[Lane, ...]) -> bool:
        """Whether a credential could serve one of the lanes now, or after a cool-down."""

    def usable_now(self, lanes: tuple[Lane, ...]) -> bool:
        """Whether a credential could serve one of the lanes at this moment."""
