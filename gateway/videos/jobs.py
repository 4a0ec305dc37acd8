"""A video job as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """QUEUED -> SUBMITTING -> RUNNING -> COMPLETED, or FAILED from any of the first three.

    From SUBMITTING on upstream may be at work, so such a job is never submitted again.
    RUNNING means that upstream has taken it.
    """

    QUEUED = "queued"
    SUBMITTING = "submitting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


UNDER_WAY = (Status.SUBMITTING, Status.RUNNING)
UNFINISHED = (Status.QUEUED, *UNDER_WAY)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client has asked for. ``key_id`` 0 is the global key.

    ``hd`` asks for 720 lines instead of 480, ``size`` repeats the client's own word,
    ``input_name`` names the first frame in the cache, "" for none.
    """

    public_id: str
    key_id: int
    key_name: str
    model: str
    prompt: str
    ratio: str
    seconds: int
    size: str
    hd: bool
    preset: str
    input_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """``id`` orders jobs by age. ``upstream`` is "web", "api" or "" before one has taken it;
    ``video_name`` and ``poster_name`` are files of the cache."""

    id: int
    status: Status
    progress: int
    accepted: bool
    created_at: datetime
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    upstream: str = ""
    credential_id: int | None = None
    upstream_id: str = ""
    poster_url: str = ""
    video_name: str = ""
    poster_name: str = ""
    note: str = ""
    error_code: str = ""
    error_message: str = ""

    def __repr__(self) -> str:
        return f"Job({self.public_id}, {self.status})"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Who has taken a job, and under which name it is asked about there ("": none yet)."""

    upstream: str
    credential_id: int
    upstream_id: str = ""
    poster_url: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: with files of the cache, or with ``error_code`` and its message.

    ``accepted`` False: upstream has certainly not taken it, so that it costs nothing.
    """

    video_name: str = ""
    poster_name: str = ""
    note: str = ""
    error_code: str = ""
    error_message: str = ""
    accepted: bool = True
