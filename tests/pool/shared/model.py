"""What a pool of any number of workers should do: no index, it looks at everything, every time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pool.entries import Entry
from pool.leases import Lane, Lease, Reading, Want
from pool.outcomes import Outcome, Verdict
from pool.policy import PoolPolicy
from tests.pool.samples import Clock

CONSUMING = (Verdict.SUCCESS, Verdict.SPENT)
TEAM_WIDE = (Verdict.COOL_BUCKET, Verdict.COOL_TEAM)
BLAMING = (Verdict.RETIRE, Verdict.COOL_CREDENTIAL, Verdict.BACK_OFF, Verdict.PAUSE)


@dataclass
class Box:
    """One bucket: what is left (None: unknown), and until when it cools."""

    left: int | None
    until: float = 0.0

    def at(self, now: float) -> int | None:
        return None if 0 < self.until <= now else self.left


@dataclass
class View:
    """What only one worker knows of a credential."""

    sealed: bytes
    team: str
    revision: int = 0
    disabled: bool = False
    doubtful: bool = False
    last_reason: str = ""


@dataclass
class Card:
    """One credential; ``revision`` is the newest of the operator's that any worker has read."""

    id: int
    kind: str
    boxes: dict[str, Box]
    views: list[View]
    active: bool = True
    reason: str = ""
    revision: int = 0
    rests: float = 0.0
    failures: int = 0
    uses: int = 0
    skips: dict[str, float] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    gone: bool = False

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

    def is_usable(self, bucket: str, model: str, now: float, cap: int) -> bool:
        box = self.box(bucket)
        left = box.at(now) if box else None
        waits = max(self.rests, self.skips.get(model, 0.0), box.until if box else 0.0) > now
        return self.active and len(self.held) < cap and not waits and left != 0

    def rank(self, worker: int, bucket: str, now: float) -> float:
        if self.views[worker].doubtful:
            return -1
        box = self.box(bucket)
        left = box.at(now) if box else None
        if left is None:
            return 1e9 if bucket == "heavy" else 0.5
        return left


@dataclass
class Held:
    """An open lease of ``worker``; ``taken`` is what it reserved."""

    worker: int
    lease: Lease
    card: Card
    taken: int
    sealed: bytes
    settled: bool = False


@dataclass
class Happening:
    """An upstream incident as one worker sees it."""

    last: float
    hit: set[int]


