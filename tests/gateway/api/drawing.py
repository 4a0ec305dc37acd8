"""A gateway that draws, over a cache of the test's own, and reading what it says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from gateway.media.store import MediaStore
from gateway.sandbox.serve import SandboxThread
from pool.keys import KeyLimits
from tests.gateway.api.test_disconnects import wait_for
from tests.gateway.live import KEY, LiveGateway, record
from tests.gateway.media import samples
from tests.gateway.relay.recordings import Heard

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"
VARY = "/v1/images/variations"
PICTURE = ("image", ("a.png", samples.PNG, "image/png"))
"""A form's file, as httpx takes it."""
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("{}-1", {"grok.chat_protocol": "mgw"}),
    "chat-rest": ("{}-1", {"grok.chat_protocol": "rest"}),
    "chat-gen1": (
        "{}-1",
        {
            "grok.chat_protocol": "rest",
            "grok.rest_form": "model_name",
            "grok.media_protocol": "legacy",
        },
    ),
    "imagine": ("{}-1", {"grok.image_generation_method": "imagine_ws_experimental"}),
    "imagine-legacy": (
        "{}-1",
        {
            "grok.image_generation_method": "imagine_ws_experimental",
            "grok.media_protocol": "legacy",
        },
    ),
    "xai": ("xai-{}-0000000000000001", {"pool.policy": "api_only"}),
}
"""Every way to pictures: the form of a credential's name, and the settings."""


class Drawing(LiveGateway):
    """``root`` is where its cache lies, ``heard`` what it told of its requests."""

    root: Path
    heard: Heard

    @property
    def store(self) -> MediaStore:
        return self.runtime.hosting.store

    def kept(self, url: str) -> bytes:
        """The file that a link means, whose signature has to be good."""
        parts = urlsplit(url)
        assert parts.path.startswith("/v1/files/image/"), url
        name = parts.path.rpartition("/")[2]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        left = self.runtime.hosting.links.verify("image", name, query["exp"], query["sig"])
        assert left > 3600
        return (self.root / "image" / name).read_bytes()

    def temporary(self) -> list[str]:
        """What of files is on the disk that is no finished file."""
        found = [path for path in self.root.rglob("*") if path.is_file()]
        return [str(path) for path in found if path.name.startswith(".")]

    @property
    def held(self) -> list[object]:
        """What is held: leases, requests, half files."""
        pool = self.runtime.pool
        busy = [entry.in_flight for entry in pool.entries if entry.in_flight]
        counts = [n for n in (pool.open_leases, self.application.running) if n]
        return [*busy, *counts, *self.temporary()]

    def gives_all_back(self, within: float = 1.0) -> bool:
        """Whether nothing is held any more, soon; upstream is at rest too."""
        return wait_for(lambda: not self.held and not self.sandbox.state.open_streams, within)

    def has_begun(self) -> bool:
        """Whether upstream's first event has come in the request that runs."""
        return any(one.first_event is not None for one in self.heard.began_)


@contextmanager
def drawing(
    sandbox: SandboxThread,
    root: Path,
    credentials: list[str],
    settings: Mapping[str, Any] | None = None,
    *,
    images: int | None = None,
    concurrency: int | None = None,
) -> Iterator[Drawing]:
    """``images`` is the key's daily limit, ``concurrency`` its requests at the same time."""
    sandbox.state.reset()
    limits = KeyLimits(**{k: v for k, v in (("image", images), ("concurrency", concurrency)) if v})
    gateway = Drawing(sandbox, credentials, settings=settings, keys={KEY: record(limits=limits)})
    gateway.root, gateway.heard = root, Heard()

    def prepare(running: LiveGateway) -> None:
        hosting = running.runtime.hosting
        hosting.store = running.runtime.media = MediaStore(root, reserve=0)
        running.runtime.observers = gateway.heard  # type: ignore[assignment]

    gateway.prepare = prepare
    with gateway:
        yield gateway


@contextmanager
def drawing_by(
    sandbox: SandboxThread,
    root: Path,
    way: str,
    behaviour: str = "ok",
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Drawing]:
    """The same with one credential, by one of WAYS."""
    name, chosen = WAYS[way]
    merged = {"grok.timeout": 2, "xai.timeout": 2} | chosen | dict(settings or {})
    with drawing(sandbox, root, [name.format(behaviour)], merged, **options) as gateway:
        yield gateway


def generate(gateway: LiveGateway, **fields: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post(GENERATE, json={"prompt": "a lighthouse", **fields})


def edit(
    gateway: LiveGateway, pictures: list[bytes], path: str = EDIT, **fields: Any
) -> httpx.Response:
    files = [("image[]", (f"{n}.png", content, "image/png")) for n, content in enumerate(pictures)]
    data = {name: str(value) for name, value in fields.items()}
    with gateway.client() as client:
        return client.post(path, files=files, data={"prompt": "make it blue", **data})


def answer_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text[:500]
    answer: dict[str, Any] = response.json()
    return answer


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """Named events with their data, in order; comments are left out."""
    assert response.status_code == 200, response.text[:500]
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text.endswith("\n\n")
    found = []
    for block in response.text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert event["type"] == name.removeprefix("event: ")
        found.append((event["type"], event))
    return found


def is_jpeg(data: str) -> bool:
    return base64.b64decode(data, validate=True).startswith(b"\xff\xd8\xff")
