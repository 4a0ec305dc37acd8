"""From an aiohttp request to a handler's ``Call``: recorded, checked, its behaviour known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.sandbox.accounts import WebAccount
from gateway.sandbox.behaviours import (
    INCORRECT_KEY,
    NO_CREDENTIALS,
    NO_SESSION,
    Behaviour,
    Refusal,
)
from gateway.sandbox.checks import Expect, check_headers
from gateway.sandbox.directives import forced_behaviour
from gateway.sandbox.faults import BodyForm, before_headers, refusal_response, send_plan
from gateway.sandbox.scripts import Script, plan
from gateway.sandbox.state import STATE, Disconnect, RecordedRequest, SandboxState

RECORD: web.RequestKey[RecordedRequest] = web.RequestKey("sandbox_record", RecordedRequest)
CONTROL = "/__sandbox__/"


class Refused(Exception):
    """The simulated service answers a request with ``refusal`` instead of the work."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


def web_refusal(status: int, code: int | str, message: str) -> Refused:
    """An error in grok.com's JSON form (upstream-web 2.9)."""
    body: dict[str, Any] = {"code": code, "message": message, "details": []}
    return Refused(Refusal(status, json.dumps(body).encode()))


def xai_refusal(status: int, code: str, error: str) -> Refused:
    """An error in api.x.ai's flat form (upstream-xai 10.1)."""
    return Refused(Refusal(status, json.dumps({"code": code, "error": error}).encode()))


@dataclass(slots=True, repr=False)
class Call:
    """One request under way; ``behaviour`` is the token's, or the one the prompt chose."""

    request: web.Request
    state: SandboxState
    record: RecordedRequest
    token: str
    behaviour: Behaviour
    _json: dict[str, Any] | None = field(default=None)

    @property
    def account(self) -> WebAccount:
        return self.state.account(self.token)

    @property
    def origin(self) -> str:
        """Where this sandbox is reached, for absolute links."""
        return f"http://{self.request.host}"

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises Refused with 400 for anything else."""
        if self._json is None:
            try:
                parsed = json.loads(self.record.body)
            except ValueError:
                parsed = None
            if not isinstance(parsed, dict):
                raise self.bad_request("The body is not a JSON object")
            self._json = parsed
        return self._json

    def bad_request(self, message: str) -> Refused:
        """A 400 in the form of the service that was called."""
        if self.request.path.startswith(("/v1/", "/auth/")):
            return xai_refusal(400, "invalid-argument", message)
        return web_refusal(400, 3, f"invalid_argument: {message}")

    def spend(self, bucket: str, amount: int = 1) -> None:
        """Let a counter of the web account fall. Raises Refused with 429 if told to at 0."""
        now = self.state.options.now()
        counter = self.account.counter(bucket, now)
        if self.state.options.enforce_quota and counter.remaining(now) < 1:
            raise web_refusal(429, 8, "Too many requests")
        self.state.spend(self.account, bucket, amount)

    async def stream(self, script: Script, form: BodyForm) -> web.StreamResponse:
        """Send a script the way this call's behaviour has it."""
        planned = plan(script, self.behaviour, self.state.options.slow_ms)
        return await send_plan(self.request, self.state, self.record, planned, form, self.behaviour)


CallHandler = Callable[[Call], Awaitable[web.StreamResponse]]
PromptOf = Callable[[dict[str, Any]], str]


