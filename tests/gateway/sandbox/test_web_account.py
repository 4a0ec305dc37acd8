"""Session, quotas and account settings of grok.com."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sandbox.accounts import user_id_of
from gateway.sandbox.grpc_web import EMPTY, TOS_ACCEPT, nsfw_control, trailer
from gateway.sandbox.options import GrpcTrailer
from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import GEN1, Caller

TOS = "/auth_mgmt.AuthManagement/SetTosAcceptedVersion"
CONTROLS = "/auth_mgmt.AuthManagement/UpdateUserFeatureControls"
CREDITS = "/grok_api_v2.GrokBuildBilling/GetGrokCreditsConfig"


async def limits(caller: Caller, token: str, **body: str) -> dict[str, Any]:
    async with caller.web_post(token, "/rest/rate-limits", body) as reply:
        assert reply.status == 200
        found: dict[str, Any] = await reply.json()
        return found


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    async with caller.web_get("ok-1", "/api/auth/session") as reply:
        body = await reply.json()
    assert body["status"] == "authenticated"
    assert body["session"]["userId"] == user_id_of("ok-1")
    assert sandbox.state.violations == []


@pytest.mark.parametrize(
    ("token", "status", "word"),
    [
        ("expired-1", 401, None),
        ("blocked-1", 200, "blocked"),
        ("unauthenticated-1", 200, "unauthenticated"),
    ],
)
async def test_the_session_tells_dead_accounts_apart(
    caller: Caller, token: str, status: int, word: str | None
) -> None:
    async with caller.web_get(token, "/api/auth/session") as reply:
        assert reply.status == status
        assert (await reply.json()).get("status") == word


@pytest.mark.parametrize(
    ("token", "auto", "fast", "window"),
    [
        ("ok-1", 20, 30, 86400),
        ("ok-super-1", 50, 140, 7200),
        ("slow-heavy-1", 150, 400, 7200),
    ],
)
async def test_totals_tell_the_tier(
    caller: Caller, token: str, auto: int, fast: int, window: int
) -> None:
    assert (await limits(caller, token, modelName="auto"))["totalQueries"] == auto
    mode = await limits(caller, token, modelName="fast")
    assert (mode["totalQueries"], mode["windowSizeSeconds"]) == (fast, window)
    assert mode["lowEffortRateLimits"] is None


async def test_the_older_form_has_the_token_budget(caller: Caller) -> None:
    body = {"requestKind": "DEFAULT", "modelName": "grok-4-1-thinking-1129"}
    before = await limits(caller, "ok-1", **body)
    async with caller.chat("ok-1", **{**GEN1, "modelMode": "MODEL_MODE_EXPERT"}) as response:
        await response.read()
    after = await limits(caller, "ok-1", **body)
    assert before["remainingTokens"] - after["remainingTokens"] == 4
    assert after["highEffortRateLimits"]["cost"] == 4


async def test_a_limited_account_has_nothing_left(caller: Caller) -> None:
    found = await limits(caller, "limited-1", modelName="fast")
    assert found["remainingQueries"] == 0
    assert found["waitTimeSeconds"] > 0


async def test_an_unlimited_account_never_falls(caller: Caller) -> None:
    before = await limits(caller, "ok-unlimited-1", modelName="fast")
    async with caller.chat("ok-unlimited-1") as response:
        await response.read()
    assert await limits(caller, "ok-unlimited-1", modelName="fast") == before


async def test_an_enforced_quota_ends_in_429(caller: Caller, sandbox: RunningSandbox) -> None:
    sandbox.state.options.enforce_quota = True
    statuses = []
    for _ in range(21):
        async with caller.chat("ok-1", "FRAMES:1", modeId="auto") as response:
            statuses.append(response.status)
    assert statuses == [200] * 20 + [429]


async def test_quota_info_has_all_five_products(caller: Caller) -> None:
    path = "/rest/media/imagine/quota_info"
    async with caller.web_post("ok-1", path, {}, "/imagine") as reply:
        info = await reply.json()
    assert set(info) == {"image", "imageEdit", "imagePro", "video", "video720p"}
    assert info["imagePro"]["remainingQueries"] == 5
    assert info["imageEdit"] == {"available": False}


async def test_weekly_credits_are_for_paid_accounts(caller: Caller) -> None:
    async with caller.grpc("ok-super-1", CREDITS, EMPTY) as reply:
        body = await reply.read()
    assert body[:1] == b"\x00"
    assert body.endswith(trailer(0))
    async with caller.grpc("ok-1", CREDITS, EMPTY) as reply:
        assert await reply.read() == trailer(7)


@pytest.mark.parametrize("where", ["header", "frame", "absent"])
async def test_the_grpc_status_travels_as_told(
    caller: Caller, sandbox: RunningSandbox, where: GrpcTrailer
) -> None:
    sandbox.state.options.grpc_trailer = where
    async with caller.grpc("ok-1", CONTROLS, nsfw_control(True)) as reply:
        body = await reply.read()
    assert reply.headers.get("grpc-status") == ("0" if where == "header" else None)
    assert body == EMPTY + (trailer(0) if where == "frame" else b"")
    assert sandbox.state.accounts["ok-1"].settings == {"always_show_nsfw_content": True}


async def test_only_the_exact_grpc_bytes_are_accepted(
    caller: Caller, sandbox: RunningSandbox
) -> None:
    async def accept(body: bytes) -> bytes:
        headers = {
            "Cookie": "sso=ok-1; sso-rw=ok-1",
            "Origin": "https://accounts.x.ai",
            "Referer": "https://accounts.x.ai/accept-tos",
            "User-Agent": "test",
            "Content-Type": "application/grpc-web+proto",
            "x-grpc-web": "1",
        }
        async with caller.session.post(sandbox.url + TOS, data=body, headers=headers) as reply:
            return await reply.read()

    assert await accept(TOS_ACCEPT) == EMPTY + trailer(0)
    assert await accept(TOS_ACCEPT + b"\x00") == trailer(3)
    assert sandbox.state.violations == []


def test_the_documented_grpc_requests_are_these_bytes() -> None:
    assert bytes.fromhex("00000000021001") == TOS_ACCEPT
    head = bytes.fromhex("0000000020 0a021001 121a 0a18")
    assert nsfw_control(True) == head + b"always_show_nsfw_content"


async def test_terms_are_accepted_on_grok_com_too(caller: Caller) -> None:
    path = "/rest/auth/set-tos-accepted"
    async with caller.web_post("ok-1", path, {"tosVersion": 5}) as reply:
        assert reply.status == 200
    async with caller.web_post("ok-1", path, {"tosVersion": 1}) as reply:
        assert reply.status == 400


async def test_a_birth_date_locks(caller: Caller) -> None:
    path, body = "/rest/auth/set-birth-date", {"birthDate": "1984-03-07T16:00:00.000Z"}
    async with caller.web_post("ok-1", path, {"birthDate": "1984-03-07"}) as reply:
        assert reply.status == 400
    async with caller.web_post("ok-1", path, body) as reply:
        assert reply.status == 200
    async with caller.web_post("ok-1", path, body) as reply:
        assert reply.status == 429
        assert await reply.json() == {
            "code": 8,
            "message": "Birth date is locked once set. "
            "[WKE=account:birth-date-change-limit-reached]",
            "details": [],
        }


async def test_settings_need_both_cookies(caller: Caller, sandbox: RunningSandbox) -> None:
    body = {"birthDate": "1984-03-07T16:00:00.000Z"}
    path = "/rest/auth/set-birth-date"
    async with caller.web_post("ok-1", path, body, Cookie="sso=ok-1") as reply:
        assert reply.status == 401
    assert sandbox.state.violations[0].rule == "missing-cookie"
