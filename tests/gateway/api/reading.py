"""Asking ``/v1`` and reading what it says: answers, streams, errors; settings for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway import conf

PATH = "/v1/chat/completions"
BASE_KEYS = {"message", "type", "param", "code"}


@dataclass(slots=True)
class Streamed:
    """A stream as a client puts it together; making one checks its shape."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    deltas: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    finish: str | None = None
    usage: dict[str, Any] | None = None

    @property
    def content(self) -> str:
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.get("reasoning_content") or "" for delta in self.deltas)

    @property
    def annotations(self) -> list[dict[str, Any]]:
        return [note for delta in self.deltas for note in delta.get("annotations", ())]

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        return [call for delta in self.deltas for call in delta.get("tool_calls", ())]


def read_stream(body: bytes) -> Streamed:
    """The stream in ``body``: data events only, one ``[DONE]``, which is the end."""
    assert body.endswith(b"\n\n")
    events = [event for event in body.decode().split("\n\n") if event and event[0] != ":"]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    data = [event.removeprefix("data: ") for event in events]
    assert data[-1] == "[DONE]"
    assert data.count("[DONE]") == 1
    streamed = Streamed()
    for value in map(json.loads, data[:-1]):
        assert streamed.error is None, "nothing but the end may follow an error"
        if "error" in value:
            streamed.error = value["error"]
        else:
            _take(streamed, value)
    if streamed.error is None:
        assert streamed.finish is not None
    return streamed


def _take(streamed: Streamed, chunk: dict[str, Any]) -> None:
    streamed.chunks.append(chunk)
    if not chunk["choices"]:
        streamed.usage = chunk["usage"]
        return
    assert streamed.finish is None, "a finished choice says no more"
    (choice,) = chunk["choices"]
    assert choice["index"] == 0
    streamed.deltas.append(choice["delta"])
    streamed.finish = choice["finish_reason"]


def chat_body(content: Any = "FRAMES:3", **fields: Any) -> dict[str, Any]:
    return {"model": "grok-4", "messages": [{"role": "user", "content": content}], **fields}


def ask(client: httpx.Client, content: Any = "FRAMES:3", **fields: Any) -> httpx.Response:
    return client.post(PATH, json=chat_body(content, **fields))


def whole(client: httpx.Client, content: Any = "FRAMES:3", **fields: Any) -> dict[str, Any]:
    response = ask(client, content, stream=False, **fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def streamed(client: httpx.Client, content: Any = "FRAMES:3", **fields: Any) -> Streamed:
    response = ask(client, content, stream=True, **fields)
    assert response.status_code == 200, response.text
    return read_stream(response.content)


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error in OpenAI's envelope, which must be all there is."""
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == BASE_KEYS
    assert isinstance(error["message"], str)
    assert error["message"]
    assert len(error["message"]) < 600
    assert isinstance(error["type"], str)
    return error


@contextmanager
def configured(settings: dict[str, Any]) -> Iterator[None]:
    """``settings`` as if saved in the panel."""
    conf.live.save(settings, "test")
    try:
        yield
    finally:
        conf.live.unset(settings)
