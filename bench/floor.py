"""The floor: the same translation with nothing around it.

A raw ASGI application and an aiohttp client: no keys, no pool, no accounts, no framework, no
checks. It parses every frame and builds every frame, with the fields the gateway sends, so
that what the gateway costs beyond it is the price of what the gateway does beyond it.

Frames are read with the standard library's json; ``--decoder pydantic`` reads them with the
faster parser that the gateway uses too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import aiohttp
import uvicorn
from pydantic_core import from_json

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Decode = Callable[[bytes], Any]
DECODERS: dict[str, Decode] = {"json": json.loads, "pydantic": from_json}

DONE = b"data: [DONE]\n\n"
WEB_PATH = "/rest/app-chat/conversations/new"
WEB_FIELDS = {
    "temporary": True,
    "modeId": "auto",
    "collectionIds": [],
    "disabledConnectorIds": [],
    "toolOverrides": {
        "gmailSearch": False,
        "googleCalendarSearch": False,
        "outlookSearch": False,
        "outlookCalendarSearch": False,
        "googleDriveSearch": False,
    },
    "responseMetadata": {},
    "imageAttachments": [],
    "disableSearch": False,
    "enableImageGeneration": True,
    "returnImageBytes": False,
    "returnRawGrokInXaiRequest": False,
    "enableImageStreaming": True,
    "imageGenerationCount": 2,
    "forceConcise": False,
    "enableSideBySide": True,
    "sendFinalMetadata": True,
    "disableTextFollowUps": False,
    "forceSideBySide": False,
    "isAsyncChat": False,
    "disableSelfHarmShortCircuit": False,
    "disableMemory": True,
    "fileAttachments": [],
}


class WebSide:
    """grok.com's REST chat."""

    path = WEB_PATH

    def __init__(self, base_url: str, decode: Decode) -> None:
        self._decode = decode
        self._headers = {
            "Accept": "*/*",
            "User-Agent": "floor",
            "Content-Type": "application/json",
            "Origin": base_url,
            "Referer": f"{base_url}/",
            "Cookie": "sso=ok-floor; sso-rw=ok-floor",
        }

    def headers(self) -> dict[str, str]:
        return {**self._headers, "x-xai-request-id": str(uuid.uuid4())}

    def body(self, asked: dict[str, Any]) -> bytes:
        prompt = "\n\n".join(message["content"] for message in asked["messages"])
        return json.dumps({**WEB_FIELDS, "message": prompt}).encode()

    def whole(self, body: bytes) -> str:
        return "".join(token for line in body.splitlines() for token in self.tokens(line))

    def tokens(self, line: bytes) -> Iterator[str]:
        response = self._decode(line).get("result", {}).get("response")
        if response and (token := response.get("token")) and not response.get("isThinking"):
            yield token


class XaiSide:
    """api.x.ai's chat completions, streamed or not as the client asks."""

    path = "/v1/chat/completions"

    def __init__(self, base_url: str, decode: Decode) -> None:
        self._decode = decode
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": "Bearer xai-ok-floor-000000000000000001",
        }

    def headers(self) -> dict[str, str]:
        return self._headers

    def body(self, asked: dict[str, Any]) -> bytes:
        usage = {"stream_options": {"include_usage": True}} if asked.get("stream") else {}
        return json.dumps({**asked, **usage, "model": "grok-4.3"}).encode()

    def whole(self, body: bytes) -> str:
        content: str = self._decode(body)["choices"][0]["message"]["content"]
        return content

    def tokens(self, line: bytes) -> Iterator[str]:
        if line.startswith(b"data: {"):
            for choice in self._decode(line[6:])["choices"]:
                if token := choice["delta"].get("content"):
                    yield token


class Chunks:
    """Builds the frames of one answer; what never changes is built once."""

    def __init__(self, answer_id: str, model: str, created: int) -> None:
        self._shared = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": None,
        }
        head, tail = self._frame({"content": "@"}, None).split(b'"@"')
        self._head, self._tail = head, tail

    def _frame(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"data: %b\n\n" % json.dumps({**self._shared, "choices": [choice]}).encode()

    def start(self) -> bytes:
        return self._frame({"role": "assistant", "content": ""}, None)

    def text(self, token: str) -> bytes:
        return self._head + json.dumps(token).encode() + self._tail

    def end(self) -> bytes:
        return self._frame({}, "stop") + DONE


def completion(answer_id: str, model: str, created: int, asked: int, content: str) -> bytes:
    """A whole answer; ``asked`` is the length of the question."""
    prompt, answer = -(-asked // 4), -(-len(content) // 4)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": [],
    }
    return json.dumps(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": created,
            "model": model,
            "system_fingerprint": None,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": answer,
                "total_tokens": prompt + answer,
            },
        }
    ).encode()


class Floor:
    """The ASGI application."""

    def __init__(self, base_url: str, side: WebSide | XaiSide) -> None:
        self._base_url, self._side = base_url, side
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/v1/chat/completions":
            await self._chat(await _read_body(receive), send)
        else:
            await send_whole(send, b"{}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        connector = aiohttp.TCPConnector(limit=2000)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar()
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _chat(self, body: bytes, send: Send) -> None:
        assert self._session is not None
        asked = json.loads(body)
        side = self._side
        url = self._base_url + side.path
        async with self._session.post(
            url, data=side.body(asked), headers=side.headers()
        ) as upstream:
            upstream.raise_for_status()
            if asked.get("stream"):
                await self._relay(asked["model"], upstream, send)
            else:
                await self._collect(asked["model"], len(body), upstream, send)

    async def _relay(self, model: str, upstream: aiohttp.ClientResponse, send: Send) -> None:
        chunks = Chunks(f"chatcmpl-{uuid.uuid4().hex}", model, int(time.time()))
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening, rest, tokens, text = chunks.start(), b"", self._side.tokens, chunks.text
        async for read in upstream.content.iter_any():
            *lines, rest = (rest + read).split(b"\n")
            frames = [text(token) for line in lines if line for token in tokens(line)]
            message = opening + b"".join(frames)
            opening = b""
            if message:
                await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": chunks.end()})

    async def _collect(
        self, model: str, asked: int, upstream: aiohttp.ClientResponse, send: Send
    ) -> None:
        content = self._side.whole(await upstream.read())
        answer_id = f"chatcmpl-{uuid.uuid4().hex}"
        await send_whole(send, completion(answer_id, model, int(time.time()), asked, content))


async def _read_body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def send_whole(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run(application: Floor, port: int) -> None:
    uvicorn.run(
        application,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        backlog=2048,
    )
