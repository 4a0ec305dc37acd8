"""What is done with the table of video jobs: claims, steps, ends. Every call blocks.

Whoever works on a job has claimed it, and every step is one conditional UPDATE: it changes
one row or, when the claim was lost or the job is gone, none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from datetime import timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from gateway.videos.jobs import (
    UNDER_WAY,
    UNFINISHED,
    Acceptance,
    Ending,
    Job,
    NewJob,
    Status,
)
from gateway.videos.models import VideoJob
from pool.leadership import DatabaseNow

STALE = 15.0
"""Seconds without a sign of life after which a worker has lost its claims."""
KEPT = timedelta(hours=24)
"""For how long a finished job can be asked about."""
_MAX_WORDS = 255
_FIELDS = tuple(field.name for field in fields(Job))


class UnknownCursor(Exception):
    """The job after which a page should begin is not there."""


class Busy(Exception):
    """A job that is under way is not removed."""


class JobTable:
    """The jobs as ``worker`` sees them; all calls raise django.db.Error."""

    def __init__(self, worker: str, *, stale: float = STALE) -> None:
        self._worker = worker
        self._stale = timedelta(seconds=stale)

    def add(self, new: NewJob) -> Job:
        row = VideoJob(**asdict(new), status=Status.QUEUED, created_at=timezone.now())
        row.save(force_insert=True)
        return _job(row)

    def unfinished(self) -> int:
        """How many jobs wait or run, of all keys."""
        return VideoJob.objects.filter(status__in=UNFINISHED).count()

    def find(self, key_id: int, public_id: str) -> Job | None:
        row = _visible(key_id).filter(public_id=public_id).first()
        return None if row is None else _job(row)

    def page(
        self, key_id: int, after: str, limit: int, *, ascending: bool
    ) -> tuple[list[Job], bool]:
        """At most ``limit`` jobs behind the job ``after`` ("": from the beginning), and
        whether there are more; raises UnknownCursor."""
        rows = _visible(key_id).order_by("id" if ascending else "-id")
        if after:
            last = _visible(key_id).filter(public_id=after).values_list("id", flat=True).first()
            if last is None:
                raise UnknownCursor
            rows = rows.filter(id__gt=last) if ascending else rows.filter(id__lt=last)
        found = [_job(row) for row in rows[: limit + 1]]
        return found[:limit], len(found) > limit

    def remove(self, key_id: int, public_id: str) -> Job | None:
        """Forget a job that has ended or not begun; None when there is none. Raises Busy."""
        job = self.find(key_id, public_id)
        if job is None:
            return None
        idle = Q(status__in=(Status.COMPLETED, Status.FAILED))
        waiting = Q(status=Status.QUEUED) & self._free()
        removed, _ = VideoJob.objects.filter(idle | waiting, id=job.id).delete()
        if removed:
            return job
        if VideoJob.objects.filter(id=job.id).exists():
            raise Busy
        return None

    def claim_waiting(self, limit: int) -> list[Job]:
        """Up to ``limit`` waiting jobs, the oldest first, now this worker's."""
        return self._claim((Status.QUEUED,), limit)

    def claim_orphans(self, limit: int) -> list[Job]:
        """The same of jobs under way whose worker is gone."""
        return self._claim(UNDER_WAY, limit)

    def _claim(self, statuses: Collection[Status], limit: int) -> list[Job]:
        free = VideoJob.objects.filter(self._free(), status__in=statuses).order_by("id")
        found = list(free.values_list("id", "status")[:limit])
        return self._take(found) if found else []

    @transaction.atomic
    def _take(self, found: Iterable[tuple[int, str]]) -> list[Job]:
        """All or, raising, none: what is claimed and not begun would wait to become stale."""
        claimed = []
        for number, status in found:
            own = VideoJob.objects.filter(self._free(), id=number, status=status)
            if own.update(worker=self._worker, heartbeat_at=DatabaseNow()):
                claimed.append(number)
        rows = VideoJob.objects.filter(id__in=claimed, worker=self._worker).order_by("id")
        return [_job(row) for row in rows]

    def _free(self) -> Q:
        over = Q(heartbeat_at__lt=DatabaseNow() - self._stale) | Q(heartbeat_at=None)
        return Q(worker="") | over

    def beat(self, ids: Iterable[int]) -> None:
        """Keep the claims on these jobs."""
        self._own(id__in=list(ids)).update(heartbeat_at=DatabaseNow())

    def let_go(self) -> None:
        """Give up every claim, so that another worker goes on at once."""
        self._own(status__in=UNFINISHED).update(worker="", heartbeat_at=None)

    def submit(self, job_id: int) -> bool:
        """Upstream is about to be asked. False: it is not this worker's to ask."""
        own = self._own(id=job_id, status__in=(Status.QUEUED, Status.SUBMITTING))
        return bool(own.update(status=Status.SUBMITTING, heartbeat_at=DatabaseNow()))

    def accept(self, job_id: int, acceptance: Acceptance) -> bool:
        own = self._own(id=job_id, status__in=UNDER_WAY)
        return bool(own.update(status=Status.RUNNING, accepted=True, **asdict(acceptance)))

    def write_progress(self, percents: Mapping[int, int]) -> None:
        for job_id, percent in percents.items():
            self._own(id=job_id, status__in=UNDER_WAY).update(progress=percent)

    def end(self, job_id: int, ending: Ending) -> bool:
        now = timezone.now()
        values = asdict(ending)
        values["error_message"] = ending.error_message[:_MAX_WORDS]
        if ending.error_code:
            values["status"] = Status.FAILED
        else:
            values |= {"status": Status.COMPLETED, "progress": 100}
        own = self._own(id=job_id, status__in=UNFINISHED)
        changed = own.update(**values, completed_at=now, expires_at=now + KEPT, worker="")
        return bool(changed)

    def verdicts(self, ids: Iterable[int]) -> dict[int, bool | None]:
        """Of each job whether upstream has taken it; None while that is open.

        A job that is gone was removed before it began.
        """
        found: dict[int, bool | None] = dict.fromkeys(ids, False)
        rows = VideoJob.objects.filter(id__in=list(found))
        for number, status, accepted in rows.values_list("id", "status", "accepted"):
            ended = status in (Status.COMPLETED, Status.FAILED)
            found[number] = accepted if ended or accepted else None
        return found

    def prune(self) -> int:
        """Forget the jobs whose time is over; how many."""
        removed, _ = VideoJob.objects.filter(expires_at__lt=timezone.now()).delete()
        return removed

    def _own(self, **conditions: object) -> QuerySet[VideoJob]:
        return VideoJob.objects.filter(worker=self._worker, **conditions)


def _visible(key_id: int) -> QuerySet[VideoJob]:
    gone = Q(expires_at__lt=timezone.now())
    return VideoJob.objects.filter(key_id=key_id).exclude(gone)


def _job(row: VideoJob) -> Job:
    values = {name: getattr(row, name) for name in _FIELDS}
    return Job(**values | {"status": Status(row.status)})
