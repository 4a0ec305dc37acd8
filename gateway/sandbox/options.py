"""The sandbox's knobs, all with defaults that suit tests and a demonstration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

GrpcTrailer = Literal["header", "frame", "absent"]
MediaProtocol = Literal["both", "current", "legacy"]


@dataclass(slots=True)
class SandboxOptions:
    """What the simulated upstream is like; may be changed while it runs.

    ``seed`` feeds the one Random that orders what upstream leaves unordered.
    ``unknown_behaviour`` is that of a token whose name says nothing. ``slow_ms`` is the
    pause between two tokens of ``slow-*``. ``quota_falls`` off keeps every counter where it
    starts; ``enforce_quota`` answers 429 once a counter is at 0. ``grpc_trailer`` says where
    a gRPC status travels. ``media_protocol`` refuses the other generation's media calls
    (upstream-web, table of generations). ``statsig_id`` is the only ``x-statsig-id`` that may
    arrive, None for none at all. ``video_polls`` answers of 202 precede a finished video.
    ``keep_requests`` bounds how many requests are remembered.
    """

    seed: int = 0
    unknown_behaviour: str = "unknown"
    slow_ms: float = 50.0
    quota_falls: bool = True
    enforce_quota: bool = False
    grpc_trailer: GrpcTrailer = "frame"
    media_protocol: MediaProtocol = "both"
    statsig_id: str | None = None
    video_polls: int = 1
    keep_requests: int = 2000
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
