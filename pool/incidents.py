"""Noticing that an error is upstream's and not the credentials' (design "The pool")."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pool.outcomes import Verdict
from pool.policy import PoolPolicy

logger = logging.getLogger(__name__)

BLAMING = frozenset({Verdict.RETIRE, Verdict.COOL_CREDENTIAL, Verdict.BACK_OFF, Verdict.PAUSE})
"""A used-up bucket is not among them: each account has its own, and upstream keeps count."""
MAX_REMEMBERED = 1000
"""Credentials kept per error; far more than any threshold that still makes sense."""


@dataclass(slots=True)
class OpenIncident:
    """``hit`` are the credentials that failed, ``last_seen`` is a Unix time."""

    reason: str
    since: float
    last_seen: float
    hit: set[int] = field(default_factory=set)


class IncidentWatch:
    """Counts, per error, the different credentials it hit within the window.

    Times are Unix seconds. An incident ends by itself after a window without that error.
    """

    def __init__(self) -> None:
        self._hits: dict[str, dict[int, float]] = defaultdict(dict)
        self._open: dict[str, OpenIncident] = {}
        self._recovered: set[int] = set()
        self._window = PoolPolicy().incident_window

    @property
    def window(self) -> float:
        """Seconds without the error after which an incident is over."""
        return self._window

    def open(self, now: float) -> list[OpenIncident]:
        """Those that last, oldest first."""
        self._close_old(now)
        return list(self._open.values())

    def failed(self, reason: str, credential_id: int, now: float, policy: PoolPolicy) -> set[int]:
        """Note a blaming error; the credentials to forgive, when it makes an incident."""
        self._window = policy.incident_window
        self._close_old(now)
        if (incident := self._open.get(reason)) is not None:
            incident.last_seen = max(incident.last_seen, now)
            if len(incident.hit) < MAX_REMEMBERED:
                incident.hit.add(credential_id)
            return set()
        if not policy.incident_threshold:
            return set()
        hits = self._recent(reason, now)
        hits.pop(credential_id, None)
        hits[credential_id] = now
        if len(hits) < policy.incident_threshold:
            return set()
        self._declare(OpenIncident(reason, now, now, set(hits)))
        return self._open[reason].hit - {credential_id}

    def is_open(self, reason: str) -> bool:
        return reason in self._open

    def join(self, reason: str, since: float, last_seen: float, now: float) -> None:
        """Take over what another worker saw."""
        incident = self._open.get(reason)
        if incident is not None:
            incident.last_seen = max(incident.last_seen, last_seen)
        elif last_seen + self._window > now:
            self._declare(OpenIncident(reason, since, last_seen))

    def take_recovered(self, now: float) -> Iterable[int]:
        """The credentials of incidents that have ended since the last call."""
        self._close_old(now)
        recovered, self._recovered = self._recovered, set()
        return recovered

    def _recent(self, reason: str, now: float) -> dict[int, float]:
        """Who was hit within the window; entries are in the order of their times."""
        hits = self._hits[reason]
        while hits:
            oldest = next(iter(hits))
            if hits[oldest] > now - self._window and len(hits) < MAX_REMEMBERED:
                break
            del hits[oldest]
        return hits

    def _declare(self, incident: OpenIncident) -> None:
        self._open[incident.reason] = incident
        self._hits.pop(incident.reason, None)
        logger.warning(
            "upstream incident: %s hit %d credentials, penalties for it pause",
            incident.reason,
            len(incident.hit),
        )

    def _close_old(self, now: float) -> None:
        for incident in list(self._open.values()):
            if incident.last_seen + self._window <= now:
                del self._open[incident.reason]
                self._recovered |= incident.hit
                logger.info("the incident is over: %s", incident.reason)
