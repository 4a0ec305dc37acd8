"""The pool of several workers and hosts: chosen from memory, claimed in Redis.

Each worker keeps the whole picture and chooses by it; the claim that follows is one Lua
call, which refuses what others have taken meanwhile and tells what they changed. So any
number of workers share one truth at the price of one round trip, and when Redis is away
each goes on by what it knew last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import from_json

from pool.entries import Entry
from pool.errors import NoCredential
from pool.leases import Lease, Reading, Want
from pool.outcomes import Outcome, Verdict
from pool.selection import Hold, MemoryPool
from pool.shared.courier import PULL, Courier, Operation
from pool.shared.documents import Document, Facts, adopt, box_of, seed_of
from pool.shared.missed import Missed, adoption_of, patch_of, reset_of
from pool.shared.store import DEAD_AFTER, Beat, SharedStore, StoreAway

logger = logging.getLogger(__name__)

TRIES = 32
"""Claims refused in a row after which a request is told that all are busy."""
UNKNOWN = -2
"""The claim's answer when Redis has no document and was given none."""


class SharedPool(MemoryPool):
    """``store`` is this worker's connection. Its owner runs ``courier.run_forever`` and
    ``store.beat_forever``; the other arguments are MemoryPool's.

    While Redis is away, each worker keeps to the caps by its own leases and those it knew of
    the others, and counts what it uses. What only Redis knew is lost with its data: at the
    most what others consumed since this worker's last beat.
    """

    def __init__(self, store: SharedStore, **options: Any) -> None:
        super().__init__(**options)
        self._store = store
        self.courier = Courier(store, self._deliver, self._keep)
        self._epoch = ""
        self._session = ""
        self._claiming: set[int] = set()
        self._is_unsure = False
        """Whether Redis may have leases of this worker that have ended."""
        self._missed = Missed()
        self._alone_since: float | None = None
        store.listen(self._on_beat)

    async def lease(self, want: Want) -> Lease:
        asked = False
        for _ in range(TRIES):
            if not self._store.available:
                return self._take_alone(want).lease
            try:
                hold = self._take(want, reserve=False)
            except NoCredential:
                if asked:
                    raise
                asked = True
                await self._look_again()
                continue
            if await self._claim(hold):
                return hold.lease
        raise self._refusals.explain(want, self._now())

    async def _look_again(self) -> None:
        """Hear what others have freed, if there is anybody to ask."""
        try:
            await self.courier.ask(PULL)
            while self.courier.is_behind:
                await self.courier.ask(PULL)
        except StoreAway:
            return

    def _take_alone(self, want: Want) -> Hold:
        """By what is known here. After a while, others' leases of then count as ended."""
        if self._alone_since is None:
            self._alone_since = self._now()
        try:
            return self._take(want)
        except NoCredential:
            if self._now() - self._alone_since < DEAD_AFTER or not self._forget_others():
                raise
            return self._take(want)

    def _forget_others(self) -> bool:
        """Whether there was anything to forget."""
        now = self._now()
        held = [entry for entry in self.entries if entry.elsewhere]
        for entry in held:
            entry.elsewhere = 0
            self._place(entry, now)
        return bool(held)

    async def _claim(self, hold: Hold) -> bool:
        """Whether the credential is ours; if not, why not is known by now."""
        lease = hold.lease
        self._claiming.add(lease.id)
        try:
            number = await self.courier.ask(self._claim_of(hold))
        except StoreAway:
            self._is_unsure = True
            hold.reserved = self._reserve(hold.entry, lease.lane)
            self._place(hold.entry, self._now())
            return True
        except asyncio.CancelledError:
            self._release(hold)
            self.courier.tell({"o": "finish", "l": lease.id})
            raise
        finally:
            self._claiming.discard(lease.id)
        if number >= 0:
            hold.reserved, hold.shared = number, True
            return True
        if number == UNKNOWN:
            hold.entry.version = 0
        self._release(hold)
        return False

    def _claim_of(self, hold: Hold) -> Operation:
        entry, lease = hold.entry, hold.lease
        operation: Operation = {
            "o": "claim",
            "l": lease.id,
            "i": entry.id,
            "n": entry.revision,
            "b": lease.lane.bucket,
            "box": box_of(entry.look(lease.lane.bucket)),
            "cost": lease.lane.cost,
            "cap": self._cap(entry.kind),
            "md": lease.model,
            "t": self._now(),
        }
        if not entry.version:
            operation["seed"] = seed_of(entry)
        return operation

    def _end_reservation(self, hold: Hold, *, refund: bool) -> None:
        super()._end_reservation(hold, refund=refund)
        entry, bucket = hold.entry, hold.lease.lane.bucket
        if not hold.shared:
            if not refund:
                self._missed.owe(entry.id, bucket, hold.reserved)
            return
        operation: Operation = {"o": "settle", "l": hold.lease.id, "u": int(not refund)}
        if not refund:
            operation |= {"i": entry.id, "b": bucket, "cost": hold.reserved}
            operation["c"] = self._cool_until()
        self.courier.tell(operation)

    def _cool_until(self) -> float:
        return self._now() + self._policy.bucket_cooldown

    def _release(self, hold: Hold) -> None:
        super()._release(hold)
        if hold.shared:
            self.courier.tell({"o": "finish", "l": hold.lease.id})

    def _apply(self, entry: Entry, bucket: str, model: str, outcome: Outcome, now: float) -> None:
        before = Facts.of(entry, bucket, model)
        super()._apply(entry, bucket, model, outcome, now)
        patch = before.changes(Facts.of(entry, bucket, model), bucket, model)
        if outcome.verdict in {Verdict.SUCCESS, Verdict.SPENT}:
            patch.pop("b", None)  # whether a bucket is used up is seen where all leases are known
        self._tell_changes(entry, patch)

    def _amend(self, entry: Entry, change: Callable[[], None], now: float) -> None:
        before = Facts.of(entry, "", "")
        super()._amend(entry, change, now)
        self._tell_changes(entry, before.changes(Facts.of(entry, "", ""), "", ""), exact=True)

    async def measure(self, credential_id: int, readings: Mapping[str, Reading]) -> None:
        await super().measure(credential_id, readings)
        entry = self.get(credential_id)
        known = {bucket: said for bucket, said in readings.items() if said.remaining is not None}
        if entry is not None and known:
            boxes = {
                bucket: {"q": said.remaining, "c": entry.quota(bucket).cooling_until}
                for bucket, said in known.items()
            }
            self._tell_changes(entry, {"b": boxes}, exact=True)

    def _tell_changes(self, entry: Entry, patch: Document, *, exact: bool = False) -> None:
        if patch:
            self.courier.tell(patch_of(entry, patch, exact=exact))

    def update(self, entry: Entry, fresh: Entry) -> None:
        """The operator's changes outrank what is shared; other rows only follow it."""
        outranks = fresh.revision > entry.revision
        if entry.version and not outranks:
            self._withdraw(entry)
            entry.adopt_identity(fresh)
            self._add(entry, self._now())
            return
        super().update(entry, fresh)
        if outranks:
            self.courier.tell(reset_of(entry), in_time=False)

    def _deliver(self, documents: list[str]) -> None:
        now = self._now()
        for text in documents:
            try:
                self._take_over(from_json(text), now)
            except (ValueError, TypeError, KeyError, AttributeError):
                logger.warning("a credential's shared state cannot be read: %.80s", text)

    def _take_over(self, document: Document, now: float) -> None:
        """What was told before the operator's last change is void, and so is older news."""
        entry = self.get(document["i"])
        if entry is None or document["v"] < entry.version or document["n"] < entry.revision:
            return
        held = entry.elsewhere
        adopt(entry, document, self._store.worker, now)
        for model in entry.skip_models:
            self._standings.restrict(entry.kind, model)
        self._place(entry, now)
        if entry.elsewhere < held:
            self.freed()

    def _keep(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._missed.note(operation)

    async def _on_beat(self, beat: Beat) -> None:
        """Give back what dead workers hold, and repair what an absence has left behind."""
        self._alone_since = None
        async with self.courier.turn:
            operations = self._make_good(beat)
            operations += [{"o": "reap", "worker": w, "after": DEAD_AFTER} for w in beat.dead]
            try:
                await self.courier.catch_up(operations)
            except StoreAway:
                self._keep(operations)
                raise

    def _make_good(self, beat: Beat) -> list[Operation]:
        """What has to be told so that Redis knows the open leases and missed changes.

        Ended leases come first, since naming the open ones gives back all others; then what
        was consumed, before anything may seed a document in which that is contained.
        """
        new_session = self._store.session != self._session
        everything = new_session or self._is_unsure
        self._session, self._is_unsure = self._store.session, False
        if beat.epoch != self._epoch:
            self._epoch = beat.epoch
            self._forget_shared()
        if not beat.known:
            self._missed.charge_ended()
        operations = self._missed.take_ended()
        if everything:
            operations.append({"o": "holds", "open": list(self._open)})
        operations += self._missed.take_charges(self.get, self._cool_until())
        operations += self._missed.take_changed(self.get)
        return operations + self._adoptions(everything=everything)

    def _adoptions(self, *, everything: bool) -> list[Operation]:
        now = self._now()
        operations = []
        for hold in self._open.values():
            if hold.lease.id not in self._claiming and (everything or not hold.shared):
                operations.append(adoption_of(hold, now))
                hold.shared = True
        return operations

    def _forget_shared(self) -> None:
        """Redis is new or has lost its data; what is known here will be its seed."""
        self.courier.seen = 0
        self._forget_others()
        for entry in self.entries:
            entry.version = 0

    async def aclose(self) -> None:
        """Have everything told that is waiting to be."""
        await self.courier.drain()
