"""xAI's Management API: its keys, the inference keys of a team, models, balance.

Shapes follow upstream-xai 12. Management keys are named ``mgmt-<behaviour>-...``; the team
is what follows ``-team-``. Keys made here work on the simulated api.x.ai at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.sandbox.accounts import team_of, user_id_of
from gateway.sandbox.behaviours import INCORRECT_KEY, NO_CREDENTIALS
from gateway.sandbox.calls import RECORD, Call, Refused, bearer_of, xai_refusal
from gateway.sandbox.checks import Expect, check_headers
from gateway.sandbox.faults import refusal_response
from gateway.sandbox.state import STATE
from gateway.sandbox.xai_models import list_entry, models_of, team_entry

CHANGEABLE = frozenset({"name", "disabled", "qps", "qpm", "tpm", "expireTime", "aclStrings"})
ENDPOINTS = ("chat", "embed", "image", "models", "sample", "tokenize", "documents")
CLUSTERS = ("us-east-1.api.x.ai", "us-west-1.api.x.ai")
OLD_SECRET_LIVES = timedelta(hours=24)
OLD_SECRET_LIVES_AT_MOST = timedelta(days=7)
FOREVER = float("inf")
HIDDEN = ("secrets", "polls")


def mgmt_endpoint(handler: Callable[[Call], Awaitable[web.Response]]) -> Handler:
    """A route behind a management key; an inference key does not work here."""

    async def serve(request: web.Request) -> web.StreamResponse:
        state, record = request.app[STATE], request[RECORD]
        record.body = await request.read()
        check_headers(request, state, Expect("management"))
        token = record.token = bearer_of(request)
        if not token:
            return refusal_response(NO_CREDENTIALS)
        if not token.startswith("mgmt-"):
            return refusal_response(_NOT_MANAGEMENT.refusal)
        call = Call(request, state, record, token, state.behaviour(token))
        try:
            if call.behaviour.xai is not None:
                raise Refused(_as_management(call))
            return await handler(call)
        except Refused as refused:
            return refusal_response(refused.refusal)

    return serve


_NOT_MANAGEMENT = xai_refusal(401, "unauthenticated:bad-credentials", "Not a management key.")


def _as_management(call: Call) -> Any:
    """A dead management key is 401 here, whatever api.x.ai would say."""
    refusal = call.behaviour.xai
    return _NOT_MANAGEMENT.refusal if refusal is INCORRECT_KEY else refusal


def _team(call: Call) -> str:
    return team_of(call.token.removeprefix("mgmt-"))


def _require_team(call: Call) -> str:
    """The team of the path. Raises Refused with 404 for one that is not the key's."""
    team = call.request.match_info["team"]
    if team != _team(call):
        raise xai_refusal(404, "not-found", "Team not found.")
    return team


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed_time(call: Call, text: Any) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        raise call.bad_request("a time is not RFC 3339") from None


async def validation(call: Call) -> web.Response:
    """Whose management key this is (12.1)."""
    team, owner = _team(call), user_id_of(call.token)
    return web.json_response(
        {
            "apiKeyId": f"mk-{owner[:8]}",
            "scope": "SCOPE_TEAM",
            "scopeId": team,
            "teamId": team,
            "ownerUserId": owner,
            "name": "gw-admin",
            "createTime": "2026-09-01T08:00:00Z",
            "modifyTime": "2026-09-01T08:00:00Z",
            "acls": ["team-token:endpoint:ListApiKeys", "team-token:endpoint:CreateApiKey"],
            "redactedApiKey": f"xai-token-...{call.token[-4:]}",
            "ipRanges": None,
        }
    )


async def create_key(call: Call) -> web.Response:
    """A new key; only this answer holds the whole secret (12.2)."""
    team, body = _require_team(call), call.json()
    if not isinstance(body.get("name"), str) or not body["name"]:
        raise call.bad_request("name")
    if "tpm" in body and not isinstance(body["tpm"], str):
        raise call.bad_request("tpm must be a string")
    now = call.state.options.now()
    expires = _parsed_time(call, body.get("expireTime"))
    secret = _new_secret(call)
    key = {
        "apiKeyId": call.state.next_id("k"),
        "redactedApiKey": _redacted(secret),
        "userId": user_id_of(call.token),
        "name": body["name"],
        "createTime": _time(now),
        "modifyTime": _time(now),
        "teamId": team,
        "disabled": False,
        "expireTime": body.get("expireTime"),
        "qps": body.get("qps"),
        "qpm": body.get("qpm"),
        "tpm": body.get("tpm"),
        "aclStrings": body.get("acls", []),
        "secrets": {secret: FOREVER if expires is None else expires},
        "polls": 0,
    }
    call.state.keys[key["apiKeyId"]] = key
    call.state.secrets[secret] = key["apiKeyId"]
    return web.json_response(_shown(key, secret))


def _new_secret(call: Call) -> str:
    return "xai-ok-" + call.state.next_uuid().replace("-", "")


def _redacted(secret: str) -> str:
    return f"xai-...{secret[-4:]}"


def _shown(key: dict[str, Any], secret: str = "") -> dict[str, Any]:
    shown = {name: value for name, value in key.items() if name not in HIDDEN}
    return {**shown, "apiKey": secret} if secret else shown


