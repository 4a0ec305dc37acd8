"""A video as the answer of a chat: what is sent upstream, what the client reads."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from gateway.api.errors import translate
from gateway.api.streams import collect, stream_chunks
from gateway.relay.hosting import Hosting
from gateway.relay.videos import NO_HD
from gateway.sandbox.serve import SandboxThread
from gateway.translate.chat_answer import AnswerHead, ThinkingStyle
from gateway.translate.chat_request import to_request
from gateway.upstream.requests import Account
from gateway.upstream.web.client import WebUpstream
from gateway.wire.chat import ChatCompletionRequest
from gateway.wire.errors import ApiError
from tests.gateway.api.test_disconnects import PNG
from tests.gateway.live import LiveGateway, record
from tests.gateway.video_gateway import API_POST, WEB_POST, submissions

MODEL = "grok-imagine-1.0-video"
PICTURE = {
    "type": "image_url",
    "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
}
VIDEO = re.compile(r'<source id="mp4" src="([^"]*)" type="video/mp4">')


@pytest.fixture(autouse=True)
def fresh(sandbox: SandboxThread) -> Iterator[None]:
    sandbox.state.reset()
    sandbox.state.options.video_polls = 0
    yield
    sandbox.state.options.video_polls = 1


class Known:
    """The request of a client that is known already."""

    auth = record()
    body = b""
    META: ClassVar[dict[str, str]] = {}


def body_of(content: Any, model: str = MODEL, **config: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "video_config": config or None,
        }
    )


async def answer(
    gateway: LiveGateway,
    body: ChatCompletionRequest,
    *,
    stream: bool,
    thinking: ThinkingStyle = "reasoning_content",
) -> str:
    runtime = gateway.runtime
    found = runtime.catalog.find(body.model)
    assert found is not None
    recording = runtime.record("chat", Known())  # type: ignore[arg-type]
    try:
        opened = await runtime.video_chat.open(
            to_request(body, stream=stream), found, recording, body.video_config
        )
        head = AnswerHead("id", body.model, 0, thinking, False, opened.prompt_characters)
        if not stream:
            return (await collect(opened.committed, head, recording)).decode()
        chunks = [chunk async for chunk in stream_chunks(opened.committed, head, recording)]
        return b"".join(chunks).decode()
    except Exception as error:
        raise translate(error) from error
    finally:
        await recording.close()


def ask(
    gateway: LiveGateway,
    content: Any = "waves",
    *,
    stream: bool = False,
    thinking: ThinkingStyle = "reasoning_content",
    model: str = MODEL,
    **config: Any,
) -> str:
    """The answer's body; raises ApiError."""
    body = body_of(content, model, **config)
    return gateway.inside_async(lambda: answer(gateway, body, stream=stream, thinking=thinking))


def content_of(body: str) -> str:
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text


def deltas(body: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.split("\n") if line.startswith("data: {")]
    return [json.loads(line)["choices"][0]["delta"] for line in lines]


def refusal(gateway: LiveGateway, content: Any = "waves", **config: Any) -> tuple[Any, ...]:
    with pytest.raises(ApiError) as refused:
        ask(gateway, content, **config)
    return refused.value.status, refused.value.code, refused.value.param


@pytest.mark.parametrize("token", ["ok-1", "xai-ok-1"])
def test_the_answer_is_a_video_that_can_be_played(sandbox: SandboxThread, token: str) -> None:
    with LiveGateway(sandbox, [token], settings={"app.app_url": "https://here.test"}) as gateway:
        content = content_of(ask(gateway))
    assert content.startswith('<video id="video" controls preload="none"')
    found = VIDEO.search(content)
    assert found is not None
    assert found[1].startswith("https://here.test/v1/files/video/")
    assert "exp=" in found[1]
    assert "&amp;sig=" in found[1]
    name = found[1].partition("/video/")[2].partition("?")[0]
    kept = gateway.runtime.hosting.store.folders["video"].path / name
    assert kept.read_bytes()[4:8] == b"ftyp"
    assert ('poster="https://here.test/v1/files/image/' in content) is (token == "ok-1")


