"""The official SDK asks for pictures, by every way."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.drawing import WAYS, Drawing, drawing_by
from tests.gateway.live import KEY
from tests.gateway.media import samples

MODEL = "grok-imagine-1.0"
EDITOR = "grok-imagine-1.0-edit"


@pytest.fixture(scope="module", params=list(WAYS))
def gateway(
    sandbox: SandboxThread,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Drawing]:
    with drawing_by(sandbox, tmp_path_factory.mktemp("media"), request.param) as running:
        yield running


@pytest.fixture
def client(gateway: Drawing) -> Iterator[OpenAI]:
    with connected(gateway) as opened:
        yield opened


def connected(gateway: Drawing) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)


def test_it_generates_addresses(gateway: Drawing, client: OpenAI) -> None:
    answer = client.images.generate(model=MODEL, prompt="a lighthouse", n=2, size="1024x1792")

    assert answer.data is not None
    assert len(answer.data) == 2
    assert all(gateway.kept(str(picture.url)) for picture in answer.data)
    assert answer.created > 1_700_000_000
    assert answer.usage is None


def test_it_generates_base64(client: OpenAI) -> None:
    answer = client.images.generate(
        model=MODEL, prompt="a lighthouse", response_format="b64_json", quality="hd", style="vivid"
    )

    assert answer.data is not None
    (picture,) = answer.data
    assert base64.b64decode(str(picture.b64_json)).startswith(b"\xff\xd8\xff")
    assert picture.url is None


def test_it_streams(gateway: Drawing, client: OpenAI) -> None:
    events: list[Any] = list(
        client.images.generate(
            model=MODEL,
            prompt="a lighthouse",
            n=2,
            stream=True,
            partial_images=2,
            response_format="b64_json",
        )
    )

    done = [event for event in events if isinstance(event, ImageGenCompletedEvent)]
    partial = [event for event in events if isinstance(event, ImageGenPartialImageEvent)]
    assert len(done) == 2
    assert len(done) + len(partial) == len(events)
    for event in done:
        assert base64.b64decode(event.b64_json).startswith(b"\xff\xd8\xff")
        assert event.output_format == "jpeg"
        assert event.usage is None
    for number, preview in enumerate(partial):
        assert preview.partial_image_index == number
        assert base64.b64decode(preview.b64_json)[:3] in (b"\xff\xd8\xff", b"\x89PN")
    if gateway.entry(1).kind != "api":
        assert partial


async def test_it_streams_asynchronously(gateway: Drawing) -> None:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.images.generate(model=MODEL, prompt="a lighthouse", stream=True)
        types = [event.type async for event in stream]
    assert types[-1] == "image_generation.completed"


@pytest.mark.parametrize("count", [1, 3])
def test_it_edits_files(client: OpenAI, count: int) -> None:
    files = [("cat.png", samples.PNG), ("cat.jpg", samples.JPEG), ("cat.webp", samples.WEBP)]
    image: Any = files[0] if count == 1 else files
    answer = client.images.edit(model=EDITOR, prompt="make it blue", image=image, n=2)

    assert answer.data is not None
    assert len({picture.url for picture in answer.data}) == 2


def test_an_edit_with_a_mask(client: OpenAI) -> None:
    answer: Any = client.images.edit(
        model=EDITOR, prompt="blue", image=samples.PNG, mask=samples.PNG, size="1024x1024"
    )

    assert answer.ignored == ["mask"]


def test_an_edit_streams(client: OpenAI) -> None:
    stream = client.images.edit(model=EDITOR, prompt="blue", image=samples.PNG, stream=True)

    types: list[str] = [event.type for event in stream]
    assert types[-1] == "image_generation.completed"


def test_variations(client: OpenAI) -> None:
    with pytest.warns(DeprecationWarning):
        answer = client.images.create_variation(model=EDITOR, image=samples.PNG, n=2)

    assert answer.data is not None
    assert len(answer.data) == 2


def test_sixteen_files(sandbox: SandboxThread, tmp_path: Path) -> None:
    files: Any = [(f"{number}.png", samples.PNG) for number in range(16)]
    with (
        drawing_by(sandbox, tmp_path, "chat-gen1") as gateway,
        connected(gateway) as client,
    ):
        answer = client.images.edit(model=EDITOR, prompt="all of them", image=files)

    assert answer.data is not None
    assert len(answer.data) == 1


def test_a_wrong_field_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=MODEL, prompt="x", n=11)

    assert (caught.value.code, caught.value.param) == ("less_than_equal", "body.n")


def test_moderation_is_a_bad_request(sandbox: SandboxThread, tmp_path: Path) -> None:
    with (
        drawing_by(sandbox, tmp_path, "chat", "moderated") as gateway,
        connected(gateway) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.images.generate(model=MODEL, prompt="x")
    assert caught.value.code == "content_policy_violation"


def test_a_broken_stream_raises(sandbox: SandboxThread, tmp_path: Path) -> None:
    with (
        drawing_by(sandbox, tmp_path, "imagine", "cut") as gateway,
        connected(gateway) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        list(client.images.generate(model=MODEL, prompt="x", stream=True, n=2))
    assert caught.value.code == "image_generation_incomplete"
