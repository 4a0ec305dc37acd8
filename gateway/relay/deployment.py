"""How this worker was set up: what the environment says rather than the configuration."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field


def worker_name() -> str:
    """A name that no other worker has or had, on any host."""
    return f"{socket.gethostname()[:32]}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """``redis_url`` "": each worker keeps its own picture. ``limit_table`` is the file in which
    the workers of this host count client keys, "" for one that is alone. ``day_offset`` is
    in minutes east of UTC, for the reset of daily limits.
    """

    version: str = "0"
    redis_url: str = field(default="", repr=False)
    limit_table: str = ""
    day_offset: int = 480
    worker: str = field(default_factory=worker_name)
