"""One gateway per test module, with a credential of every kind, and one HTTP client."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.reading import configured
from tests.gateway.live import LiveGateway
from tests.gateway.protocols import PROTOCOLS

CREDENTIALS = ("ok-1", "ok-super-2", "xai-ok-0000000000000003")


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    settings = {"models.aliases": {"gpt-4o": "grok-4"}, "server.max_body_mb": 12}
    with LiveGateway(sandbox, CREDENTIALS, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest, gateway: LiveGateway) -> Iterator[str]:
    """The module's gateway speaks this protocol for the time of the test."""
    name: str = request.param
    with configured(PROTOCOLS[name]):
        yield name
