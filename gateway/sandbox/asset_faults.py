"""The download of a private asset, and what may befall it (upstream-web 10)."""

from __future__ import annotations

from aiohttp import web

from gateway.sandbox.behaviours import HTML, OTHER_PAGE, Refusal
from gateway.sandbox.calls import Call, Refused, web_refusal
from gateway.sandbox.faults import abort, forever
from gateway.sandbox.state import Asset

ACCESS_DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
HUGE_CHUNKS = 600
_MIB = bytes(1024 * 1024)


async def send_asset(call: Call, asset: Asset) -> web.StreamResponse:
    """The asset's bytes, or what the account's behaviour makes of them."""
    match call.behaviour.asset:
        case "denied":
            raise Refused(Refusal(403, ACCESS_DENIED, "application/xml"))
        case "flaky":
            asset.asked += 1
            if asset.asked <= 2:
                raise web_refusal(503, 14, "Service unavailable.")
        case "html":
            return web.Response(body=OTHER_PAGE, headers={"Content-Type": HTML})
        case "wrongtype":
            return web.Response(body=asset.content, content_type="text/plain")
        case "hang":
            await forever()
        case "reset":
            abort(call.request, call.record)
            return web.Response()
        case "huge":
            return await _huge(call, asset)
        case "cut":
            return await _cut(call, asset)
    return web.Response(body=asset.content, content_type=asset.content_type)


async def _cut(call: Call, asset: Asset) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": asset.content_type})
    response.content_length = len(asset.content)
    await response.prepare(call.request)
    await response.write(asset.content[: len(asset.content) // 2])
    abort(call.request, call.record)
    return response


async def _huge(call: Call, asset: Asset) -> web.StreamResponse:
    """The asset's own bytes, then 600 MiB of nothing, without a length."""
    response = web.StreamResponse(headers={"Content-Type": asset.content_type})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    call.record.settled = True
    await response.write(asset.content)
    for _ in range(HUGE_CHUNKS):
        await response.write(_MIB)
    await response.write_eof()
    return response
