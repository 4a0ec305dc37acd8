"""api.x.ai: ``/v1/responses`` (upstream-xai 4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import team_of
from gateway.sandbox.answers import answer_to
from gateway.sandbox.calls import Call, xai_endpoint, xai_refusal
from gateway.sandbox.responses_bodies import EVENTS, ResponseParts, response_script
from gateway.sandbox.web_bodies import encode
from gateway.sandbox.xai_chat import send_whole
from gateway.sandbox.xai_requests import Reply, chosen_tool, require_model, text_of

REFUSED_TOOL_KEYS = ("search_context_size", "user_location", "container", "ranking_options")


def prompt_of(body: dict[str, Any]) -> str:
    """The newest user text of a Responses input."""
    given = body.get("input")
    if isinstance(given, str):
        return given
    for item in reversed(given if isinstance(given, list) else []):
        if isinstance(item, dict) and item.get("role") == "user":
            return text_of(item.get("content"))
    return ""


async def create_response(call: Call) -> web.StreamResponse:
    """A response, streamed or whole; kept unless ``store`` is false."""
    body = call.json()
    reply = _reply(call, body)
    parts = ResponseParts(reply, call.state.next_uuid(), body.get("store") is not False)
    if parts.stored:
        kept = {"team": _team(call), "response": parts.response()}
        call.state.stored_responses[parts.response_id] = kept
    if body.get("stream"):
        return await call.stream(response_script(parts), EVENTS)
    return await send_whole(call, encode(parts.response()))


def _reply(call: Call, body: dict[str, Any]) -> Reply:
    model = require_model(body)
    given = body.get("input")
    if not given or not isinstance(given, str | list):
        raise xai_refusal(422, "invalid-argument", "input: field required")
    _check_previous(call, body)
    tools = _checked_tools(body)
    functions = [tool for tool in tools if tool.get("type") == "function"]
    prompt = prompt_of(body)
    answered = isinstance(given, list) and given[-1].get("type") == "function_call_output"
    tool = None if answered else chosen_tool(functions, body.get("tool_choice"), prompt)
    return Reply(model, answer_to(prompt), tool, max(1, len(call.record.body) // 4))


def _checked_tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Flat tools only; several OpenAI-only fields make the request fail."""
    tools = body.get("tools") or []
    for tool in tools:
        if tool.get("type") == "function" and "name" not in tool:
            raise xai_refusal(422, "invalid-argument", "tools: name")
        for key in REFUSED_TOOL_KEYS:
            if key in tool:
                raise xai_refusal(400, "invalid-argument", f"Argument not supported: {key}")
    return list(tools)


def _check_previous(call: Call, body: dict[str, Any]) -> None:
    previous = body.get("previous_response_id")
    if previous is None:
        return
    if body.get("instructions") is not None:
        raise xai_refusal(400, "invalid-argument", "instructions with previous_response_id")
    _stored(call, str(previous))


def _team(call: Call) -> str:
    return team_of(call.token.removeprefix("xai-"))


def _stored(call: Call, response_id: str) -> dict[str, Any]:
    """A stored response of the caller's team. Raises Refused with 404."""
    kept = call.state.stored_responses.get(response_id)
    if kept is None or kept["team"] != _team(call):
        raise xai_refusal(404, "not-found", "Response not found.")
    response: dict[str, Any] = kept["response"]
    return response


async def get_response(call: Call) -> web.Response:
    return web.json_response(_stored(call, call.request.match_info["id"]))


async def delete_response(call: Call) -> web.Response:
    response_id = call.request.match_info["id"]
    _stored(call, response_id)
    del call.state.stored_responses[response_id]
    return web.json_response({"id": response_id, "object": "response", "deleted": True})


ROUTES = (
    web.post("/v1/responses", xai_endpoint(create_response, prompt_of=prompt_of)),
    web.get("/v1/responses/{id}", xai_endpoint(get_response)),
    web.delete("/v1/responses/{id}", xai_endpoint(delete_response)),
)
