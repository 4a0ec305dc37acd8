"""What the relay knows of client-key limits: reserve, settle, release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pool.keys import KeyRecord
from pool.limits.charges import Charge, Daily

Bucket = Daily | Literal["requests_per_minute", "concurrent_requests"]
WHEN_BUSY = 1.0
"""Seconds after which to try again when only other requests are in the way."""
_WORDS: dict[str, str] = {
    "chat": "chats per day",
    "heavy": "heavy chats per day",
    "image": "images per day",
    "video": "videos per day",
    "requests_per_minute": "requests per minute",
    "concurrent_requests": "requests at the same time",
}


class LimitExceeded(Exception):
    """A limit of the key is reached. Nothing was counted.

    ``retry_after`` is in seconds: to the next local midnight for a daily bucket, until the
    window has room for requests per minute.
    """

    def __init__(self, bucket: Bucket, limit: int, retry_after: float) -> None:
        super().__init__(bucket, limit, retry_after)
        self.bucket = bucket
        self.limit = limit
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        """A sentence for the client."""
        return f"This key's limit of {self.limit} {_WORDS[self.bucket]} is reached."


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's reservation. ``day`` is the one it was made on, and stays charged to.

    ``limited``: it holds a place and units; else it is only counted, and not even that for
    the global key. ``awaited``: others may be waiting for the place.
    """

    key_id: int
    day: int
    charge: Charge
    limited: bool
    awaited: bool = False
    settled: Charge | None = None
    ended: bool = False

    def settle(self, charge: Charge | None) -> Charge:
        """Note what was used; raises ValueError for more than was reserved, or a second time."""
        used = self.charge if charge is None else charge
        if self.settled is not None or self.ended:
            raise ValueError("a reservation is settled once, before its release")
        if any(not 0 <= part <= whole for part, whole in zip(used, self.charge, strict=True)):
            raise ValueError("a reservation cannot be settled for more than it holds")
        self.settled = used
        return used


class KeyLimiter(Protocol):
    """Backed by this process's memory, a file that workers share, or a shared store."""

    @property
    def turned_away(self) -> int:
        """Requests refused because there was no room to count another key."""

    async def reserve(self, key: KeyRecord, charge: Charge) -> Ticket:
        """Take a place and ``charge`` at once; raises LimitExceeded.

        Checked in this order: requests at the same time, requests per minute, the daily
        buckets. Whatever refuses, nothing is counted anywhere.
        """

    async def settle(self, ticket: Ticket, charge: Charge | None = None) -> None:
        """The reservation has become use, all of it or the smaller ``charge``; at most once."""

    async def release(self, ticket: Ticket) -> None:
        """The end, in every case. Gives back the place and the daily units not settled; what
        counted as a request of the minute stays. A second call does nothing."""
