"""Which way to pictures, and what is made of an upstream that does as it likes."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog import Catalog
from gateway.relay.images import Drawn, ImageJob
from gateway.relay.lanes import edit_lanes, imagine_lanes
from gateway.sandbox.serve import SandboxThread
from gateway.upstream.errors import ContentRefused, ImagesIncomplete, UpstreamError
from gateway.upstream.events import Event, Finished, ImageReady
from gateway.upstream.requests import Account, ImageRequest
from tests.gateway.api.drawing import Drawing, drawing
from tests.gateway.media import samples
from tests.gateway.relay.recordings import Heard, recording

DATA = base64.b64encode(samples.JPEG).decode()
Script = Sequence[list[Event] | UpstreamError]


class ScriptedXai:
    """Answers one call after the other with what it was given."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = iter(scripts)
        self.asked: list[int] = []

    async def images(
        self, request: ImageRequest, model: str, account: Account
    ) -> AsyncGenerator[list[Event], None]:
        self.asked.append(request.count)
        for step in next(self._scripts):
            if isinstance(step, UpstreamError):
                raise step
            yield step


def draw(
    sandbox: SandboxThread, root: Path, upstream: ScriptedXai, count: int, **job: Any
) -> Drawn:
    key = "xai-ok-0000000000000001"
    with drawing(sandbox, root, [key], {"pool.policy": "api_only"}) as gateway:
        try:
            return gateway.inside_async(lambda: _draw(gateway, upstream, count, job))
        finally:
            assert gateway.gives_all_back()


async def _draw(gateway: Drawing, upstream: ScriptedXai, count: int, job: dict[str, Any]) -> Drawn:
    model = gateway.runtime.catalog.find("grok-imagine-1.0")
    assert model is not None
    stand_in: Any = upstream
    relay = replace(gateway.runtime.images, xai=stand_in)
    wanted = ImageJob("a cat", count=count, inline=True, **job)
    return await relay.draw(wanted, model, recording(Heard()))


def pictures(*indexes: int) -> list[Event]:
    return [ImageReady(index, data=DATA, revised_prompt=str(index)) for index in indexes]


def test_of_too_many_pictures_the_first_are_kept(sandbox: SandboxThread, tmp_path: Path) -> None:
    upstream = ScriptedXai([pictures(4, 2), pictures(0, 3, 1), [Finished()]])
    drawn = draw(sandbox, tmp_path, upstream, 2)

    assert [picture.revised_prompt for picture in drawn.pictures] == ["0", "1"]
    assert (drawn.blocked, drawn.failed) == (0, 0)


def test_what_upstream_does_not_account_for_has_failed(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    drawn = draw(sandbox, tmp_path, ScriptedXai([[*pictures(0), Finished(blocked=1)]]), 4)

    assert (len(drawn.pictures), drawn.blocked, drawn.failed) == (1, 1, 2)


def test_what_had_come_before_a_break_is_delivered(sandbox: SandboxThread, tmp_path: Path) -> None:
    drawn = draw(sandbox, tmp_path, ScriptedXai([pictures(0, 1), ImagesIncomplete(row=14)]), 3)

    assert (len(drawn.pictures), drawn.blocked, drawn.failed) == (2, 0, 1)


def test_a_picture_that_is_none_has_failed(sandbox: SandboxThread, tmp_path: Path) -> None:
    bad: list[Event] = [ImageReady(0, data=base64.b64encode(b"<html>" * 40).decode())]
    drawn = draw(sandbox, tmp_path, ScriptedXai([[*bad, *pictures(1), Finished()]]), 2)

    assert ([p.index for p in drawn.pictures], drawn.failed) == ([1], 1)


@pytest.mark.parametrize(("script", "error"), [
    ([ContentRefused(row=7)], ContentRefused),
    ([[ImageReady(0, data="@"), Finished()]], UpstreamError),
])  # fmt: skip
def test_without_any_picture_it_is_an_error(
    sandbox: SandboxThread, tmp_path: Path, script: Script, error: type[UpstreamError]
) -> None:
    with pytest.raises(error):
        draw(sandbox, tmp_path, ScriptedXai(script), 1)


def test_lanes_of_pictures() -> None:
    image = Catalog().find("grok-imagine-1.0")
    editor = Catalog().find("grok-imagine-1.0-edit")
    assert image and editor

    assert [lane.bucket for lane in imagine_lanes(image, "web_first")] == ["image_pro"] * 2
    assert imagine_lanes(image, "api_only") == ()
    assert imagine_lanes(replace(image, web=None), "web_first") == ()
    lanes = edit_lanes(editor, "web_first", "mgw")
    assert [(lane.kind, lane.bucket) for lane in lanes] == [
        ("sso", "image_pro"),
        ("ssoSuper", "image_edit"),
        ("api", "grok-imagine-image"),
    ]
    older = edit_lanes(editor, "web_only", "model_name")
    assert [(lane.bucket, lane.cost) for lane in older] == [("grok-3", 4)] * 2