def test_progress_is_thinking_and_each_step_comes_once(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        shown = ask(gateway, stream=True)
        tagged = ask(gateway, stream=True, thinking="think_tags")
        hidden = ask(gateway, stream=True, thinking="hidden")
    steps = [delta["reasoning_content"] for delta in deltas(shown) if "reasoning_content" in delta]
    assert steps == ["Video: 1%\n", "Video: 50%\n", "Video: 95%\n"]
    text = "".join(delta.get("content", "") for delta in deltas(tagged))
    assert text.startswith("<think>\nVideo: 1%\nVideo: 50%\nVideo: 95%\n\n</think>\n<video ")
    assert "Video:" not in hidden
    assert shown.endswith("data: [DONE]\n\n")


def test_the_poster_form_is_a_link(sandbox: SandboxThread) -> None:
    settings = {"grok.video_poster_preview": True}
    with LiveGateway(sandbox, ["ok-1"], settings=settings) as gateway:
        content = content_of(ask(gateway))
    assert re.match(r'<a href="[^"]*/v1/files/video/[^"]*"[^>]*><img src="[^"]*/image/', content)


def sent_to_web(sandbox: SandboxThread) -> dict[str, Any]:
    wanted: dict[str, Any] = sandbox.state.requests_to(WEB_POST)[-1].json()
    return wanted


def test_the_video_config_reaches_grok_com(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-super-1"]) as gateway:
        ask(gateway, aspect_ratio="9:16", video_length=15, resolution="HD", preset="fun")
        sent = sent_to_web(sandbox)
        ask(gateway)
        plain = sent_to_web(sandbox)["mediaGenInput"]["textToVideo"]
    wanted = sent["mediaGenInput"]["textToVideo"]
    assert (wanted["aspectRatio"], wanted["duration"]) == ("9:16", 15)
    assert wanted["resolutionName"] == "720p"
    assert sent["message"] == "waves --mode=extremely-crazy"
    assert (plain["aspectRatio"], plain["duration"], plain["resolutionName"]) == ("3:2", 6, "480p")


def test_the_video_config_reaches_the_api(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["xai-ok-1"]) as gateway:
        ask(gateway, aspect_ratio="1:1", video_length=5, resolution="HD")
    sent = sandbox.state.requests_to(API_POST)[0].json()
    assert (sent["aspect_ratio"], sent["duration"], sent["resolution"]) == ("1:1", 5, "720p")
    assert sent["model"] == "grok-imagine-video"


@pytest.mark.parametrize(("field", "value"), [
    ("aspect_ratio", "4:5"),
    ("video_length", 4),
    ("video_length", 16),
    ("resolution", "1080p"),
    ("preset", "odd"),
])  # fmt: skip
def test_a_wrong_video_config_is_named(sandbox: SandboxThread, field: str, value: Any) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        found = refusal(gateway, **{field: value})
    assert found == (400, f"invalid_{field}", f"video_config.{field}")


def test_spicy_is_refused_until_the_operator_allows_it(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        assert refusal(gateway, preset="spicy") == (400, "nsfw_disabled", "video_config.preset")
    assert submissions(sandbox, WEB_POST) == 0
    with LiveGateway(sandbox, ["ok-1"], settings={"grok.nsfw_enabled": True}) as gateway:
        ask(gateway, preset="spicy")
    assert sent_to_web(sandbox)["message"] == "waves --mode=extremely-spicy-or-crazy"


def test_sound_and_files_are_refused(sandbox: SandboxThread) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA"}}
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        found = refusal(gateway, [{"type": "text", "text": "waves"}, sound])
    assert found == (400, "invalid_value", None)


def test_the_first_picture_becomes_the_first_frame(sandbox: SandboxThread) -> None:
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with LiveGateway(sandbox, ["ok-1", "xai-ok-1"]) as gateway:
        content = [{"type": "text", "text": "waves"}, PICTURE, other]
        assert VIDEO.search(content_of(ask(gateway, content)))
        left = list(gateway.runtime.hosting.store.folders["image"].path.glob("input-*"))
    sent = sandbox.state.requests_to(API_POST)[0].json()
    assert sent["image"] == PICTURE["image_url"]
    assert submissions(sandbox, WEB_POST) == 0
    assert not left


def test_a_picture_is_refused_where_nothing_can_animate_it(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        found = refusal(gateway, [PICTURE])
    assert found == (400, "image_to_video_not_supported", "model")
    assert not sandbox.state.requests_to(WEB_POST)


CLOSED = ["reset", "error500", "error503-gzip", "cut", "cutclean", "garbageonly"]


@pytest.mark.parametrize("behaviour", CLOSED)
@pytest.mark.parametrize("prefix", ["", "xai-"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_may_have_been_accepted_is_submitted_once(
    sandbox: SandboxThread, behaviour: str, prefix: str, stream: bool
) -> None:
    settings = {"grok.max_retry": 5}
    tokens = [f"{prefix}ok-{i}" for i in range(4)]
    with LiveGateway(sandbox, tokens, settings=settings) as gateway:
        try:
            body = ask(gateway, f"SANDBOX:{behaviour}", stream=stream)
        except ApiError as error:
            body = error.body().decode()
    assert '"error"' in body
    assert submissions(sandbox, API_POST if prefix else WEB_POST) == 1


def test_what_was_certainly_refused_goes_to_another_credential(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["xai-limited-1", "xai-limited-2", "xai-ok-3"]) as gateway:
        assert VIDEO.search(content_of(ask(gateway)))


class Unscaled(WebUpstream):
    """Asks for the twin of a video that the account does not have."""

    async def upscale(self, video_id: str, account: Account) -> str:
        return await super().upscale("no-such-video", account)


def speak(gateway: LiveGateway, kind: type[WebUpstream] = WebUpstream, **changes: Any) -> None:
    """Let videos of grok.com be made in another generation of its protocol."""
    runtime = gateway.runtime
    maker = runtime.video_chat.maker
    settings = replace(maker.web_settings(), media_protocol="legacy", upload_form="json", **changes)
    web = kind(
        runtime.transports.web,
        lambda: settings,
        now_ms=lambda: time.time_ns() // 1_000_000,
        new_uuid=lambda: str(uuid.uuid4()),
    )
    hosting = Hosting(runtime.hosting.store, runtime.hosting.links, web, runtime.xai)
    runtime.video_chat.maker = replace(
        maker, web=web, web_settings=lambda: settings, hosting=hosting
    )


@pytest.mark.parametrize("generation", ["gen1", "gen2"])
def test_older_protocols_make_videos_of_pictures(sandbox: SandboxThread, generation: str) -> None:
    with LiveGateway(sandbox, ["ok-super-1"]) as gateway:
        speak(gateway, legacy_media=generation)
        content = [{"type": "text", "text": "waves"}, PICTURE]
        assert VIDEO.search(content_of(ask(gateway, content, video_length=9)))
    config = sent_to_web(sandbox)["responseMetadata"]["modelConfigOverride"]["modelMap"]
    assert config["videoGenModelConfig"]["videoLength"] == (9 if generation == "gen1" else 10)


def test_hd_comes_from_an_upscale_where_upstream_needs_it(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        speak(gateway, legacy_media="gen2")
        content = content_of(ask(gateway, resolution="HD"))
        plain = content_of(ask(gateway, resolution="SD"))
    assert "generated_video_hd.mp4" in content
    assert NO_HD not in content
    assert "generated_video.mp4" in plain
    assert submissions(sandbox, "/rest/media/video/upscale") == 1
    assert submissions(sandbox, WEB_POST) == 2


def test_without_an_upscale_the_original_comes_with_a_note(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["ok-1"]) as gateway:
        speak(gateway, Unscaled, legacy_media="gen2")
        content = content_of(ask(gateway, resolution="HD"))
    assert "generated_video.mp4" in content
    assert content.endswith(f"</video>\n\n{NO_HD}")
    assert submissions(sandbox, WEB_POST) == 1


@pytest.mark.parametrize(("token", "prompt", "polls"), [
    ("ok-1", "SANDBOX:hang", 0),
    ("ok-1", "SANDBOX:silent", 0),
    ("xai-ok-1", "SANDBOX:hang", 0),
    ("xai-ok-1", "waves", 1_000),
])  # fmt: skip
def test_a_client_that_leaves_frees_the_credential_at_once(
    sandbox: SandboxThread, token: str, prompt: str, polls: int
) -> None:
    sandbox.state.options.video_polls = polls
    path = API_POST if token.startswith("xai-") else WEB_POST
    with LiveGateway(sandbox, [token]) as gateway:

        async def leave() -> float:
            asking = asyncio.create_task(answer(gateway, body_of(prompt), stream=True))
            while not submissions(sandbox, path):  # noqa: ASYNC110 - upstream is elsewhere
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            began = time.monotonic()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return time.monotonic() - began

        assert gateway.inside_async(leave) < 1
        assert gateway.entry(1).in_flight == 0
