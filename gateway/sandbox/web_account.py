"""grok.com: who am I, quotas, and the account-setting calls (upstream-web 1.7, 6, 11)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.sandbox.accounts import DAY, MODELS, MODES, WebAccount
from gateway.sandbox.behaviours import NO_SESSION
from gateway.sandbox.calls import Call, Refused, web_endpoint, web_refusal
from gateway.sandbox.checks import Expect
from gateway.sandbox.grpc_web import (
    EMPTY,
    TOS_ACCEPT,
    credits_config,
    nsfw_control,
    trailer,
)

BIRTH_DATE_LOCKED = "Birth date is locked once set. [WKE=account:birth-date-change-limit-reached]"
TOS_VERSION = 5
_PRODUCTS = {
    "imageEdit": "image_edit",
    "imagePro": "image_pro",
    "video": "video",
    "video720p": "video_720p",
}


async def session(call: Call) -> web.Response:
    """The first known shape of 1.7; ``blocked`` and ``unauthenticated`` say so with a 200."""
    status = call.behaviour.session
    if status == "unauthenticated":
        return web.json_response({"status": status})
    account = call.account
    identity = {
        "userId": account.user_id,
        "email": f"op-{account.user_id[:8]}@example.org",
        "organizationId": "org-1",
    }
    return web.json_response({"status": status, "session": identity})


async def rate_limits(call: Call) -> web.Response:
    """Counters of one mode, or of one model with the older budget beside them (6.1)."""
    body = call.json()
    name = body.get("modelName")
    if name in MODES and "requestKind" not in body:
        return web.json_response(_mode_limits(call, name))
    if name in MODELS and body.get("requestKind") == "DEFAULT":
        return web.json_response(_model_limits(call, name))
    raise call.bad_request("unknown modelName")


def _limits(call: Call, bucket: str) -> dict[str, Any]:
    now = call.state.options.now()
    counter = call.account.counter(bucket, now)
    remaining = counter.remaining(now)
    spent = counter.total > 0 and remaining == 0
    return {
        "windowSizeSeconds": counter.window_s,
        "remainingQueries": remaining,
        "totalQueries": counter.total,
        "waitTimeSeconds": max(1, int(counter.ends_at - now)) if spent else 0,
    }


def _mode_limits(call: Call, mode: str) -> dict[str, Any]:
    limits = _limits(call, mode)
    return {**limits, "lowEffortRateLimits": None, "highEffortRateLimits": None}


def _model_limits(call: Call, model: str) -> dict[str, Any]:
    limits = _limits(call, model)
    remaining, wait = limits["remainingQueries"], limits["waitTimeSeconds"]
    low = {"cost": 1, "waitTimeSeconds": wait, "remainingQueries": remaining}
    high = {"cost": 4, "waitTimeSeconds": wait, "remainingQueries": remaining // 4}
    return {
        **limits,
        "remainingTokens": remaining,
        "totalTokens": limits["totalQueries"],
        "lowEffortRateLimits": low,
        "highEffortRateLimits": high,
    }


async def quota_info(call: Call) -> web.Response:
    """All five products, null where the tier does not offer one (6.3)."""
    now = call.state.options.now()
    products = {key: _product(call.account, bucket, now) for key, bucket in _PRODUCTS.items()}
    return web.json_response({"image": None, **products})


def _product(account: WebAccount, bucket: str, now: float) -> dict[str, Any] | None:
    counter = account.counter(bucket, now)
    if counter.total == 0:
        return {"available": False} if bucket == "image_edit" else None
    remaining = counter.remaining(now)
    product: dict[str, Any] = {
        "available": True,
        "remainingQueries": remaining,
        "windowSizeSeconds": counter.window_s,
    }
    if remaining == 0:
        reset = datetime.fromtimestamp(counter.ends_at, UTC)
        product["nextAvailableAt"] = reset.isoformat().replace("+00:00", "Z")
    return product


async def credits_info(call: Call) -> web.Response:
    """The weekly pool of a paid account; a basic one is refused (6.4)."""
    if call.record.body != EMPTY:
        return grpc_reply(call, b"", 3)
    if call.account.shape == "basic":
        return grpc_reply(call, b"", 7)
    start = call.state.options.now() // DAY * DAY + 0.25
    return grpc_reply(call, credits_config(12.5, start, start + 7 * DAY), 0)


def grpc_reply(call: Call, message: bytes, status: int) -> web.Response:
    """A gRPC-web answer whose status travels the way the options say (1.6)."""
    headers = {"Content-Type": "application/grpc-web+proto"}
    where = call.state.options.grpc_trailer
    if where == "header":
        headers["grpc-status"] = str(status)
    elif where == "frame" or status:
        message += trailer(status)
    return web.Response(body=message, headers=headers)


async def accept_tos(call: Call) -> web.Response:
    """SetTosAcceptedVersion: only the exact bytes are right (11.1)."""
    _need_both_cookies(call)
    if call.record.body != TOS_ACCEPT:
        return grpc_reply(call, b"", 3)
    call.account.settings["tos_accepted"] = 1
    return grpc_reply(call, EMPTY, 0)


async def set_tos_accepted(call: Call) -> web.Response:
    """The second step on grok.com (11.1)."""
    _need_both_cookies(call)
    if call.json().get("tosVersion") != TOS_VERSION:
        raise call.bad_request("tosVersion")
    call.account.settings["tos_version"] = TOS_VERSION
    return web.json_response({})


async def set_birth_date(call: Call) -> web.Response:
    """Permanent: a second call answers 429 with the marker (11.2)."""
    _need_both_cookies(call)
    date = call.json().get("birthDate")
    if not isinstance(date, str) or not _is_birth_date(date):
        raise call.bad_request("birthDate")
    if "birth_date" in call.account.settings:
        raise web_refusal(429, 8, BIRTH_DATE_LOCKED)
    call.account.settings["birth_date"] = date
    return web.json_response({})


def _is_birth_date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%dT16:00:00.000Z")  # noqa: DTZ007  # a date with a fixed time
    except ValueError:
        return False
    return True


async def feature_controls(call: Call) -> web.Response:
    """UpdateUserFeatureControls: the two exact requests of 11.3."""
    _need_both_cookies(call)
    for enabled in (True, False):
        if call.record.body == nsfw_control(enabled):
            call.account.settings["always_show_nsfw_content"] = enabled
            return grpc_reply(call, EMPTY, 0)
    return grpc_reply(call, b"", 3)


def _need_both_cookies(call: Call) -> None:
    if not call.request.cookies.get("sso-rw"):
        call.state.violate("missing-cookie", call.request.path, "sso-rw")
        raise Refused(NO_SESSION)


_JSON = Expect(json=True)
_GRPC = Expect(grpc=True, referer_path="*")
_TOLD = frozenset({"blocked", "unauthenticated"})
ROUTES = (
    web.get("/api/auth/session", web_endpoint(session, Expect(origin=False), tolerates=_TOLD)),
    web.post("/rest/rate-limits", web_endpoint(rate_limits, _JSON)),
    web.post(
        "/rest/media/imagine/quota_info",
        web_endpoint(quota_info, Expect(json=True, referer_path="/imagine")),
    ),
    web.post(
        "/grok_api_v2.GrokBuildBilling/GetGrokCreditsConfig", web_endpoint(credits_info, _GRPC)
    ),
    web.post(
        "/auth_mgmt.AuthManagement/SetTosAcceptedVersion",
        web_endpoint(accept_tos, Expect("accounts", "/accept-tos", grpc=True)),
    ),
    web.post("/rest/auth/set-tos-accepted", web_endpoint(set_tos_accepted, _JSON)),
    web.post("/rest/auth/set-birth-date", web_endpoint(set_birth_date, _JSON)),
    web.post(
        "/auth_mgmt.AuthManagement/UpdateUserFeatureControls",
        web_endpoint(feature_controls, Expect(grpc=True, referer_path="*")),
    ),
)
