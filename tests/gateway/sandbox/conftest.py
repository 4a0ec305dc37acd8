"""A sandbox on a free port and a client that behaves, for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import RunningSandbox, start_sandbox
from tests.gateway.sandbox.calling import Caller


@pytest.fixture
def options() -> SandboxOptions:
    return SandboxOptions(slow_ms=5)


@pytest.fixture
async def sandbox(options: SandboxOptions) -> AsyncIterator[RunningSandbox]:
    running = await start_sandbox(options=options)
    yield running
    await running.stop()


@pytest.fixture
async def caller(sandbox: RunningSandbox) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Caller(session, sandbox.url)
