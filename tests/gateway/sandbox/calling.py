"""Requests a well-behaved gateway would send, and readers of what comes back."""

from __future__ import annotations

import json
import uuid
from typing import Any

import aiohttp

from gateway.sandbox.accounts import user_id_of

OK = "ok-1"
GEN1: dict[str, Any] = {
    "temporary": True,
    "modelName": "grok-4-1-thinking-1129",
    "modelMode": "MODEL_MODE_FAST",
    "fileAttachments": [],
    "imageAttachments": [],
}
GEN2: dict[str, Any] = {
    "temporary": True,
    "modeId": "fast",
    "fileAttachments": [],
    "imageAttachments": [],
}


class Caller:
    """Sends what upstream-web and upstream-xai ask for; ``url`` is the sandbox's."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    def web_headers(self, token: str, referer: str = "/", **more: str) -> dict[str, str]:
        return {
            "Cookie": f"sso={token}; sso-rw={token}",
            "Origin": self.url,
            "Referer": self.url + referer,
            "User-Agent": "Mozilla/5.0 (test)",
            **more,
        }

    def web_post(
        self, token: str, path: str, body: Any, referer: str = "/", **more: str
    ) -> aiohttp.client._RequestContextManager:
        headers = self.web_headers(token, referer, **more)
        return self.session.post(self.url + path, json=body, headers=headers)

    def web_get(
        self, token: str, path: str, referer: str = "/"
    ) -> aiohttp.client._RequestContextManager:
        return self.session.get(self.url + path, headers=self.web_headers(token, referer))

    def grpc(
        self, token: str, path: str, body: bytes, referer: str = "/"
    ) -> aiohttp.client._RequestContextManager:
        kind = "application/grpc-web+proto"
        headers = self.web_headers(token, referer, **{"Content-Type": kind, "x-grpc-web": "1"})
        return self.session.post(self.url + path, data=body, headers=headers)

    def chat(
        self, token: str, message: str = "hi", **body: Any
    ) -> aiohttp.client._RequestContextManager:
        """One call of ``conversations/new``; without a ``body``, the newer chat form."""
        whole = {**(body or GEN2), "message": message}
        path = "/rest/app-chat/conversations/new"
        request_id = str(uuid.uuid4())
        return self.web_post(token, path, whole, **{"x-xai-request-id": request_id})

    def xai_post(self, token: str, path: str, body: Any) -> aiohttp.client._RequestContextManager:
        headers = {"Authorization": f"Bearer {token}"}
        return self.session.post(self.url + path, json=body, headers=headers)

    def xai(
        self, method: str, token: str, path: str, **keys: Any
    ) -> aiohttp.client._RequestContextManager:
        headers = {"Authorization": f"Bearer {token}"}
        return self.session.request(method, self.url + path, headers=headers, **keys)

    def completions(
        self, token: str = OK, prompt: str = "hi", **body: Any
    ) -> aiohttp.client._RequestContextManager:
        messages = [{"role": "user", "content": prompt}]
        whole = {"model": "grok-4.3", "messages": messages, **body}
        return self.xai_post(f"xai-{token}", "/v1/chat/completions", whole)

    def mgw(
        self, token: str, uid: str | None = None, **headers: str
    ) -> aiohttp.client._WSRequestContextManager:
        uid = uid or user_id_of(token)
        cookie = f"sso={token}; sso-rw={token}; x-userid={uid}"
        head = {"Cookie": cookie, "Origin": self.url, "User-Agent": "test", **headers}
        return self.session.ws_connect(f"{self.url}/ws/mgw/?uid={uid}", headers=head)

    def imagine(self, token: str) -> aiohttp.client._WSRequestContextManager:
        headers = self.web_headers(token, "/imagine")
        return self.session.ws_connect(f"{self.url}/ws/imagine/listen", headers=headers)


def json_lines(body: bytes) -> list[dict[str, Any]]:
    """Objects of a body with one per line."""
    return [json.loads(line) for line in body.splitlines() if line]


def responses(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ``response`` parts of REST stream objects."""
    return [o["result"]["response"] for o in objects if "response" in o.get("result", {})]


def answer_text(objects: list[dict[str, Any]]) -> str:
    """Raw answer tokens joined: not thinking, tag ``final`` or none."""
    return "".join(
        part["token"]
        for part in responses(objects)
        if part.get("token")
        and not part.get("isThinking")
        and part.get("messageTag", "final") == "final"
    )


def sse_data(body: bytes) -> list[str]:
    """The data of each SSE event."""
    return [
        line.removeprefix(b"data: ").decode()
        for line in body.split(b"\n")
        if line.startswith(b"data: ")
    ]


def chunks(body: bytes) -> list[dict[str, Any]]:
    """The JSON of each SSE event but the last, which must be ``[DONE]``."""
    data = sse_data(body)
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


async def open_mgw(
    ws: aiohttp.ClientWebSocketResponse[bool], mode: str = "fast"
) -> tuple[str, list[str]]:
    """Create a session; returns its id and the types of the two opening frames."""
    create = {"type": "session.create", "event_id": "evt_init_1", "session": {"model": mode}}
    await ws.send_json({"event": create})
    frames = [await ws.receive_json() for _ in range(2)]
    return frames[0]["session_id"], [frame["event"]["type"] for frame in frames]


async def ask_mgw(
    ws: aiohttp.ClientWebSocketResponse[bool], session: str, text: str, files: tuple[str, ...] = ()
) -> None:
    """Send a turn and ask for its answer."""
    mentions = [{"mention": {"target": {"file_mention": {"file_id": id_}}}} for id_ in files]
    grok = {"client_message_id": "m1", "input_chunks": [*mentions, {"text": {"text": text}}]}
    item: dict[str, Any] = {"type": "message", "role": "user", "x_grok": grok}
    event: dict[str, Any] = {"type": "conversation.item.create", "event_id": "evt_msg_1"}
    if files:
        item["file_attachment_ids"] = event["file_attachment_ids"] = list(files)
    await ws.send_json({"session_id": session, "event": {**event, "item": item}})
    await ws.send_json({"session_id": session, "event": {"type": "response.create"}})


async def read_events(ws: aiohttp.ClientWebSocketResponse[bool]) -> list[dict[str, Any]]:
    """Events up to the answer's end, an error, or the socket's."""
    events: list[dict[str, Any]] = []
    async for message in ws:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        try:
            event = json.loads(message.data)["event"]
        except (ValueError, KeyError, TypeError):
            event = {"type": "unreadable"}
        events.append(event)
        if event["type"] in ("response.done", "error"):
            break
    return events
