"""The four ways to an upstream, as settings and as names of credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.sandbox.serve import SandboxThread
from pool.entries import Quota
from tests.gateway.live import LiveGateway

PROTOCOLS: dict[str, dict[str, Any]] = {
    "mgw": {"grok.chat_protocol": "mgw"},
    "rest-mode": {"grok.chat_protocol": "rest", "grok.rest_form": "mode_id"},
    "rest-name": {"grok.chat_protocol": "rest", "grok.rest_form": "model_name"},
    "xai": {"pool.policy": "api_only"},
}
WEB = tuple(name for name in PROTOCOLS if name != "xai")


def token(protocol: str, behaviour: str, number: int = 1) -> str:
    """The name of a credential that behaves so; keys have to look like keys."""
    if protocol == "xai":
        return f"xai-{behaviour}-{number:016d}"
    return f"{behaviour}-{number}"


def serve(
    sandbox: SandboxThread,
    protocol: str,
    behaviours: list[str],
    settings: Mapping[str, Any] | None = None,
) -> LiveGateway:
    """A gateway whose credentials are tried in the order of ``behaviours``."""
    names = [token(protocol, name, number) for number, name in enumerate(behaviours, start=1)]
    merged = PROTOCOLS[protocol] | {"grok.timeout": 1, "xai.timeout": 1} | dict(settings or {})
    gateway = LiveGateway(sandbox, names, settings=merged)
    if protocol == "xai":
        gateway.prepare = rank_keys
    return gateway


def rank_keys(gateway: LiveGateway) -> None:
    """Keys have no quota of their own; give them one, so that the order is known."""
    for entry in gateway.runtime.pool.entries:
        for model in ("grok-4.3", "grok-4.20-0309-reasoning", "grok-4.7"):
            entry.quotas[model] = Quota(1000 - entry.id)
