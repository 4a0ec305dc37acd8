"""Pictures as answers to conversations."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.api.streams import collect, stream_chunks
from gateway.sandbox.serve import SandboxThread
from gateway.translate.chat_answer import AnswerHead
from gateway.translate.chat_request import to_request
from gateway.translate.flatten import EmptyPrompt
from gateway.upstream.attachments import AttachmentError
from gateway.upstream.errors import ContentRefused, PostprocessingFailed
from gateway.wire.chat import ChatCompletionRequest
from gateway.wire.errors import ApiError
from tests.gateway.api.drawing import WAYS, Drawing, drawing, drawing_by
from tests.gateway.api.reading import configured, read_stream
from tests.gateway.media import samples
from tests.gateway.relay.recordings import Heard, recording

MODEL = "grok-imagine-1.0"
EDITOR = "grok-imagine-1.0-edit"
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + base64.b64encode(samples.PNG).decode()},
}
TEXT = {"type": "text", "text": "make it blue"}


def answer(gateway: Drawing, content: Any, model: str = MODEL, *, stream: bool = False) -> bytes:
    """The body of the answer, as chat completions would send it."""
    return gateway.inside_async(lambda: _answer(gateway, content, model, stream))


async def _answer(gateway: Drawing, content: Any, model: str, stream: bool) -> bytes:
    messages = content if isinstance(content, list) and "role" in content[0] else None
    messages = messages or [{"role": "user", "content": content}]
    body = ChatCompletionRequest(model=model, messages=messages)
    found = gateway.runtime.catalog.find(model)
    assert found is not None
    record = recording(Heard())
    request = to_request(body, stream=stream)
    opened = await gateway.runtime.image_chat.open(request, found, record)
    head = AnswerHead("chatcmpl-1", model, 1)
    committed: Any = opened.committed
    if stream:
        chunks = stream_chunks(committed, head, record)
        return b"".join([chunk async for chunk in chunks])
    return await collect(committed, head, record)


def said(body: bytes) -> str:
    content: str = json.loads(body)["choices"][0]["message"]["content"]
    return content


def addresses(markdown: str) -> list[str]:
    lines = [line for line in markdown.split("\n") if line]
    assert all(line.startswith("![image](") and line.endswith(")") for line in lines), markdown
    return [line.removeprefix("![image](").removesuffix(")") for line in lines]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_two_pictures_come_as_markdown(
    sandbox: SandboxThread, tmp_path: Path, way: str, stream: bool
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        body = answer(gateway, "a lighthouse", stream=stream)
        content = read_stream(body).content if stream else said(body)

        assert len({gateway.kept(url) for url in addresses(content)}) == 2
        assert gateway.gives_all_back()
    if stream and way != "xai":
        assert "Image 1: " in read_stream(body).reasoning
    assert sandbox.state.violations == []


def test_as_data_uris_where_the_operator_wants_base64(
    sandbox: SandboxThread, tmp_path: Path
) -> None:
    with (
        drawing_by(sandbox, tmp_path, "chat") as gateway,
        configured({"app.image_format": "base64"}),
    ):
        found = addresses(said(answer(gateway, "a lighthouse")))
    assert len(found) == 2
    assert all(url.startswith("data:image/jpeg;base64,/9j/") for url in found)


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_in_the_last_message_is_edited(
    sandbox: SandboxThread, tmp_path: Path, way: str
) -> None:
    with drawing_by(sandbox, tmp_path, way) as gateway:
        assert len(addresses(said(answer(gateway, [TEXT, PICTURE], EDITOR)))) == 2
        assert gateway.gives_all_back()
    if way == "xai":
        (asked,) = sandbox.state.requests_to("/v1/images/edits")
        assert json.loads(asked.body)["prompt"] == "make it blue"


def test_only_the_last_message_counts(sandbox: SandboxThread, tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a castle"},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "a harbour"},
    ]
    with drawing_by(sandbox, tmp_path, "xai") as gateway:
        answer(gateway, messages)
    (asked,) = sandbox.state.requests_to("/v1/images/generations")
    assert json.loads(asked.body)["prompt"] == "a harbour"


@pytest.mark.parametrize(("content", "model", "error", "code"), [
    ([TEXT], EDITOR, ApiError, "missing_image"),
    ([TEXT, PICTURE], MODEL, ApiError, "invalid_value"),
    ([TEXT, {"type": "file", "file": {"data": "QQ=="}}], EDITOR, ApiError, "invalid_value"),
    ([PICTURE], EDITOR, EmptyPrompt, None),
    ([TEXT, {"type": "image_url", "image_url": {"url": "data:,x"}}], EDITOR, AttachmentError,
     "unsupported_file_type"),
    ([{"role": "assistant", "content": "hello"}], MODEL, EmptyPrompt, None),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused(
    sandbox: SandboxThread,
    tmp_path: Path,
    content: Any,
    model: str,
    error: type[ApiError | AttachmentError | EmptyPrompt],
    code: str | None,
) -> None:
    with drawing(sandbox, tmp_path, ["ok-1"]) as gateway:
        with pytest.raises(error) as caught:
            answer(gateway, content, model)
        assert getattr(caught.value, "code", None) == code
        assert gateway.gives_all_back()


def test_moderation_is_an_error(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing_by(sandbox, tmp_path, "chat", "moderated") as gateway:
        with pytest.raises(ContentRefused):
            answer(gateway, "a lighthouse")
        assert gateway.gives_all_back()


def test_an_answer_without_one_picture_is_an_error(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing_by(sandbox, tmp_path, "chat", "asset-denied") as gateway:
        with pytest.raises(PostprocessingFailed):
            answer(gateway, "a lighthouse")
        assert gateway.penalised() == []
        broken = read_stream(answer(gateway, "a lighthouse", stream=True))
        assert gateway.gives_all_back()
    assert broken.error is not None
    assert broken.error["code"] == "media_postprocessing_failed"
