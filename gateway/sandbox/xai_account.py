"""api.x.ai: catalogue and key probe (upstream-xai 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import team_of, user_id_of
from gateway.sandbox.calls import Call, CallHandler, xai_endpoint, xai_refusal
from gateway.sandbox.xai_models import (
    Kind,
    find_model,
    list_entry,
    models_of,
    typed_entry,
)

ACLS = ["api-key:endpoint:*", "api-key:model:*"]
MADE_AT = "2026-09-01T08:00:00Z"
_KINDS: tuple[Kind, ...] = ("language", "image", "video")


async def api_key(call: Call) -> web.Response:
    """What the key is and whether it is switched off or blocked (2.4)."""
    blocked = call.behaviour.session == "blocked"
    identity = _issued(call) or _by_name(call.token)
    flags = {"team_blocked": False, "api_key_blocked": blocked}
    return web.json_response({**identity, **flags})


def _by_name(token: str) -> dict[str, Any]:
    name = token.removeprefix("xai-")
    return {
        "redacted_api_key": f"xai-...{token[-4:]}",
        "user_id": user_id_of(token),
        "name": name,
        "create_time": MADE_AT,
        "modify_time": MADE_AT,
        "modified_by": user_id_of(token),
        "team_id": team_of(name),
        "acls": ACLS,
        "api_key_id": f"k-{user_id_of(token)[:8]}",
        "api_key_disabled": False,
    }


def _issued(call: Call) -> dict[str, Any] | None:
    """A key of the Management API as ``/v1/api-key`` shows it."""
    key = call.state.keys.get(call.state.secrets.get(call.token, ""))
    if key is None:
        return None
    return {
        "redacted_api_key": key["redactedApiKey"],
        "user_id": key["userId"],
        "name": key["name"],
        "create_time": key["createTime"],
        "modify_time": key["modifyTime"],
        "modified_by": key["userId"],
        "team_id": key["teamId"],
        "acls": key["aclStrings"],
        "api_key_id": key["apiKeyId"],
        "api_key_disabled": key["disabled"],
    }


async def all_models(call: Call) -> web.Response:
    """OpenAI's list form (2.1)."""
    entries = [list_entry(model) for kind in _KINDS for model in models_of(kind)]
    return web.json_response({"object": "list", "data": entries})


async def one_model(call: Call) -> web.Response:
    name = call.request.match_info["name"]
    for kind in _KINDS:
        model = find_model(name, kind)
        if model is not None:
            return web.json_response(list_entry(model))
    raise xai_refusal(404, "not-found", "The model does not exist.")


def _typed_list(kind: Kind) -> CallHandler:
    async def serve(call: Call) -> web.Response:
        return web.json_response({"models": [typed_entry(model) for model in models_of(kind)]})

    return serve


def _typed_one(kind: Kind) -> CallHandler:
    async def serve(call: Call) -> web.Response:
        model = find_model(call.request.match_info["name"], kind)
        if model is None:
            raise xai_refusal(404, "not-found", "The model does not exist.")
        return web.json_response(typed_entry(model))

    return serve


def _typed_routes(path: str, kind: Kind) -> tuple[web.RouteDef, web.RouteDef]:
    get: Callable[..., web.RouteDef] = web.get
    return (
        get(path, xai_endpoint(_typed_list(kind))),
        get(path + "/{name}", xai_endpoint(_typed_one(kind))),
    )


ROUTES = (
    web.get("/v1/api-key", xai_endpoint(api_key, tolerates=frozenset({"blocked"}))),
    web.get("/v1/models", xai_endpoint(all_models)),
    web.get("/v1/models/{name}", xai_endpoint(one_model)),
    *_typed_routes("/v1/language-models", "language"),
    *_typed_routes("/v1/image-generation-models", "image"),
    *_typed_routes("/v1/video-generation-models", "video"),
)
