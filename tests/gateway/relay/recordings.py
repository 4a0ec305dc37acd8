"""A recording without a gateway around it."""

from __future__ import annotations

from itertools import count

from gateway.exchange import Exchange
from gateway.relay.recording import Recording
from pool.keys import KeyRecord
from pool.limits.charges import Charge
from pool.limits.limiter import Ticket


class Unlimited:
    """Lets everything pass, and remembers what became of each ticket."""

    turned_away = 0

    def __init__(self) -> None:
        self.settled: list[Ticket] = []
        self.released: list[Ticket] = []

    async def reserve(self, key: KeyRecord, charge: Charge) -> Ticket:
        return Ticket(key.id, 0, charge, limited=False)

    async def settle(self, ticket: Ticket, charge: Charge | None = None) -> None:
        self.settled.append(ticket)

    async def release(self, ticket: Ticket) -> None:
        self.released.append(ticket)


class Heard:
    """Hears of requests, as the numbers, the ledger and the traces do."""

    def __init__(self) -> None:
        self.began_: list[Exchange] = []
        self.streaming: list[Exchange] = []
        self.over: list[tuple[Exchange, bool]] = []

    @property
    def exchange(self) -> Exchange:
        """The only request there was."""
        (exchange,) = self.began_
        return exchange

    def began(self, exchange: Exchange) -> None:
        self.began_.append(exchange)

    def streams(self, exchange: Exchange) -> None:
        self.streaming.append(exchange)

    def ended(self, exchange: Exchange, *, streamed: bool) -> None:
        self.over.append((exchange, streamed))


def recording(heard: Heard, limiter: Unlimited | None = None) -> Recording:
    """Its clock goes on by a second at every look."""
    seconds = count()
    exchange = Exchange("request-1", "chat", 1_790_000_000.0, key_id=1, key_name="test")
    return Recording(
        exchange,
        clock=lambda: float(next(seconds)),
        limiter=limiter or Unlimited(),
        observer=heard,
    )
