"""What every test may rely on: no way out of this machine, and services that are said to run."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator

import pytest

from gateway.sandbox.serve import SandboxThread

REQUIRE_SERVICES = os.environ.get("REQUIRE_SERVICES") == "1"


def _refuse_strangers(event: str, args: tuple[object, ...]) -> None:
    """Tests talk to this machine only; an audit hook sees every connect of this process."""
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0]).partition("%")[0]
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise RuntimeError(f"a test tried to connect to {host}")


sys.addaudithook(_refuse_strangers)


def need(available: bool, what: str) -> None:
    """Skip a test whose service is absent, or fail it where services are required."""
    if available:
        return
    if REQUIRE_SERVICES:
        pytest.fail(f"{what} is required here (REQUIRE_SERVICES=1)")
    pytest.skip(f"{what} is not here")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxThread]:
    """One simulated upstream for the whole run; ``sandbox.state`` says what it saw."""
    with SandboxThread() as running:
        yield running
