"""``/v1/images/*`` by every way: what is delivered, whole and as a stream."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.drawing import (
    EDIT,
    GENERATE,
    PICTURE,
    VARY,
    WAYS,
    Drawing,
    answer_of,
    drawing,
    drawing_by,
    edit,
    events_of,
    generate,
    is_jpeg,
)
from tests.gateway.api.reading import configured
from tests.gateway.media import samples

DATA_URI = "data:image/png;base64," + base64.b64encode(samples.PNG).decode()
EXPERIMENTAL = {"grok.image_generation_method": "imagine_ws_experimental"}
Field = dict[str, Any]


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawing]:
    with drawing(sandbox, tmp_path_factory.mktemp("media"), ["ok-1"]) as running:
        yield running


@pytest.fixture
def client(gateway: Drawing) -> Iterator[httpx.Client]:
    with gateway.client() as opened:
        yield opened


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_as_many_pictures_as_asked_for(
    sandbox: SandboxThread, tmp_path: Path, way: str, count: int
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        answer = answer_of(generate(gateway, n=count))
        found = {gateway.kept(item["url"]) for item in answer["data"]}

        assert len(found) == len(answer["data"]) == count
        assert all(content.startswith(b"\xff\xd8\xff") for content in found)
        assert (answer["blocked"], answer["failed"], answer["usage"]) == (0, 0, None)
        assert gateway.gives_all_back()
        assert gateway.penalised() == []
    assert sandbox.state.violations == []


@pytest.mark.parametrize("field", ["b64_json", "base64", "B64_JSON"])
def test_pictures_as_base64(sandbox: SandboxThread, tmp_path: Path, way: str, field: str) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        answer = answer_of(generate(gateway, n=2, response_format=field))

    assert [set(item) for item in answer["data"]] == [{field.lower()}] * 2
    assert all(is_jpeg(item[field.lower()]) for item in answer["data"])


@pytest.mark.parametrize("format_", ["url", "base64", "b64_json"])
def test_the_format_is_the_operators_where_none_is_asked_for(
    gateway: Drawing, client: httpx.Client, format_: str
) -> None:
    with configured({"app.image_format": format_}):
        answer = client.post(GENERATE, json={"prompt": "x"}).json()

    assert set(answer["data"][0]) == {format_}


@pytest.mark.parametrize("keep", [True, False])
def test_base64_is_kept_as_a_file_only_if_the_operator_wants_that(
    sandbox: SandboxThread, tmp_path: Path, way: str, keep: bool
) -> None:
    with drawing_by(sandbox, tmp_path, way, settings={"cache.keep_base64_cache": keep}) as gateway:
        answer = answer_of(generate(gateway, response_format="b64_json"))

    assert is_jpeg(answer["data"][0]["b64_json"])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == (1 if keep else 0)


@pytest.mark.parametrize(("size", "ratio"), [
    ("1024x1024", "1:1"), ("1280x720", "16:9"), ("1024x1792", "2:3"), ("9:16", "9:16"),
    ("strange", "2:3"), (None, "1:1"),
])  # fmt: skip
@pytest.mark.parametrize("way", ["imagine", "imagine-legacy", "xai"])
def test_the_size_becomes_a_ratio(
    sandbox: SandboxThread, tmp_path: Path, way: str, size: str | None, ratio: str
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        answer_of(generate(gateway, size=size))
    if way == "xai":
        (asked,) = sandbox.state.requests_to("/v1/images/generations")
        assert json.loads(asked.body)["aspect_ratio"] == ratio
    else:
        assert properties(sandbox)["aspect_ratio"] == ratio


def properties(sandbox: SandboxThread) -> Field:
    """What the picture socket was asked for."""
    (asked,) = sandbox.state.requests_to("/ws/imagine/listen")
    found: Field = asked.frames[-1]["item"]["content"][0]["properties"]
    return found


@pytest.mark.parametrize("enabled", [True, False])
def test_the_nsfw_flag_is_the_operators(
    sandbox: SandboxThread, tmp_path: Path, enabled: bool
) -> None:
    with drawing_by(
        sandbox, tmp_path, "imagine", settings={"grok.nsfw_enabled": enabled}
    ) as gateway:
        answer_of(generate(gateway, nsfw=True, enable_nsfw=True))
    assert properties(sandbox)["enable_nsfw"] is enabled


@pytest.mark.parametrize("at_once", [1, 3])
def test_calls_run_at_the_same_time_as_far_as_asked(
    sandbox: SandboxThread, tmp_path: Path, at_once: int
) -> None:
    most = 0
    with drawing_by(sandbox, tmp_path, "chat", "slow") as gateway:
        ask = threading.Thread(target=lambda: generate(gateway, n=6, concurrency=at_once))
        ask.start()
        while ask.is_alive():
            most = max(most, gateway.runtime.pool.open_leases)
            ask.join(0.002)
    assert most == at_once


@pytest.mark.parametrize("pictures", [1, 2, 3])
def test_edits(sandbox: SandboxThread, tmp_path: Path, way: str, pictures: int) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        inputs = [samples.PNG, samples.JPEG, samples.WEBP][:pictures]
        answer = answer_of(edit(gateway, inputs, n=3))

        assert len({gateway.kept(item["url"]) for item in answer["data"]}) == 3
        assert gateway.gives_all_back()
    assert sandbox.state.violations == []


@pytest.mark.parametrize(("field", "value"), [
    ("image", DATA_URI),
    ("image", [DATA_URI, {"url": DATA_URI}]),
    ("image", {"image_url": DATA_URI}),
    ("images", [{"image_url": DATA_URI}]),
])  # fmt: skip
def test_edits_in_json(client: httpx.Client, gateway: Drawing, field: str, value: Any) -> None:
    answer = answer_of(client.post(EDIT, json={"prompt": "blue", field: value, "n": 2}))

    assert len(answer["data"]) == 2
    assert gateway.gives_all_back()


def test_an_edit_fetches_addresses(sandbox: SandboxThread, tmp_path: Path) -> None:
    url = f"{sandbox.url}/imagine-public/images/cat.png"
    settings_ = {"grok.allow_private_fetch": True}
    with drawing(sandbox, tmp_path, ["ok-1"], settings_) as gateway, gateway.client() as client:
        answer = answer_of(client.post(EDIT, json={"prompt": "blue", "image": url}))

    assert len(answer["data"]) == 1


def test_a_mask_is_accepted_and_reported_as_ignored(gateway: Drawing, client: httpx.Client) -> None:
    files: list[Any] = [PICTURE, ("mask", ("m.png", samples.PNG))]
    form = client.post(EDIT, data={"prompt": "x"}, files=files)
    in_json = client.post(EDIT, json={"prompt": "x", "image": DATA_URI, "mask": DATA_URI})
    without = client.post(EDIT, data={"prompt": "x"}, files=[PICTURE])

    assert answer_of(form)["ignored"] == ["mask"]
    assert answer_of(in_json)["ignored"] == ["mask"]
    assert "ignored" not in answer_of(without)


def test_variations_are_edits_with_words_of_ours(gateway: Drawing) -> None:
    gateway.sandbox.state.reset()
    answer = answer_of(edit(gateway, [samples.PNG], VARY, n=2))

    assert len(answer["data"]) == 2
    bodies = [
        json.loads(asked.body)
        for asked in gateway.sandbox.state.requests_to("/rest/app-chat/conversations/new")
    ]
    assert [body["message"] for body in bodies] == [bodies[0]["message"]]
    assert "variation" in bodies[0]["message"]


@pytest.mark.parametrize(("inputs", "way"), [(16, "chat-gen1"), (8, "chat")])
def test_an_edit_takes_as_many_pictures_as_upstream(
    sandbox: SandboxThread, tmp_path: Path, inputs: int, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        answer = answer_of(edit(gateway, [samples.PNG] * inputs))
    assert len(answer["data"]) == 1


def test_many_inputs_go_where_they_are_taken(sandbox: SandboxThread, tmp_path: Path) -> None:
    credentials = ["xai-ok-0000000000000001", "ok-2"]
    settings_ = {"pool.policy": "api_first"}
    with drawing(sandbox, tmp_path, credentials, settings_) as gateway:
        answer_of(edit(gateway, [samples.PNG] * 4))
        before = sandbox.state.counters["/v1/images/edits"]
        answer_of(edit(gateway, [samples.PNG] * 3))
    assert (before, sandbox.state.counters["/v1/images/edits"]) == (0, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_a_stream_ends_with_every_picture(
    sandbox: SandboxThread, tmp_path: Path, way: str, count: int
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        events = events_of(generate(gateway, stream=True, n=count))
        done = [event for name, event in events if name == "image_generation.completed"]
        partial = [event for name, event in events if name == "image_generation.partial_image"]

        assert {gateway.kept(event["url"])[:3] for event in done} == {b"\xff\xd8\xff"}
        assert gateway.gives_all_back()
    assert sorted(event["index"] for event in done) == list(range(count))
    assert len(done) + len(partial) == len(events)
    assert all(0 <= event["progress"] <= 100 for event in partial)
    assert [event["partial_image_index"] for event in partial] == list(range(len(partial)))
    assert {event["index"] for event in partial} <= set(range(count))
    if way != "xai":
        assert partial
    assert "assets" not in str(partial)
    assert all(event["url"] == "" for event in partial)


@pytest.mark.parametrize("way", ["imagine", "imagine-legacy"])
def test_previews_of_the_picture_socket_are_passed_on(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        events = events_of(generate(gateway, stream=True, response_format="base64"))
    (preview,) = [event for name, event in events if name.endswith("partial_image")]
    for field in ("base64", "b64_json"):
        assert base64.b64decode(preview[field]).startswith(b"\x89PNG")


@pytest.mark.parametrize(("wanted", "fetched"), [(None, False), (2, True), (0, False)])
def test_previews_that_have_to_be_fetched_come_if_asked_for(
    sandbox: SandboxThread, tmp_path: Path, wanted: int | None, fetched: bool
) -> None:
    with drawing_by(sandbox, tmp_path, "chat") as gateway:
        events = events_of(generate(gateway, stream=True, partial_images=wanted))
    partial = [event for name, event in events if name.endswith("partial_image")]
    assert bool(partial) is (wanted != 0)
    assert [bool(event["b64_json"]) for event in partial] == [fetched] * len(partial)


@pytest.mark.parametrize("behaviour", ["cut", "cutclean", "miderror"])
@pytest.mark.parametrize("way", ["imagine", "imagine-legacy"])
def test_a_stream_that_breaks_says_so_and_ends(
    sandbox: SandboxThread, tmp_path: Path, way: str, behaviour: str
) -> None:
    with drawing_by(sandbox, tmp_path, way, behaviour) as gateway:
        events = events_of(generate(gateway, stream=True, n=2))
        assert gateway.gives_all_back()
    name, last = events[-1]
    assert name == "error"
    assert last["error"]["type"] == "server_error"
    assert last["error"]["code"]
    assert [name for name, _ in events].count("error") == 1


@pytest.mark.parametrize("way", ["imagine", "xai"])
def test_a_stream_says_how_many_are_missing(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way, "moderated-one") as gateway:
        events = events_of(generate(gateway, stream=True, n=2))
    assert [name for name, _ in events].count("image_generation.completed") == 1
    assert events[-1] == (
        "image_generation.incomplete",
        {"type": "image_generation.incomplete", "blocked": 1, "failed": 0},
    )


def test_an_edit_can_be_streamed(sandbox: SandboxThread, tmp_path: Path, way: str) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        events = events_of(edit(gateway, [samples.PNG], stream="true", n=2))
        assert gateway.gives_all_back()
    assert [name for name, _ in events].count("image_generation.completed") == 2
