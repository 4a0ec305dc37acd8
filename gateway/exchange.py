"""What is remembered of one request, from its acceptance to its end. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class End(StrEnum):
    """How a request ended.

    COMPLETED    the whole answer, with its terminal event
    REFUSED      before any upstream was asked: bad input, a limit, no credential
    FAILED       upstream failed before the answer had begun
    BROKEN       the answer broke off after it had begun
    CLIENT_GONE  the client went away
    STOPPED      the service stopped meanwhile
    """

    COMPLETED = "completed"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN = "broken"
    CLIENT_GONE = "client_gone"
    STOPPED = "stopped"


TokenSource = Literal["measured", "estimated", ""]


@dataclass(slots=True)
class Attempt:
    """One credential tried. ``left`` is the error class it was left for, "" if it served.

    ``upstream`` is "web" or "api", ``row`` the row of the error table, ``status`` that of
    upstream's HTTP answer, ``seconds`` how long the attempt took until it was left or began
    to answer.
    """

    credential_id: int
    hint: str
    kind: str
    upstream: str
    bucket: str
    left: str = ""
    row: int | str | None = None
    status: int | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Exchange:
    """``started_at`` is Unix time; ``first_event`` and ``duration`` are seconds since then.

    ``operation`` names the route ("chat"), ``model`` is the public id. ``status`` is the
    HTTP status the client got, 0 when it got none. Token counts None: upstream told none
    and nothing was estimated. ``error_code`` is the envelope's code, "" for none,
    ``traceparent`` the W3C header that came with the request.
    """

    id: str
    operation: str
    started_at: float
    key_id: int
    key_name: str
    model: str = ""
    streaming: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    end: End = End.REFUSED
    status: int = 0
    error_code: str = ""
    first_event: float | None = None
    duration: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens: TokenSource = ""
    bytes_in: int = 0
    bytes_out: int = 0
    traceparent: str = ""

    @property
    def served_by(self) -> Attempt | None:
        """The attempt that answered, or else the last one."""
        return self.attempts[-1] if self.attempts else None
