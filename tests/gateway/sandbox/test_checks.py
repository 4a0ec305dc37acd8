"""What is noted against a client that does not behave."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import GEN2, Caller

CHAT = "/rest/app-chat/conversations/new"


async def rules(
    caller: Caller, sandbox: RunningSandbox, drop: str = "", **headers: str
) -> list[tuple[str, str]]:
    head = {**caller.web_headers("ok-1"), "x-xai-request-id": str(uuid.uuid4()), **headers}
    head.pop(drop, None)
    skip = {"User-Agent"} if drop == "User-Agent" else set()
    body: dict[str, Any] = {**GEN2, "message": "hi"}
    async with caller.session.post(
        sandbox.url + CHAT, json=body, headers=head, skip_auto_headers=skip
    ) as response:
        assert response.status == 200
        await response.read()
    return [(violation.rule, violation.detail) for violation in sandbox.state.violations]


async def test_a_good_request_is_clean(caller: Caller, sandbox: RunningSandbox) -> None:
    assert await rules(caller, sandbox) == []


@pytest.mark.parametrize("name", ["Origin", "User-Agent", "x-xai-request-id"])
async def test_a_missing_header_is_noted(
    caller: Caller, sandbox: RunningSandbox, name: str
) -> None:
    assert await rules(caller, sandbox, drop=name) == [("missing-header", name)]


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ({"Origin": "https://example.org"}, "wrong-header"),
        ({"Authorization": "Bearer xai-ok-1"}, "key-leak"),
        ({"Sec-Fetch-Mode": "cors"}, "forged-header"),
        ({"Sec-CH-UA": "x"}, "forged-header"),
        ({"x-statsig-id": "made-up"}, "unexpected-statsig-id"),
    ],
)
async def test_a_wrong_header_is_noted(
    caller: Caller, sandbox: RunningSandbox, headers: dict[str, str], rule: str
) -> None:
    found = await rules(caller, sandbox, **headers)
    assert [name for name, _ in found] == [rule]


async def test_the_operators_own_statsig_id_is_fine(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    sandbox.state.options.statsig_id = "theirs"
    assert await rules(caller, sandbox, **{"x-statsig-id": "theirs"}) == []
    assert sandbox.state.requests[-1].headers["x-statsig-id"] == "theirs"


async def test_a_request_id_is_used_once(caller: Caller, sandbox: RunningSandbox) -> None:
    fixed = {"x-xai-request-id": str(uuid.uuid4())}
    await rules(caller, sandbox, **fixed)
    found = await rules(caller, sandbox, **fixed)
    assert [name for name, _ in found] == ["stale-request-id"]


async def test_a_referer_is_needed_elsewhere(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.web_get("ok-1", "/api/auth/session", "/imagine"):
        pass
    assert sandbox.state.violations[0].rule == "wrong-header"


async def test_a_cookie_on_the_api_is_noted(caller: Caller, sandbox: RunningSandbox) -> None:
    headers = {"Authorization": "Bearer xai-ok-1", "Cookie": "sso=ok-1"}
    async with caller.session.get(sandbox.url + "/v1/models", headers=headers) as reply:
        assert reply.status == 200
    assert sandbox.state.violations[0].rule == "cookie-leak"


async def test_cloudflare_cookies_stay_off_the_accounts_host(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    cookie = "sso=ok-1; sso-rw=ok-1; cf_clearance=mine"
    path = "/auth_mgmt.AuthManagement/SetTosAcceptedVersion"
    headers = caller.web_headers("ok-1", "/accept-tos", Cookie=cookie)
    async with caller.session.post(sandbox.url + path, data=b"", headers=headers):
        pass
    assert ("cookie-leak", "cf_clearance") in [
        (violation.rule, violation.detail) for violation in sandbox.state.violations
    ]
