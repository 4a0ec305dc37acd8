"""The pool against a model that keeps no index: it looks at everything, every time.

The model also plays the database: what the pool says it has to write is applied to stored
rows, and those are read back at any moment, also while changes are still unwritten.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from pool.entries import Entry, Quota
from pool.errors import NoCredential
from pool.leases import Lane, Lease, Want
from pool.outcomes import Outcome, Verdict
from pool.policy import PoolPolicy
from pool.roster import take_changes
from tests.pool.samples import Clock, make_entry, make_pool

T = TypeVar("T")
KINDS = ("sso", "api")
BUCKETS = ("fast", "heavy")
MODELS = ("m1", "m2")
CONSUMING = (Verdict.SUCCESS, Verdict.SPENT)
TEAM_WIDE = (Verdict.COOL_BUCKET, Verdict.COOL_TEAM)

kinds = st.sampled_from(KINDS)
ids = st.integers(1, 5)
some_ids = st.one_of(st.just(frozenset[int]()), st.frozensets(ids, max_size=2))
numbers = st.one_of(st.none(), st.integers(1, 3))
lanes = st.builds(Lane, kinds, st.sampled_from(BUCKETS), st.sampled_from((1, 4)))
several_lanes = st.one_of(
    st.sampled_from(BUCKETS).map(lambda bucket: tuple(Lane(kind, bucket) for kind in KINDS)),
    st.lists(lanes, min_size=1, max_size=3, unique_by=lambda lane: lane.kind).map(tuple),
)
quotas = st.dictionaries(st.sampled_from((*BUCKETS, "*")), numbers, max_size=3)


def now_or_later(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the pool waited for something")


@dataclass
class Box:
    """One bucket as the model knows it."""

    left: int | None
    until: float = 0.0

    def at(self, now: float) -> int | None:
        return None if 0 < self.until <= now else self.left


@dataclass
class Held:
    lease: Lease
    taken: int
    sealed: bytes
    settled: bool = False


@dataclass
class Card:
    """One credential as the model knows it."""

    id: int
    kind: str
    team: str
    sealed: bytes
    active: bool
    boxes: dict[str, Box]
    rests: float = 0.0
    failures: int = 0
    uses: int = 0
    skips: dict[str, float] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)

    def box(self, bucket: str) -> Box | None:
        if bucket not in self.boxes and self.kind != "api" and bucket != "heavy":
            return self.boxes.get("*")
        return self.boxes.get(bucket)

    def own(self, bucket: str) -> Box:
        seed = self.box(bucket)
        return self.boxes.setdefault(
            bucket, Box(seed.left, seed.until) if seed is not None else Box(None)
        )

    def reserved(self, bucket: str) -> int:
        return sum(h.taken for h in self.held if h.lease.lane.bucket == bucket and not h.settled)

    def rank(self, bucket: str, model: str, now: float, cap: int) -> float | None:
        box = self.box(bucket)
        left = box.at(now) if box else None
        waits = max(self.rests, self.skips.get(model, 0.0), box.until if box else 0.0) > now
        if not self.active or len(self.held) >= cap or waits:
            return None
        if left is None:
            return 1e9 if bucket == "heavy" else 0.5
        return left if left > 0 else None


class PoolMachine(RuleBasedStateMachine):
    leases: Bundle[Held] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.policy = PoolPolicy(max_concurrent=2, max_concurrent_api=3, max_cooldown=5000)
        self.changed: dict[int, Entry] = {}
        self.pool = make_pool(clock=self.clock, policy=lambda: self.policy, changed=self.note)
        self.cards: dict[int, Card] = {}
        self.stored: dict[int, Entry] = {}
        self.open: list[Held] = []
        self.next_id = 1

    def note(self, entry: Entry) -> None:
        self.changed[entry.id] = entry

    @initialize(several=st.lists(st.tuples(kinds, quotas), min_size=1, max_size=3))
    def begin(self, several: list[tuple[str, dict[str, int | None]]]) -> None:
        for kind, quotas in several:
            self.add(kind, quotas)

    @precondition(lambda self: self.next_id <= 5)
    @rule(kind=kinds, quotas=quotas)
    def add(self, kind: str, quotas: dict[str, int | None]) -> None:
        number, self.next_id = self.next_id, self.next_id + 1
        team = "red" if kind == "api" and number != 3 else ""
        boxes = {bucket: Box(left) for bucket, left in quotas.items()}
        self.cards[number] = Card(number, kind, team, b"s1", True, boxes)
        self.stored[number] = self._row(self.cards[number], quotas)
        self.pool.put(self._row(self.cards[number], quotas))

    def _row(self, card: Card, quotas: dict[str, int | None]) -> Entry:
        return make_entry(
            card.id, card.kind, active=card.active, team_id=card.team, sealed=card.sealed,
            quotas={bucket: Quota(left) for bucket, left in quotas.items()},
        )  # fmt: skip

    @rule(number=ids)
    def remove(self, number: int) -> None:
        self.pool.remove(number)
        self.cards.pop(number, None)
        self.stored.pop(number, None)

    @rule(seconds=st.sampled_from((0.0, 1.0, 4.0, 5.0, 60.0, 900.0, 30_000.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(cap=st.integers(1, 4))
    def change_the_cap(self, cap: int) -> None:
        self.policy = PoolPolicy(max_concurrent=cap, max_concurrent_api=cap + 1, max_cooldown=5000)

    @rule(
        target=leases,
        lanes=several_lanes,
        model=st.sampled_from(MODELS),
        exclude=some_ids,
        only=st.one_of(st.none(), ids),
    )
    def lease(
        self, lanes: tuple[Lane, ...], model: str, exclude: frozenset[int], only: int | None
    ) -> Held | MultipleResults[Held]:
        want = Want(lanes, model, exclude, only)
        lane, best = self._expected(want)
        try:
            lease = now_or_later(self.pool.lease(want))
        except NoCredential as refused:
            assert not best, "the pool refused what it could have served"
            assert refused.retry_after is None or refused.retry_after >= 1
            return multiple()
        assert lease.lane == lane
        assert lease.credential_id in best
        return self._take(lease)

    def _expected(self, want: Want) -> tuple[Lane | None, set[int]]:
        for lane in want.lanes:
            ranks = {
                card.id: rank
                for card in self.cards.values()
                if card.kind == lane.kind
                and card.id not in want.exclude
                and want.only in (None, card.id)
                and (rank := card.rank(lane.bucket, want.model, self.clock.now, self._cap(card)))
            }
            if ranks:
                return lane, {c for c, rank in ranks.items() if rank == max(ranks.values())}
        return None, set()

    def _cap(self, card: Card) -> int:
        return self.policy.cap(card.kind)

    def _take(self, lease: Lease) -> Held:
        card, lane = self.cards[lease.credential_id], lease.lane
        held = Held(lease, 0, card.sealed)
        seen = card.box(lane.bucket)
        left = seen.at(self.clock.now) if seen else None
        if left is not None:
            held.taken = min(lane.cost, left)
            own = card.own(lane.bucket)
            own.left, own.until = left - held.taken, 0.0
        card.held.append(held)
        self.open.append(held)
        return held

    def _give_back(self, card: Card, held: Held) -> None:
        box = card.boxes.get(held.lease.lane.bucket)
        if box and box.at(self.clock.now) is not None and box.left is not None:
            box.left += held.taken

    @rule(
        held=leases,
        verdict=st.sampled_from(Verdict),
        hint=st.sampled_from((None, 0.0, 30.0, 9000.0)),
    )
    def settle(self, held: Held, verdict: Verdict, hint: float | None) -> None:
        if held not in self.open or held.settled:
            try:
                now_or_later(self.pool.settle(held.lease, Outcome(verdict)))
            except ValueError:
                return
            raise AssertionError("a lease was settled twice")
        now_or_later(self.pool.settle(held.lease, Outcome(verdict, "why", hint)))
        held.settled = True
        card = self._card_of(held)
        if card is None:
            self._punish_team(held, verdict, hint)
            return
        if verdict in CONSUMING:
            self._consume(card, held, verdict)
            return
        self._give_back(card, held)
        if held.sealed == card.sealed:
            self._punish(card, held.lease, verdict, hint)
            self._punish_team(held, verdict, hint)

    def _card_of(self, held: Held) -> Card | None:
        card = self.cards.get(held.lease.credential_id)
        return card if card is not None and held in card.held else None

    def _consume(self, card: Card, held: Held, verdict: Verdict) -> None:
        card.uses += 1
        bucket = held.lease.lane.bucket
        box = card.boxes.get(bucket)
        if verdict is Verdict.SUCCESS:
            card.failures = 0
        if box and box.left is not None and not box.until and box.left + card.reserved(bucket) == 0:
            box.left, box.until = 0, self.clock.now + 900

    def _punish_team(self, held: Held, verdict: Verdict, hint: float | None) -> None:
        if verdict in TEAM_WIDE and held.lease.team_id:
            for card in self.cards.values():
                if card.team == held.lease.team_id and card.id != held.lease.credential_id:
                    self._punish(card, held.lease, verdict, hint)

    def _punish(self, card: Card, lease: Lease, verdict: Verdict, hint: float | None) -> None:
        now = self.clock.now
        match verdict:
            case Verdict.RETIRE:
                card.active = False
                card.failures += 1
            case Verdict.COOL_BUCKET:
                box = card.own(lease.lane.bucket)
                seconds = 900 if hint is None else min(max(hint, 1), 5000)
                box.left, box.until = 0, max(box.until, now + seconds)
            case Verdict.COOL_CREDENTIAL | Verdict.COOL_TEAM:
                seconds = min(max(21600 if hint is None else hint, 1), 5000)
                card.rests = max(card.rests, now + seconds)
            case Verdict.BACK_OFF:
                card.failures += 1
                pause = min(2 * 2 ** (card.failures - 1), 300)
                card.rests = max(card.rests, now + max(pause, min(hint or 0, 5000)))
            case Verdict.PAUSE:
                card.rests = max(card.rests, now + 5)
            case Verdict.SKIP_MODEL:
                card.skips[lease.model] = now + 21600
            case _:
                assert verdict is Verdict.NEUTRAL

    @rule(lanes=several_lanes, verdict=st.sampled_from(Verdict))
    def use(self, lanes: tuple[Lane, ...], verdict: Verdict) -> None:
        """A whole use at once, so that credentials are worn down in few steps."""
        held = self.lease(lanes, "m1", frozenset(), None)
        if isinstance(held, Held):
            self.settle(held, verdict, None)
            self.release(held)

    @rule(held=consumes(leases))
    def release(self, held: Held) -> None:
        if held not in self.open:
            return
        now_or_later(self.pool.release(held.lease))
        self.open.remove(held)
        card = self._card_of(held)
        if card is not None:
            if not held.settled:
                self._give_back(card, held)
            card.held.remove(held)

    @rule()
    def write(self) -> None:
        """What the pool says has changed reaches the stored rows, and nothing else does."""
        for entry in self.changed.values():
            change = take_changes(entry)
            row = self.stored.get(entry.id)
            if row is None:
                continue
            row.pending_uses += change.uses
            row.active = row.active and change.retired_reason is None
            row.failures = change.columns.get("fail_count", row.failures)
            if "resting_until" in change.columns:
                moment = change.columns["resting_until"]
                row.resting_until = moment.timestamp() if moment else 0.0
            for bucket, taken in change.quotas.items():
                quota = row.quotas.setdefault(bucket, Quota())
                quota.remaining = taken.remaining
                if taken.cooling_until is not None:
                    quota.cooling_until = taken.cooling_until
        self.changed.clear()

    @rule(number=ids, replaced=st.booleans(), flip=st.booleans())
    def read(self, number: int, replaced: bool, flip: bool) -> None:
        """Reading a row back changes nothing but what the operator has changed in it."""
        row, card, entry = self.stored.get(number), self.cards.get(number), self.pool.get(number)
        if row is None or card is None or entry is None:
            return
        if flip:
            row.active = not row.active
        if "status" not in entry.pending_columns:
            card.active = row.active
        if replaced:
            row.sealed = card.sealed = card.sealed + b"+"
        quotas = {b: Quota(q.remaining, q.cooling_until) for b, q in row.quotas.items()}
        self.pool.update(entry, make_entry(
            number, row.kind, active=row.active, team_id=row.team_id, sealed=row.sealed,
            failures=row.failures, resting_until=row.resting_until, quotas=quotas,
        ))  # fmt: skip

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        assert self.pool.open_leases == len(self.open)
        assert {entry.id for entry in self.pool.entries} == set(self.cards)
        for card in self.cards.values():
            entry = self.pool.get(card.id)
            assert entry is not None
            assert entry.in_flight == len(card.held)
            assert (entry.active, entry.failures) == (card.active, card.failures)
            assert entry.pending_uses + self.stored[card.id].pending_uses == card.uses
            assert max(entry.resting_until, self.clock.now) == max(card.rests, self.clock.now)
            self._same_quotas(card, entry)

    def _same_quotas(self, card: Card, entry: Entry) -> None:
        now = self.clock.now
        for bucket in BUCKETS:
            box, quota = card.box(bucket), entry.look(bucket)
            if quota is not None:
                assert quota.reserved >= 0
                assert quota.remaining is None or quota.remaining >= 0
            if box is not None and box.until > now:
                assert quota is not None
                assert quota.cooling_until == box.until
            elif box is not None and box.at(now) is not None:
                assert quota is not None
                assert quota.remaining == box.left
                assert quota.reserved == card.reserved(bucket)
            elif quota is not None:
                ended = quota.cooling_until <= now
                assert ended
                assert quota.remaining is None or quota.cooling_until or quota.is_spent()

    def teardown(self) -> None:
        for held in self.open:
            now_or_later(self.pool.release(held.lease))
        assert self.pool.open_leases == 0
        assert all(entry.in_flight == 0 for entry in self.pool.entries)


PoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestThePoolDoesWhatItsModelDoes = PoolMachine.TestCase
