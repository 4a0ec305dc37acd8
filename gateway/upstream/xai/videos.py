"""Videos of api.x.ai: jobs that are started once and asked after (upstream-xai 8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.upstream.bodies import FilePiece, StreamedBody
from gateway.upstream.errors import (
    ContentRefused,
    RequestRejected,
    UpstreamError,
    UpstreamFailed,
    UpstreamIncomplete,
)
from gateway.upstream.requests import VideoRequest
from gateway.upstream.taxonomy import classify_xai
from gateway.upstream.values import percentage
from gateway.upstream.xai.images import cost_of, data_uri_object, encode

START_PATH = "/v1/videos/generations"
JOB_PATH = "/v1/videos/"
RATIOS = frozenset({"1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"})
RESOLUTIONS = frozenset({"480p", "720p", "1080p"})
LONGEST = 15
_JOB_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}", re.ASCII)
_STATUS_OF_CODE = {
    "invalid_argument": 400,
    "failed_precondition": 400,
    "permission_denied": 403,
    "internal_error": 500,
    "service_unavailable": 503,
}

JobStatus = Literal["pending", "done", "failed", "expired"]


@dataclass(frozen=True, slots=True)
class VideoJob:
    """A job as upstream described it.

    ``url`` and ``seconds`` are there when it is done, ``error`` when it failed, expired or
    was blocked by moderation: it carries ``maybe_accepted``, since the job was taken.
    """

    status: JobStatus
    percent: int = 0
    url: str = ""
    seconds: float | None = None
    error: UpstreamError | None = None
    extra: dict[str, str] = field(default_factory=dict)


def start_body(request: VideoRequest, model: str) -> bytes | StreamedBody:
    """The JSON body, its first frame as a data URI read from disk while it is sent.

    Raises RequestRejected for what api.x.ai does not take.
    """
    if request.ratio and request.ratio not in RATIOS:
        raise _rejected("The upstream makes no video in this aspect ratio.")
    if request.resolution not in RESOLUTIONS:
        raise _rejected("The upstream makes no video in this resolution.")
    if not 1 <= request.seconds <= LONGEST:
        raise _rejected(f"The upstream makes videos of 1 to {LONGEST} seconds.")
    optional = {
        "prompt": request.prompt,
        "aspect_ratio": request.ratio,
        "user": request.user,
    }
    head = encode(
        {
            "model": model,
            "duration": request.seconds,
            "resolution": request.resolution,
            **{name: value for name, value in optional.items() if value},
        }
    )
    if request.image is None:
        return head
    opening: bytes | FilePiece = head[:-1] + b',"image":'
    return StreamedBody((opening, *data_uri_object(request.image), b"}"))


def _rejected(message: str) -> RequestRejected:
    return RequestRejected(message, row="xai-400")


def read_ticket(reply: Mapping[str, Any]) -> str:
    """The job's id. Raises UpstreamFailed where there is none to ask after."""
    job_id = reply.get("request_id")
    if not isinstance(job_id, str) or not is_job_id(job_id):
        raise UpstreamFailed(row=12, evidence="a job without an id")
    return job_id


def is_job_id(value: str) -> bool:
    """Whether ``value`` is safe as the last part of a path."""
    return bool(_JOB_ID.fullmatch(value)) and value.strip(".") != ""


def read_job(status: int, reply: Mapping[str, Any], allowed: Callable[[object], str]) -> VideoJob:
    """What a job's description says; ``status`` is the HTTP status beside it.

    ``allowed`` returns an address if its host is one of upstream's, else nothing. A word
    we do not know is taken for one of a job that is not done yet.
    """
    said = reply.get("status")
    if said == "failed":
        return VideoJob("failed", error=_taken(_failure(reply.get("error"))))
    if said == "expired":
        gone = UpstreamIncomplete("The video is no longer there.", row=14, evidence="expired")
        return VideoJob("expired", error=_taken(gone))
    if said == "done":
        return _done(reply, allowed)
    if status == 202 or isinstance(said, str):
        return VideoJob("pending", percentage(reply.get("progress")))
    return VideoJob("failed", error=_taken(UpstreamFailed(row=12, evidence="a job of no status")))


def _done(reply: Mapping[str, Any], allowed: Callable[[object], str]) -> VideoJob:
    video = reply.get("video")
    video = video if isinstance(video, dict) else {}
    if video.get("respect_moderation") is False:
        refused = ContentRefused(row=7, evidence="the video was moderated")
        return VideoJob("failed", error=_taken(refused), extra=cost_of(reply))
    url = allowed(video.get("url"))
    if not url:
        missing = UpstreamIncomplete(row=14, evidence="no video address")
        return VideoJob("failed", error=_taken(missing), extra=cost_of(reply))
    return VideoJob("done", 100, url, _seconds(video.get("duration")), extra=cost_of(reply))


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        return None
    return float(value)


def _failure(error: object) -> UpstreamError:
    """The verdict on a failed job; moderation shows in its words only."""
    fields = error if isinstance(error, Mapping) else {"message": error}
    body = {"error": dict(fields)}
    refused = classify_xai(403, body)
    if isinstance(refused, ContentRefused):
        return refused
    code = fields.get("code")
    named = _STATUS_OF_CODE.get(code.lower(), 500) if isinstance(code, str) else 500
    return classify_xai(named, body)


def _taken(error: UpstreamError) -> UpstreamError:
    """The job was accepted, so nothing may submit it again."""
    error.maybe_accepted = True
    error.retry = False
    return error
