"""The pool against a model that keeps no index: in memory, on Redis, and with two workers there.

The model also plays the database: what the pool says it has to write is applied to stored
rows, and those are read back at any moment, also while changes are still unwritten.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from hypothesis import HealthCheck, settings
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
    run_state_machine_as_test,
)

from pool.entries import Entry, Quota
from pool.errors import NoCredential
from pool.leases import Lane, Reading, Want
from pool.models import Status
from pool.outcomes import Outcome, Verdict
from pool.policy import PoolPolicy
from pool.roster import SPENT_FOR, Change, take_changes
from tests.pool.samples import make_entry
from tests.pool.shared.backends import Backend, InMemory, OnRedis
from tests.pool.shared.model import Box, Card, Held, Model, View
from tests.services import REDIS

KINDS = ("sso", "api")
BUCKETS = ("fast", "heavy")
MODELS = ("m1", "m2")

workers = st.integers(0, 1)
kinds = st.sampled_from(KINDS)
buckets = st.sampled_from(BUCKETS)
ids = st.integers(1, 5)
some_ids = st.one_of(st.just(frozenset[int]()), st.frozensets(ids, max_size=2))
numbers = st.one_of(st.none(), st.integers(1, 3))
reasons = st.sampled_from(("why", "how"))
operations = st.sampled_from(("disable", "enable", "clear", "seal"))
hints = st.sampled_from((None, 0.0, 30.0, 9000.0))
lanes = st.builds(Lane, kinds, buckets, st.sampled_from((1, 4)))
several_lanes = st.one_of(
    buckets.map(lambda bucket: tuple(Lane(kind, bucket) for kind in KINDS)),
    st.lists(lanes, min_size=1, max_size=3, unique_by=lambda lane: lane.kind).map(tuple),
)
quotas = st.dictionaries(st.sampled_from((*BUCKETS, "*")), numbers, max_size=3)
outcomes = st.builds(Outcome, st.sampled_from(Verdict), reasons, hints)
without_lease = outcomes.filter(lambda outcome: outcome.verdict is not Verdict.SKIP_MODEL)


def policy_of(cap: int) -> PoolPolicy:
    return PoolPolicy(
        max_concurrent=cap,
        max_concurrent_api=cap + 1,
        max_cooldown=5000,
        incident_threshold=2,
        incident_window=60,
    )


class PoolMachine(RuleBasedStateMachine):
    """Rules with ``w`` are about one worker. With two of them, a worker whose step depends on
    what it knows hears of the other's changes first, except where the rule says otherwise:
    then only what Redis itself must guarantee is asked for."""

    leases: Bundle[Held] = Bundle("leases")
    size: ClassVar[int] = 1
    backend_class: ClassVar[type[InMemory] | type[OnRedis]] = InMemory

    def __init__(self) -> None:
        super().__init__()
        self.policy = policy_of(2)
        self.changed: list[dict[int, Entry]] = [{} for _ in range(self.size)]
        notes = [partial(self.note, number) for number in range(self.size)]
        self.backend: Backend = self.backend_class(lambda: self.policy, notes)
        self.model = Model(self.backend.clocks[0], self.policy, self.size)
        self.stored: dict[int, Entry] = {}
        self.next_id = 1

    def note(self, worker: int, entry: Entry) -> None:
        self.changed[worker][entry.id] = entry

    @property
    def now(self) -> float:
        return self.model.clock.now

    def entry(self, worker: int, number: int) -> Entry:
        entry = self.backend.pools[worker].get(number)
        assert entry is not None
        return entry

    @initialize(several=st.lists(st.tuples(kinds, quotas), min_size=1, max_size=3))
    def begin(self, several: list[tuple[str, dict[str, int | None]]]) -> None:
        for kind, quotas in several:
            self.add(kind, quotas)

    @precondition(lambda self: self.next_id <= 5)
    @rule(kind=kinds, quotas=quotas)
    def add(self, kind: str, quotas: dict[str, int | None]) -> None:
        number, self.next_id = self.next_id, self.next_id + 1
        team = "red" if kind == "api" and number != 3 else ""
        views = [View(b"s1", team) for _ in range(self.size)]
        boxes = {bucket: Box(left) for bucket, left in quotas.items()}
        self.model.cards[number] = Card(number, kind, boxes, views)
        self.stored[number] = make_entry(
            number, kind, team_id=team, sealed=b"s1",
            quotas={bucket: Quota(left) for bucket, left in quotas.items()},
        )  # fmt: skip
        for pool in self.backend.pools:
            pool.put(self.fresh(number))

    def fresh(self, number: int) -> Entry:
        """The stored row as a worker reads it."""
        row = self.stored[number]
        return make_entry(
            number, row.kind, active=row.active, team_id=row.team_id, sealed=row.sealed,
            failures=row.failures, resting_until=row.resting_until, disabled=row.disabled,
            invalid_reason=row.invalid_reason, revision=row.revision,
            quotas={b: Quota(q.remaining, q.cooling_until) for b, q in row.quotas.items()},
        )  # fmt: skip

    @rule(number=ids)
    def remove(self, number: int) -> None:
        for pool in self.backend.pools:
            pool.remove(number)
        self.stored.pop(number, None)
        self.model.cards.pop(number, None)

    @rule(seconds=st.sampled_from((0.0, 1.0, 4.0, 5.0, 60.0, 900.0, 30_000.0)))
    def wait(self, seconds: float) -> None:
        for clock in self.backend.clocks:
            clock.now += seconds

    @rule(cap=st.integers(1, 4))
    def change_the_cap(self, cap: int) -> None:
        self.policy = self.model.policy = policy_of(cap)

    @rule(
        target=leases,
        w=workers,
        lanes=several_lanes,
        model=st.sampled_from(MODELS),
        exclude=some_ids,
        only=st.one_of(st.none(), ids),
    )
    def lease(
        self, w: int, lanes: tuple[Lane, ...], model: str, exclude: frozenset[int], only: int | None
    ) -> Held | MultipleResults[Held]:
        """The best credential of the first lane that can serve: most quota first."""
        worker, want = w % self.size, Want(lanes, model, exclude, only)
        self.backend.pull(worker)
        lane, best = self.model.expected(worker, want)
        held = self._lease(worker, want)
        if held is None:
            return multiple()
        assert held.lease.lane == lane
        assert held.lease.credential_id in best
        return held

    def _lease(self, worker: int, want: Want) -> Held | None:
        """Never one that may not be used; refused only when there is none."""
        usable = {
            (lane, card.id)
            for lane in want.lanes
            for card in self.model.cards.values()
            if self.model.may_serve(card, lane, want)
        }
        try:
            lease = self.backend.run(worker, self.backend.pools[worker].lease(want))
        except NoCredential as refused:
            assert not usable, "the pool refused what it could have served"
            assert refused.retry_after is None or refused.retry_after >= 1
            return None
        assert (lease.lane, lease.credential_id) in usable
        return self.model.take(worker, lease)

    @precondition(lambda self: self.size > 1)
    @rule(target=leases, w=workers, lanes=several_lanes, model=st.sampled_from(MODELS))
    def lease_by_old_news(
        self, w: int, lanes: tuple[Lane, ...], model: str
    ) -> Held | MultipleResults[Held]:
        """By the picture it happens to have: perhaps not the best, but always one to be had."""
        return self._lease(w, Want(lanes, model)) or multiple()

    @rule(held=leases, outcome=outcomes)
    def settle(self, held: Held, outcome: Outcome) -> None:
        pool = self.backend.pools[held.worker]
        if held not in self.model.open or held.settled:
            try:
                self.backend.run(held.worker, pool.settle(held.lease, outcome))
            except ValueError:
                return
            raise AssertionError("a lease was settled twice")
        self.backend.pull(held.worker)
        self.backend.run(held.worker, pool.settle(held.lease, outcome))
        self.model.settle(held, outcome)

    @rule(w=workers, lanes=several_lanes, outcome=outcomes)
    def use(self, w: int, lanes: tuple[Lane, ...], outcome: Outcome) -> None:
        """A whole use at once, so that credentials are worn down in few steps."""
        held = self.lease(w, lanes, "m1", frozenset(), None)
        if isinstance(held, Held):
            self.settle(held, outcome)
            self.release(held)

    @rule(held=consumes(leases))
    def release(self, held: Held) -> None:
        if held in self.model.open:
            pool = self.backend.pools[held.worker]
            self.backend.run(held.worker, pool.release(held.lease))
            self.model.release(held)

    @rule(w=workers, number=ids, bucket=buckets, outcome=without_lease)
    def judge(self, w: int, number: int, bucket: str, outcome: Outcome) -> None:
        """An outcome that was learnt without a lease; one that consumes has always had one."""
        worker, card = w % self.size, self.model.cards.get(number)
        if card is None or outcome.verdict in (Verdict.SUCCESS, Verdict.SPENT):
            return
        self.backend.pull(worker)
        pool = self.backend.pools[worker]
        self.backend.run(worker, pool.judge(number, bucket, outcome))
        self.model.judge(worker, card, bucket, "", outcome)

    @rule(
        w=workers,
        number=ids,
        bucket=buckets,
        remaining=st.one_of(st.none(), st.integers(0, 4)),
        seconds=st.sampled_from((10.0, 900.0)),
    )
    def measure(
        self, w: int, number: int, bucket: str, remaining: int | None, seconds: float
    ) -> None:
        worker, card = w % self.size, self.model.cards.get(number)
        if card is None:
            return
        self.backend.pull(worker)
        reading = Reading(remaining, resets_at=self.now + seconds)
        pool = self.backend.pools[worker]
        self.backend.run(worker, pool.measure(number, {bucket: reading}))
        self.model.measure(worker, card, bucket, reading)

    @precondition(lambda self: self.size > 1)
    @rule(target=leases, w=workers, number=ids, bucket=buckets, outcome=without_lease)
    def one_judges_what_the_other_takes(
        self, w: int, number: int, bucket: str, outcome: Outcome
    ) -> Held | MultipleResults[Held]:
        self.backend.pull(1 - w)
        self.judge(w, number, bucket, outcome)
        lanes = tuple(Lane(kind, bucket) for kind in KINDS)
        return self._lease(1 - w, Want(lanes, "m1", only=number)) or multiple()

    @precondition(lambda self: self.size > 1)
    @rule(w=workers, number=ids, what=operations, bucket=buckets, outcome=without_lease)
    def one_reads_what_the_other_judges(
        self, w: int, number: int, what: str, bucket: str, outcome: Outcome
    ) -> None:
        self.operate(number, what)
        self.read(w, number)
        self.judge(1 - w, number, bucket, outcome)

    @rule(w=workers, number=ids, team=st.sampled_from(("red", "blue")))
    def join_team(self, w: int, number: int, team: str) -> None:
        worker, card = w % self.size, self.model.cards.get(number)
        if card is not None:
            self.backend.run(worker, self.backend.pools[worker].join_team(number, team))
            card.views[worker].team = team

    @rule(w=workers)
    def end_incidents(self, w: int) -> None:
        self.backend.pools[w % self.size].end_incidents()
        self.model.end_incidents(w % self.size)

    @rule(w=workers)
    def write(self, w: int) -> None:
        """What the pool says has changed reaches the stored rows, and nothing else does."""
        changed = self.changed[w % self.size]
        for entry in changed.values():
            change = take_changes(entry)
            row = self.stored.get(entry.id)
            if row is not None:
                row.pending_uses += change.uses
                if change.revision == row.revision:
                    self._write(row, change)
        changed.clear()

    def _write(self, row: Entry, change: Change) -> None:
        row.failures = change.columns.get("fail_count", row.failures)
        row.team_id = change.columns.get("team_id", row.team_id)
        if "resting_until" in change.columns:
            moment = change.columns["resting_until"]
            row.resting_until = moment.timestamp() if moment else 0.0
        if change.status is not None and not row.disabled:
            status, row.invalid_reason = change.status
            row.active = status == Status.ACTIVE
        for bucket, taken in change.quotas.items():
            quota = row.quotas.setdefault(bucket, Quota())
            quota.remaining = taken.remaining
            if taken.cooling_until is not None:
                quota.cooling_until = taken.cooling_until
            if quota.remaining == 0 and not quota.cooling_until:
                quota.cooling_until = self.now + SPENT_FOR  # as the roster reads such a row

    @rule(number=ids, what=operations)
    def operate(self, number: int, what: str) -> None:
        """The operator changes the row; no worker has read it yet."""
        row = self.stored.get(number)
        if row is None:
            return
        if what == "seal":
            row.sealed += b"+"
            return
        row.revision += 1
        if what == "disable":
            row.active, row.disabled = False, True
            return
        row.failures, row.resting_until = 0, 0.0
        if what == "enable":
            row.active, row.disabled, row.invalid_reason = True, False, ""
            return
        for bucket, quota in row.quotas.items():
            left = quota.remaining or None
            row.quotas[bucket] = Quota(left)

    @rule(w=workers, number=ids)
    def read(self, w: int, number: int) -> None:
        """Reading a row changes nothing but what the operator has changed in it.

        The first worker to read a change makes it known to all, where they share anything
        about the credential; where they do not, both read it here.
        """
        if number not in self.stored:
            return
        both = number not in self.backend.documents()
        for worker in range(self.size) if both else (w % self.size,):
            self.backend.pull(worker)
            self._read(worker, number)

    def _read(self, worker: int, number: int) -> None:
        entry, row = self.entry(worker, number), self.fresh(number)
        joined = "team_id" in entry.pending_columns
        self.model.read(worker, self.model.cards[number], row, joined=joined)

        async def update() -> None:
            self.backend.pools[worker].update(entry, row)

        self.backend.run(worker, update())

    @rule(w=workers)
    def look(self, w: int) -> None:
        """Having heard of everything, a worker's picture is what the model says."""
        self.backend.pull(w % self.size)
        self._compare(w % self.size)

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        for worker, pool in enumerate(self.backend.pools):
            assert pool.open_leases == sum(held.worker == worker for held in self.model.open)
            assert {entry.id for entry in pool.entries} == set(self.model.cards)
        for card in self.model.cards.values():
            entries = [self.entry(worker, card.id) for worker in range(self.size)]
            waiting = sum(entry.pending_uses for entry in entries)
            assert waiting + self.stored[card.id].pending_uses == card.uses
            for worker, entry in enumerate(entries):
                assert entry.in_flight == sum(held.worker == worker for held in card.held)
        if self.size == 1:
            self._compare(0)

    @invariant()
    def what_is_shared_counts_every_lease_once(self) -> None:
        for number, document in self.backend.documents().items():
            card = self.model.cards.get(number)
            if card is not None:
                assert document["n"] == card.revision
                assert sum(document["m"].values()) == len(card.held)
                for bucket, box in document["b"].items():
                    assert box.get("h", 0) == card.reserved(bucket)
                    assert box.get("q", 0) >= 0

    def _compare(self, worker: int) -> None:
        for card in self.model.cards.values():
            entry, view = self.entry(worker, card.id), card.views[worker]
            assert entry.in_flight + entry.elsewhere == len(card.held)
            assert (entry.active, entry.failures) == (card.active, card.failures)
            assert (entry.doubtful, entry.team_id) == (view.doubtful, view.team)
            assert max(entry.resting_until, self.now) == max(card.rests, self.now)
            for bucket in BUCKETS:
                self._compare_quota(card, entry, bucket)

    def _compare_quota(self, card: Card, entry: Entry, bucket: str) -> None:
        box, quota = card.box(bucket), entry.look(bucket)
        if quota is not None:
            assert quota.reserved >= 0
            assert quota.remaining is None or quota.remaining >= 0
        if box is not None and box.until > self.now:
            assert quota is not None
            assert quota.cooling_until == box.until
        elif box is not None and box.at(self.now) is not None:
            assert quota is not None
            assert quota.remaining == box.left
            assert quota.reserved == card.reserved(bucket)
        elif quota is not None:
            assert quota.cooling_until <= self.now
            assert quota.remaining is None or quota.cooling_until or quota.is_spent()

    def teardown(self) -> None:
        try:
            for held in list(self.model.open):
                self.release(held)
            assert all(pool.open_leases == 0 for pool in self.backend.pools)
            for document in self.backend.documents().values():
                assert not document["m"]
                assert not any(box.get("h") for box in document["b"].values())
        finally:
            self.backend.close()


class OneWorkerOnRedis(PoolMachine):
    backend_class = OnRedis


class TwoWorkersOnRedis(PoolMachine):
    backend_class = OnRedis
    size = 2


def drive(machine: type[PoolMachine], examples: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=profile)


def test_the_pool_in_memory_does_what_its_model_does() -> None:
    drive(PoolMachine, 150)


def test_the_pool_on_redis_does_what_the_same_model_does() -> None:
    REDIS.need()
    drive(OneWorkerOnRedis, 60)


def test_two_workers_on_redis_do_together_what_one_would() -> None:
    REDIS.need()
    drive(TwoWorkersOnRedis, 80)
