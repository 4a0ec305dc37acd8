"""Pictures and videos on chat completions: made there, or part of an ordinary answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.drawing import WAYS, drawing_by
from tests.gateway.api.reading import error_of, read_stream
from tests.gateway.relay.test_image_chat import PICTURE, TEXT, addresses


@pytest.mark.parametrize("way", WAYS)
def test_an_image_model_draws_and_edits_within_the_limits_of_its_key(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way, images=6) as gateway:
        streamed = read_stream(gateway.ask("grok-imagine-1.0", "a cat", stream=True).content)
        assert [gateway.kept(url) for url in addresses(streamed.content)]

        parts: Any = [TEXT, PICTURE]
        edited = gateway.ask("grok-imagine-1.0-edit", parts, stream=False).json()
        assert len(addresses(edited["choices"][0]["message"]["content"])) == 2
        bare = gateway.ask("grok-imagine-1.0-edit", "x", stream=False)
        assert error_of(bare, 400)["code"] == "missing_image"

        assert gateway.ask("grok-imagine-1.0", "a cat").status_code == 200
        over = gateway.ask("grok-imagine-1.0", "a cat")
        assert error_of(over, 429)["code"] == "image_daily_quota_exceeded"
        assert gateway.gives_all_back()


def test_a_picture_in_an_ordinary_answer_is_served_from_here(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    with drawing_by(sandbox, tmp_path, "chat-rest") as gateway:
        answer = gateway.ask("grok-4", "Drawing: a cat", stream=False).json()
        content = answer["choices"][0]["message"]["content"]
        assert "Here it is." in content
        urls = re.findall(r"!\[image\]\((\S+)\)", content)
        assert urls
        for url in urls:
            assert gateway.kept(url)
            assert "assets.grok.com" not in url
            assert not url.startswith(sandbox.url)
            path = url[url.index("/v1/files/") :]
            with gateway.client() as client:
                served = client.get(path, headers={"Authorization": ""})
            assert (served.status_code, served.headers["x-content-type-options"]) == (
                200,
                "nosniff",
            )
            assert served.headers["content-type"].startswith("image/")


def test_a_video_model_answers_with_a_video_element(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing_by(sandbox, tmp_path, "chat-rest") as gateway:
        answer = gateway.ask("grok-imagine-1.0-video", "waves", stream=False)
        assert answer.status_code == 200, answer.text
        content = answer.json()["choices"][0]["message"]["content"]
        assert content.lstrip().startswith("<video")
        assert "/v1/files/video/" in content
        assert gateway.gives_all_back()