async def list_keys(call: Call) -> web.Response:
    """A page of the team's keys; secrets are never shown again."""
    team, query = _require_team(call), call.request.query
    keys = [key for key in call.state.keys.values() if key["teamId"] == team]
    if query.get("activeOnly") == "true":
        keys = [key for key in keys if not key["disabled"]]
    start = _whole(call, query.get("paginationToken") or "0")
    end = start + _whole(call, query.get("pageSize") or "100")
    token = str(end) if end < len(keys) else ""
    page = [_shown(key) for key in keys[start:end]]
    return web.json_response({"apiKeys": page, "paginationToken": token})


def _whole(call: Call, text: str) -> int:
    if not text.isdigit():
        raise call.bad_request("paging")
    return int(text)


def _key(call: Call) -> dict[str, Any]:
    """The key of the path. Raises Refused with 404 for another team's."""
    key = call.state.keys.get(call.request.match_info["key"])
    if key is None or key["teamId"] != _team(call):
        raise xai_refusal(404, "not-found", "API key not found.")
    return key


async def update_key(call: Call) -> web.Response:
    """Changes exactly the fields that ``fieldMask`` names."""
    key, body = _key(call), call.json()
    changes, mask = body.get("apiKey"), body.get("fieldMask")
    if not isinstance(changes, dict) or not isinstance(mask, str):
        raise call.bad_request("apiKey and fieldMask")
    names = [name.strip() for name in mask.split(",")]
    for name in names:
        if name not in CHANGEABLE or name not in changes:
            raise call.bad_request("fieldMask")
    key.update({name: changes[name] for name in names})
    if "expireTime" in names:
        expires = _parsed_time(call, changes["expireTime"])
        newest = next(reversed(key["secrets"]))
        key["secrets"][newest] = FOREVER if expires is None else expires
    key["modifyTime"] = _time(call.state.options.now())
    return web.json_response(_shown(key))


async def rotate_key(call: Call) -> web.Response:
    """A new secret under the same id; the old one lives on for a while."""
    key, body, now = _key(call), call.json() if call.record.body else {}, call.state.options.now()
    ends = _parsed_time(call, body.get("oldSecretExpireTime"))
    ends = now + OLD_SECRET_LIVES.total_seconds() if ends is None else ends
    if ends > now + OLD_SECRET_LIVES_AT_MOST.total_seconds():
        raise call.bad_request("oldSecretExpireTime")
    secret = _new_secret(call)
    expires = _parsed_time(call, body.get("expireTime"))
    key["secrets"] = {old: min(until, ends) for old, until in key["secrets"].items()}
    key["secrets"][secret] = FOREVER if expires is None else expires
    key |= {"redactedApiKey": _redacted(secret), "polls": 0, "modifyTime": _time(now)}
    call.state.secrets[secret] = key["apiKeyId"]
    return web.json_response(_shown(key, secret))


async def delete_key(call: Call) -> web.Response:
    """Final; its secrets are dead at once."""
    del call.state.keys[_key(call)["apiKeyId"]]
    return web.json_response({})


async def propagation(call: Call) -> web.Response:
    """One cluster lags on the first look."""
    key = _key(call)
    key["polls"] += 1
    known = {CLUSTERS[0]: True, CLUSTERS[1]: key["polls"] > 1}
    return web.json_response({"icPropagation": known})


async def team_models(call: Call) -> web.Response:
    """Models, limits and prices of the team, by cluster (12.3)."""
    _require_team(call)
    cluster = {
        "clusterName": "us-east-1",
        "languageModels": [team_entry(model) for model in models_of("language")],
        "imageGenerationModels": [_named(list_entry(model)) for model in models_of("image")],
        "videoGenerationModels": [_named(list_entry(model)) for model in models_of("video")],
        "audioModels": [],
        "embeddingModels": [],
    }
    return web.json_response({"clusterConfigs": [cluster]})


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": entry["id"], "aliases": entry["aliases"]}


async def team_endpoints(call: Call) -> web.Response:
    """The endpoint rights there are."""
    _require_team(call)
    acls = [
        {
            "acl": f"api-key:endpoint:{name}",
            "namespace": "api-key",
            "key": "endpoint",
            "value": name,
        }
        for name in ENDPOINTS
    ]
    return web.json_response({"acls": acls})


async def balance(call: Call) -> web.Response:
    """Prepaid credit in cents; what is left has a minus sign (12.4)."""
    _require_team(call)
    changes = [
        {"changeOrigin": "PURCHASE", "topupStatus": "SUCCEEDED", "amount": {"val": "-5000"}},
        {"changeOrigin": "SPEND", "amount": {"val": "500"}},
    ]
    return web.json_response({"changes": changes, "total": {"val": "-4500"}})


ROUTES = (
    web.get("/auth/management-keys/validation", mgmt_endpoint(validation)),
    web.post("/auth/teams/{team}/api-keys", mgmt_endpoint(create_key)),
    web.get("/auth/teams/{team}/api-keys", mgmt_endpoint(list_keys)),
    web.put("/auth/api-keys/{key}", mgmt_endpoint(update_key)),
    web.post("/auth/api-keys/{key}/rotate", mgmt_endpoint(rotate_key)),
    web.delete("/auth/api-keys/{key}", mgmt_endpoint(delete_key)),
    web.get("/auth/api-keys/{key}/propagation", mgmt_endpoint(propagation)),
    web.get("/auth/teams/{team}/models", mgmt_endpoint(team_models)),
    web.get("/auth/teams/{team}/endpoints", mgmt_endpoint(team_endpoints)),
    web.get("/v1/billing/teams/{team}/prepaid/balance", mgmt_endpoint(balance)),
)
