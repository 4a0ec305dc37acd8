"""What the sandbox remembers: requests, violations, disconnects, accounts, media, keys."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import WebAccount, open_account
from gateway.sandbox.behaviours import Behaviour, behaviour_of
from gateway.sandbox.options import SandboxOptions

MAX_ASSETS = 10_000


@dataclass(slots=True, repr=False)
class RecordedRequest:
    """One request as it came in, secrets included; ``frames`` are a socket's client frames.

    ``status`` is that of the answer, None until there is one; ``at`` is the clock's time.
    ``settled`` means that nothing is owed any more, so that the client may leave.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    token: str
    at: float
    body: bytes = b""
    status: int | None = None
    frames: list[Any] = field(default_factory=list)
    settled: bool = False

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of upstream-web or upstream-xai that a request broke."""

    rule: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client closed before its answer was complete; times are the clock's."""

    path: str
    token: str = field(repr=False)
    started_at: float
    at: float


@dataclass(slots=True, repr=False)
class Asset:
    """A private file; only its owner's cookie may fetch it. ``asked`` counts downloads."""

    asset_id: str
    owner: str
    content: bytes
    content_type: str
    name: str
    asked: int = 0


@dataclass(slots=True, repr=False)
class SandboxState:
    """Everything a test may ask about, and what the simulated services hold."""

    options: SandboxOptions
    counters: Counter[str] = field(default_factory=Counter)
    requests: deque[RecordedRequest] = field(default_factory=deque)
    violations: list[Violation] = field(default_factory=list)
    disconnects: list[Disconnect] = field(default_factory=list)
    open_streams: int = 0
    closing: bool = False
    accounts: dict[str, WebAccount] = field(default_factory=dict)
    assets: OrderedDict[str, Asset] = field(default_factory=OrderedDict)
    request_ids: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    stored_responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    videos: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    random: random.Random = field(init=False)
    _ids: itertools.count[int] = field(init=False)

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.random = random.Random(self.options.seed)  # noqa: S311  # repeatable, no secret
        self._ids = itertools.count(1)
        self.requests = deque(maxlen=self.options.keep_requests)

    def reset(self) -> None:
        """Forget everything but the options and what is in flight."""
        for kept in (
            self.counters,
            self.violations,
            self.disconnects,
            self.accounts,
            self.assets,
            self.request_ids,
            self.stored_responses,
            self.videos,
            self.keys,
            self.secrets,
        ):
            kept.clear()
        self._start()

    def next_id(self, prefix: str) -> str:
        """An id not given out since the start or the last reset."""
        return f"{prefix}-{next(self._ids)}"

    def next_uuid(self) -> str:
        """A UUID of the seeded Random."""
        bits = f"{self.random.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-8{bits[17:20]}-{bits[20:]}"

    def violate(self, rule: str, path: str, detail: str = "") -> None:
        """Note a broken rule; the answer goes on."""
        self.violations.append(Violation(rule, path, detail))

    def behaviour(self, token: str) -> Behaviour:
        return behaviour_of(token, self.options.unknown_behaviour)

    def account(self, token: str) -> WebAccount:
        """The web account of a cookie, opened on first sight."""
        found = self.accounts.get(token)
        if found is None:
            found = self.accounts[token] = open_account(token, self.behaviour(token))
        return found

    def spend(self, account: WebAccount, bucket: str, amount: int = 1) -> None:
        """A call was served: its counter falls."""
        if self.options.quota_falls:
            account.spend(bucket, amount, self.options.now())

    def put_asset(self, path: str, asset: Asset) -> None:
        """Keep a private file under its path; the oldest goes when there are too many."""
        self.assets[path] = asset
        if len(self.assets) > MAX_ASSETS:
            self.assets.popitem(last=False)

    def requests_to(self, path: str) -> list[RecordedRequest]:
        """The remembered requests to one path, oldest first."""
        return [request for request in list(self.requests) if request.path == path]


STATE: web.AppKey[SandboxState] = web.AppKey("sandbox_state", SandboxState)