class Incidents:
    """One worker's count of who failed why."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str, int]] = []
        self.open: dict[str, Happening] = {}
        self.recovered: set[int] = set()

    def close_old(self, now: float, window: float) -> None:
        for reason, incident in list(self.open.items()):
            if incident.last + window <= now:
                self.recovered |= self.open.pop(reason).hit

    def failed(self, reason: str, number: int, now: float, policy: PoolPolicy) -> set[int]:
        """The credentials to forgive because of this failure."""
        self.close_old(now, policy.incident_window)
        if reason in self.open:
            self.open[reason].last = now
            self.open[reason].hit.add(number)
            return set()
        self.log.append((now, reason, number))
        since = now - policy.incident_window
        hit = {i for t, why, i in self.log if why == reason and t > since}
        if not 0 < policy.incident_threshold <= len(hit):
            return set()
        self.log = [line for line in self.log if line[1] != reason]
        self.open[reason] = Happening(now, hit)
        return hit - {number}


class Model:
    """``policy`` may be changed at any time."""

    def __init__(self, clock: Clock, policy: PoolPolicy, workers: int) -> None:
        self.clock = clock
        self.policy = policy
        self.workers = workers
        self.cards: dict[int, Card] = {}
        self.open: list[Held] = []
        self.incidents = [Incidents() for _ in range(workers)]

    def expected(self, worker: int, want: Want) -> tuple[Lane | None, set[int]]:
        """The lane that serves ``want``, and the credentials that may be chosen there."""
        for lane in want.lanes:
            ranks = {
                card.id: card.rank(worker, lane.bucket, self.clock.now)
                for card in self.cards.values()
                if self.may_serve(card, lane, want)
            }
            if ranks:
                return lane, {c for c, rank in ranks.items() if rank == max(ranks.values())}
        return None, set()

    def may_serve(self, card: Card, lane: Lane, want: Want) -> bool:
        return (
            card.kind == lane.kind
            and card.id not in want.exclude
            and want.only in (None, card.id)
            and card.is_usable(lane.bucket, want.model, self.clock.now, self.policy.cap(card.kind))
        )

    def take(self, worker: int, lease: Lease) -> Held:
        card, lane = self.cards[lease.credential_id], lease.lane
        held = Held(worker, lease, card, 0, card.views[worker].sealed)
        seen = card.box(lane.bucket)
        left = seen.at(self.clock.now) if seen else None
        if left is not None:
            held.taken = min(lane.cost, left)
            own = card.own(lane.bucket)
            own.left, own.until = left - held.taken, 0.0
        card.held.append(held)
        self.open.append(held)
        return held

    def give_back(self, held: Held) -> None:
        box = held.card.boxes.get(held.lease.lane.bucket)
        if box and box.at(self.clock.now) is not None and box.left is not None:
            box.left += held.taken

    def settle(self, held: Held, outcome: Outcome) -> None:
        held.settled = True
        card, view = held.card, held.card.views[held.worker]
        if outcome.verdict in CONSUMING:
            card.uses += 1
            self._consume(held)
        else:
            self.give_back(held)
            if held.sealed != view.sealed:
                return
        self.judge(held.worker, card, held.lease.lane.bucket, held.lease.model, outcome)

    def _consume(self, held: Held) -> None:
        bucket = held.lease.lane.bucket
        box = held.card.boxes.get(bucket)
        if box is None or box.left is None or box.until:
            return
        if box.left + held.card.reserved(bucket) == 0:
            box.until = self.clock.now + self.policy.bucket_cooldown

    def judge(self, worker: int, card: Card, bucket: str, model: str, outcome: Outcome) -> None:
        view, verdict = card.views[worker], outcome.verdict
        if verdict is Verdict.SUCCESS:
            view.doubtful = False
            if self._has_read(worker, card):
                card.failures = 0
        if verdict in CONSUMING or self._is_upstreams(worker, card, outcome):
            return
        peers = self._peers(worker, card) if verdict in TEAM_WIDE else [card]
        for peer in peers:
            if verdict not in (Verdict.NEUTRAL, Verdict.SKIP_MODEL):
                peer.views[worker].last_reason = outcome.reason
            if self._has_read(worker, peer):
                self._punish(peer, bucket, model, outcome)

    def _has_read(self, worker: int, card: Card) -> bool:
        """Who has not read the operator's last change cannot judge what came of it."""
        return card.views[worker].revision == card.revision

    def _is_upstreams(self, worker: int, card: Card, outcome: Outcome) -> bool:
        """Whether it belongs to an incident, of which those hit before are forgiven now."""
        if outcome.verdict not in BLAMING:
            return False
        watch, reason = self.incidents[worker], outcome.reason
        for number in watch.failed(reason, card.id, self.clock.now, self.policy):
            if number in self.cards:
                self._forgive(worker, self.cards[number], reason)
        if reason in watch.open:
            card.views[worker].doubtful = True
        return reason in watch.open

    def _forgive(self, worker: int, card: Card, reason: str) -> None:
        view = card.views[worker]
        view.doubtful = True
        if not self._has_read(worker, card):
            return
        if not card.active and not view.disabled and card.reason == reason:
            card.active, card.reason = True, ""
        if view.last_reason == reason:
            card.rests, card.failures = 0.0, 0

    def _peers(self, worker: int, card: Card) -> Iterable[Card]:
        team = card.views[worker].team
        others = [c for c in self.cards.values() if team and c.views[worker].team == team]
        return [card, *(other for other in others if other is not card)]

    def _punish(self, card: Card, bucket: str, model: str, outcome: Outcome) -> None:
        now, hint, policy = self.clock.now, outcome.retry_after, self.policy
        match outcome.verdict:
            case Verdict.RETIRE:
                card.active, card.reason = False, outcome.reason
                card.failures += 1
            case Verdict.COOL_BUCKET:
                box = card.own(bucket)
                seconds = 900 if hint is None else min(max(hint, 1), policy.max_cooldown)
                box.left, box.until = 0, max(box.until, now + seconds)
            case Verdict.COOL_CREDENTIAL | Verdict.COOL_TEAM:
                seconds = min(max(21600 if hint is None else hint, 1), policy.max_cooldown)
                card.rests = max(card.rests, now + seconds)
            case Verdict.BACK_OFF:
                card.failures += 1
                pause = min(2 * 2 ** (card.failures - 1), 300)
                pause = 300 if card.failures >= policy.fail_threshold else pause
                card.rests = max(card.rests, now + max(pause, min(hint or 0, policy.max_cooldown)))
            case Verdict.PAUSE:
                card.rests = max(card.rests, now + 5)
            case Verdict.SKIP_MODEL:
                card.skips[model] = now + 21600
            case verdict:
                assert verdict is Verdict.NEUTRAL

    def measure(self, worker: int, card: Card, bucket: str, reading: Reading) -> None:
        if reading.remaining is None or not self._has_read(worker, card):
            return
        box = card.own(bucket)
        box.left = max(0, reading.remaining - card.reserved(bucket))
        box.until = (reading.resets_at or 0.0) if reading.remaining <= 0 else 0.0

    def release(self, held: Held) -> None:
        self.open.remove(held)
        if not held.settled:
            self.give_back(held)
        held.card.held.remove(held)

    def end_incidents(self, worker: int) -> None:
        watch = self.incidents[worker]
        watch.close_old(self.clock.now, self.policy.incident_window)
        recovered, watch.recovered = watch.recovered, set()
        for number in recovered & self.cards.keys():
            self.cards[number].views[worker].doubtful = False

    def read(self, worker: int, card: Card, row: Entry, *, joined: bool) -> None:
        """``worker`` reads the stored row; ``joined``: it has a team to write there."""
        view = card.views[worker]
        view.sealed = row.sealed
        view.team = view.team if joined else row.team_id
        if row.revision <= view.revision:
            return
        view.revision, view.disabled, view.doubtful = row.revision, row.disabled, False
        if row.revision > card.revision:
            self._obey(card, row)

    def _obey(self, card: Card, row: Entry) -> None:
        """All that was learnt before the operator's change is void."""
        card.revision = row.revision
        card.active, card.reason = row.active, row.invalid_reason
        card.failures, card.rests, card.skips = row.failures, row.resting_until, {}
        boxes = {bucket: Box(None) for bucket in card.boxes if card.reserved(bucket)}
        for bucket, quota in row.quotas.items():
            left = quota.remaining
            boxes[bucket] = Box(
                None if left is None else max(0, left - card.reserved(bucket)),
                quota.cooling_until,
            )
        card.boxes = boxes