@web.middleware
async def track(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record each request, count the open ones and note clients that leave early."""
    if request.path.startswith(CONTROL):
        return await handler(request)
    state = request.app[STATE]
    record = _record(request, state)
    request[RECORD] = record
    state.open_streams += 1
    try:
        response = await handler(request)
        record.status = response.status
        return response
    except web.HTTPException as error:
        record.status = error.status
        raise
    except ConnectionError:
        _client_left(state, record)
        return web.Response()
    except asyncio.CancelledError:
        _client_left(state, record)
        raise
    finally:
        state.open_streams -= 1


def _record(request: web.Request, state: SandboxState) -> RecordedRequest:
    resource = request.match_info.route.resource
    state.counters[resource.canonical if resource is not None else request.path] += 1
    record = RecordedRequest(
        request.method, request.path, request.query, request.headers, "", state.options.clock()
    )
    state.requests.append(record)
    return record


def _client_left(state: SandboxState, record: RecordedRequest) -> None:
    if record.settled or state.closing:
        return
    state.disconnects.append(
        Disconnect(record.path, record.token, record.at, state.options.clock())
    )


def client_left(call: Call) -> None:
    """Note that the client closed a socket before its answer was complete."""
    _client_left(call.state, call.record)


@dataclass(frozen=True, slots=True)
class Route:
    """How one route treats its caller.

    ``prompt_of`` marks a route that spends quota: every behaviour applies, and the prompt may
    choose it. ``socket`` marks one whose handshake alone may be refused. Elsewhere only
    behaviours that hold ``everywhere`` apply, but for those in ``tolerates``.
    """

    side: Literal["web", "xai"]
    expect: Expect
    prompt_of: PromptOf | None = None
    socket: bool = False
    tolerates: frozenset[str] = frozenset()

    def token_of(self, request: web.Request) -> str:
        """The ``sso`` cookie or the Bearer key, whichever counts here."""
        return request.cookies.get("sso", "") if self.side == "web" else bearer_of(request)

    def refusal_of(self, behaviour: Behaviour) -> Refusal | None:
        return behaviour.web if self.side == "web" else behaviour.xai


def web_endpoint(
    handler: CallHandler,
    expect: Expect,
    *,
    prompt_of: PromptOf | None = None,
    socket: bool = False,
    tolerates: frozenset[str] = frozenset(),
) -> Handler:
    """A grok.com route behind the ``sso`` cookie; the arguments are those of Route."""
    return _endpoint(handler, Route("web", expect, prompt_of, socket, tolerates))


def xai_endpoint(
    handler: CallHandler,
    *,
    prompt_of: PromptOf | None = None,
    tolerates: frozenset[str] = frozenset(),
) -> Handler:
    """An api.x.ai route behind a Bearer key; the arguments are those of Route."""
    return _endpoint(handler, Route("xai", Expect("xai"), prompt_of, False, tolerates))


def public_endpoint(handler: Handler) -> Handler:
    """A public link: whoever fetches it must bring no credential."""

    async def serve(request: web.Request) -> web.StreamResponse:
        check_headers(request, request.app[STATE], Expect("public"))
        return await handler(request)

    return serve


def bearer_of(request: web.Request) -> str:
    """The Bearer token of a request, or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _endpoint(handler: CallHandler, route: Route) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        state, record = request.app[STATE], request[RECORD]
        if request.can_read_body:
            record.body = await request.read()
        check_headers(request, state, route.expect)
        token = record.token = route.token_of(request)
        if not token:
            return refusal_response(NO_SESSION if route.side == "web" else NO_CREDENTIALS)
        call = Call(request, state, record, token, state.behaviour(token))
        try:
            early = await _before_work(call, route)
            return early if early is not None else await handler(call)
        except Refused as refused:
            return refusal_response(refused.refusal)

    return serve


async def _before_work(call: Call, route: Route) -> web.StreamResponse | None:
    """The answer of a behaviour that forestalls the work. Raises Refused."""
    refuse_withdrawn_key(call)
    works = route.socket or route.prompt_of is not None
    if route.prompt_of is not None:
        forced = forced_behaviour(route.prompt_of(call.json()))
        if forced is not None:
            call.behaviour = forced
    behaviour = call.behaviour
    refusal = route.refusal_of(behaviour)
    applies = works if behaviour.at_handshake or not route.socket else False
    everywhere = behaviour.everywhere and behaviour.name not in route.tolerates
    if refusal is not None and (applies or everywhere):
        raise Refused(refusal)
    return await before_headers(call.request, call.record, behaviour) if works else None


def refuse_withdrawn_key(call: Call) -> None:
    """Raise Refused for a key that the Management API deleted, rotated away or disabled."""
    key_id = call.state.secrets.get(call.token)
    if key_id is None:
        return
    key = call.state.keys.get(key_id)
    ends_at = key["secrets"].get(call.token) if key is not None else None
    if key is None or ends_at is None or call.state.options.now() >= ends_at:
        raise Refused(INCORRECT_KEY)
    if key["disabled"] and call.request.path != "/v1/api-key":
        raise xai_refusal(403, "permission-denied", "The API key is disabled.")
