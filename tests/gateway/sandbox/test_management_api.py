"""The simulated Management API, and that its keys work."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sandbox.serve import RunningSandbox
from tests.gateway.sandbox.calling import Caller

KEY = "mgmt-ok-1-team-a"
KEYS = "/auth/teams/t-a/api-keys"


async def call(caller: Caller, method: str, path: str, key: str = KEY, **body: Any) -> Any:
    keys = {"json": body} if body else {}
    async with caller.xai(method, key, path, **keys) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


async def models_status(caller: Caller, secret: str) -> int:
    async with caller.xai("GET", secret, "/v1/models") as reply:
        return reply.status


async def test_it_works(caller: Caller, sandbox: RunningSandbox) -> None:
    who = await call(caller, "GET", "/auth/management-keys/validation")
    assert (who["scope"], who["scopeId"]) == ("SCOPE_TEAM", "t-a")
    made = await call(caller, "POST", KEYS, name="gw-1", qps=5, tpm="100", acls=["api-key:model:*"])
    assert made["aclStrings"] == ["api-key:model:*"]
    assert await models_status(caller, made["apiKey"]) == 200
    listed = await call(caller, "GET", KEYS)
    assert [key["name"] for key in listed["apiKeys"]] == ["gw-1"]
    assert "apiKey" not in listed["apiKeys"][0]
    assert sandbox.state.violations == []


async def test_the_probe_knows_an_issued_key(caller: Caller) -> None:
    made = await call(caller, "POST", KEYS, name="gw-1")
    probe = await call(caller, "GET", "/v1/api-key", made["apiKey"])
    assert (probe["name"], probe["team_id"]) == ("gw-1", "t-a")


async def test_a_disabled_key_is_refused_but_can_be_probed(caller: Caller) -> None:
    made = await call(caller, "POST", KEYS, name="gw-1")
    path = f"/auth/api-keys/{made['apiKeyId']}"
    new = {"disabled": True, "name": "ignored"}
    changed = await call(caller, "PUT", path, apiKey=new, fieldMask="disabled")
    assert (changed["disabled"], changed["name"]) == (True, "gw-1")
    assert await models_status(caller, made["apiKey"]) == 403
    probe = await call(caller, "GET", "/v1/api-key", made["apiKey"])
    assert probe["api_key_disabled"] is True


async def test_a_rotated_secret_lives_on_for_a_day(caller: Caller, sandbox: RunningSandbox) -> None:
    made = await call(caller, "POST", KEYS, name="gw-1")
    new = await call(caller, "POST", f"/auth/api-keys/{made['apiKeyId']}/rotate")
    assert new["apiKeyId"] == made["apiKeyId"]
    assert await models_status(caller, made["apiKey"]) == 200
    now = sandbox.state.options.now
    sandbox.state.options.now = lambda: now() + 86_401
    assert await models_status(caller, made["apiKey"]) == 400
    assert await models_status(caller, new["apiKey"]) == 200


async def test_a_deleted_key_is_dead(caller: Caller) -> None:
    made = await call(caller, "POST", KEYS, name="gw-1")
    await call(caller, "DELETE", f"/auth/api-keys/{made['apiKeyId']}")
    assert await models_status(caller, made["apiKey"]) == 400


async def test_propagation_takes_a_second_look(caller: Caller) -> None:
    made = await call(caller, "POST", KEYS, name="gw-1")
    path = f"/auth/api-keys/{made['apiKeyId']}/propagation"
    first = (await call(caller, "GET", path))["icPropagation"]
    second = (await call(caller, "GET", path))["icPropagation"]
    assert (all(first.values()), all(second.values())) == (False, True)


async def test_keys_are_listed_in_pages(caller: Caller) -> None:
    for number in range(3):
        await call(caller, "POST", KEYS, name=f"gw-{number}")
    first = await call(caller, "GET", KEYS + "?pageSize=2")
    query = f"?pageSize=2&paginationToken={first['paginationToken']}"
    second = await call(caller, "GET", KEYS + query)
    names = [key["name"] for key in first["apiKeys"] + second["apiKeys"]]
    assert names == ["gw-0", "gw-1", "gw-2"]
    assert second["paginationToken"] == ""


async def test_models_endpoints_and_balance_of_the_team(caller: Caller) -> None:
    models = await call(caller, "GET", "/auth/teams/t-a/models")
    assert models["clusterConfigs"][0]["languageModels"][0]["name"] == "grok-4.7"
    rights = await call(caller, "GET", "/auth/teams/t-a/endpoints")
    assert rights["acls"][0]["acl"] == "api-key:endpoint:chat"
    money = await call(caller, "GET", "/v1/billing/teams/t-a/prepaid/balance")
    assert money["total"] == {"val": "-4500"}


@pytest.mark.parametrize(
    ("key", "method", "path", "body", "status"),
    [
        ("xai-ok-1", "GET", KEYS, {}, 401),
        ("mgmt-nobody", "GET", KEYS, {}, 401),
        ("mgmt-limited-1-team-a", "GET", KEYS, {}, 429),
        (KEY, "GET", "/auth/teams/t-b/api-keys", {}, 404),
        (KEY, "POST", KEYS, {"qps": 1}, 400),
        (KEY, "POST", KEYS, {"name": "x", "tpm": 5}, 400),
        (KEY, "DELETE", "/auth/api-keys/none", {}, 404),
    ],
)
async def test_a_bad_call_is_refused(
    caller: Caller, key: str, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    async with caller.xai(method, key, path, json=body) as reply:
        assert reply.status == status
