"""The floor in front of grok.com's WebSocket chat: a socket and three frames per request.

Opened with aiohttp's own client, whose frame parser is compiled; like the other floor it
checks nothing and knows one account.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from bench.floor import Chunks, Floor, Send, completion, send_whole

USER_ID = "11111111-2222-4333-8444-555555555555"
COOKIE = f"sso=ok-floor; sso-rw=ok-floor; x-userid={USER_ID}"
SESSION = {
    "model": "auto",
    "x_grok": {
        "protocol_capabilities": ["conversation_attached", "custom_methods_v1"],
        "use_chunk": True,
        "enable_side_by_side": True,
        "enable_image_generation": True,
        "image_generation_count": 2,
        "keep_context": False,
        "is_temporary": True,
        "disable_memory": True,
    },
}


class SocketFloor(Floor):
    async def _chat(self, body: bytes, send: Send) -> None:
        assert self._session is not None
        asked = json.loads(body)
        prompt = "\n\n".join(message["content"] for message in asked["messages"])
        url = self._base_url.replace("http", "ws", 1) + f"/ws/mgw/?uid={USER_ID}"
        headers = {"Origin": self._base_url, "Cookie": COOKIE, "User-Agent": "floor"}
        async with self._session.ws_connect(url, headers=headers) as socket:
            if asked.get("stream"):
                await self._stream(asked["model"], tokens(socket, prompt), send)
            else:
                content = "".join([token async for token in tokens(socket, prompt)])
                answer_id = f"chatcmpl-{uuid.uuid4().hex}"
                now = int(time.time())
                await send_whole(
                    send, completion(answer_id, asked["model"], now, len(body), content)
                )

    async def _stream(self, model: str, answer: AsyncIterator[str], send: Send) -> None:
        chunks = Chunks(f"chatcmpl-{uuid.uuid4().hex}", model, int(time.time()))
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening = chunks.start()
        async for token in answer:
            message = opening + chunks.text(token)
            opening = b""
            await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": chunks.end()})


async def tokens(socket: aiohttp.ClientWebSocketResponse, prompt: str) -> AsyncIterator[str]:
    """Ask once the session stands, then give the answer's pieces until it is done."""
    event_id = f"evt_init_{uuid.uuid4()}"
    create = {"type": "session.create", "event_id": event_id, "session": SESSION}
    await socket.send_str(json.dumps({"event": create}))
    opened = 0
    async for message in socket:
        frame = json.loads(message.data)
        event = frame["event"]
        kind = event["type"]
        if kind in {"session.created", "conversation.attached"}:
            opened += 1
            if opened == 2:
                await ask(socket, frame["session_id"], prompt)
        elif kind == "response.chunk" and (text := event["chunk"].get("text")):
            if text.get("channel", "") in {"", "CHANNEL_ASSISTANT_RESPONSE"}:
                yield text["text"]
        elif kind == "response.done":
            return


async def ask(socket: aiohttp.ClientWebSocketResponse, session_id: str, prompt: str) -> None:
    now = time.time_ns() // 1_000_000
    item: dict[str, Any] = {
        "type": "message",
        "role": "user",
        "x_grok": {
            "client_message_id": str(uuid.uuid4()),
            "input_chunks": [{"text": {"text": prompt}}],
        },
    }
    turn = {"type": "conversation.item.create", "event_id": f"evt_msg_{now}", "item": item}
    respond = {"type": "response.create", "event_id": f"evt_resp_{now}"}
    await socket.send_str(json.dumps({"session_id": session_id, "event": turn}))
    await socket.send_str(json.dumps({"session_id": session_id, "event": respond}))
