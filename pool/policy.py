"""The pool's tunable numbers, handed in by whoever reads the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """Times are in seconds.

    ``bucket_cooldown`` applies to a spent bucket when upstream names no time (upstream-web
    section 12, row 5), ``balance_cooldown`` to an empty account (row 6), ``pause`` to network
    trouble (row 13); ``back_off`` doubles per consecutive upstream failure up to
    ``back_off_max`` (row 12). After ``fail_threshold`` such failures a credential is worth a
    check. ``incident_threshold`` credentials (0: never) with the same error within
    ``incident_window`` are an incident.
    """

    max_concurrent: int = 4
    max_concurrent_api: int = 64
    max_cooldown: float = 86_400.0
    bucket_cooldown: float = 900.0
    balance_cooldown: float = 6 * 3600.0
    pause: float = 5.0
    back_off: float = 2.0
    back_off_max: float = 300.0
    skip_model: float = 6 * 3600.0
    fail_threshold: int = 5
    incident_threshold: int = 0
    incident_window: float = 60.0

    def cap(self, kind: str) -> int:
        return self.max_concurrent_api if kind == "api" else self.max_concurrent
