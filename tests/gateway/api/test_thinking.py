"""Reasoning goes where it was asked for, and never into the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest

from gateway.api.streams import stream_chunks
from gateway.relay.attempts import Committed
from gateway.sandbox.serve import SandboxThread
from gateway.translate.chat_answer import AnswerHead, ThinkingStyle
from gateway.upstream.errors import UpstreamIncomplete
from gateway.upstream.events import Event, Reasoning
from tests.gateway.api.reading import configured, read_stream, streamed, whole
from tests.gateway.protocols import PROTOCOLS, serve
from tests.gateway.relay.recordings import Heard, recording

THINKING = "Thinking about it"

SHOWN = {"enabled": True, "disabled": False, None: True, "ENABLED!": True}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("style", ["reasoning_content", "think_tags"])
@pytest.mark.parametrize("thinking", list(SHOWN))
def test_reasoning_goes_where_it_was_asked_for(
    client: httpx.Client, protocol: str, thinking: str | None, style: str, stream: bool
) -> None:
    with configured({"grok.thinking_format": style}):
        content, reasoning = _answer_and_reasoning(client, thinking, stream)

    plain = content.partition("</think>\n")[2] if "<think>" in content else content
    assert plain.startswith("You said: Hello")
    assert THINKING not in plain
    if not SHOWN[thinking]:
        assert reasoning is None
        assert "think>" not in content
    elif style == "reasoning_content":
        assert reasoning is not None
        assert THINKING in reasoning
        assert "think>" not in content
    else:
        assert reasoning is None
        assert content.startswith("<think>\n")
        assert (content.count("<think>"), content.count("</think>")) == (1, 1)
        assert THINKING in content.partition("</think>")[0]


def _answer_and_reasoning(
    client: httpx.Client, thinking: str | None, stream: bool
) -> tuple[str, str | None]:
    if stream:
        answer = streamed(client, "Hello", thinking=thinking)
        return answer.content, answer.reasoning or None
    message = whole(client, "Hello", thinking=thinking)["choices"][0]["message"]
    return message["content"], message.get("reasoning_content")


def test_without_a_wish_the_operators_setting_decides_about_thinking(
    client: httpx.Client,
) -> None:
    with configured({"grok.thinking": False}):
        assert "reasoning_content" not in whole(client, "Hello")["choices"][0]["message"]
        wanted = whole(client, "Hello", thinking="enabled")["choices"][0]["message"]

    assert THINKING in wanted["reasoning_content"]


@pytest.mark.parametrize("protocol_name", list(PROTOCOLS))
@pytest.mark.parametrize("behaviour", ["cut", "miderror"])
def test_a_stream_that_breaks_says_so_and_ends(
    sandbox: SandboxThread, protocol_name: str, behaviour: str
) -> None:
    """In an answer the thinking is over, so its tags are closed by then."""
    settings = {"grok.thinking_format": "think_tags"}
    with serve(sandbox, protocol_name, [behaviour, "ok"], settings) as gateway:
        response = gateway.ask(prompt="Hello", stream=True)

    answer = read_stream(response.content)
    assert answer.error is not None
    assert answer.error["type"] == "server_error"
    assert answer.finish is None
    assert (answer.content.count("<think>"), answer.content.count("</think>")) == (1, 1)


class BreaksWhileThinking:
    """An answer that has got as far as thinking."""

    closed = False

    async def batches(self) -> AsyncIterator[list[Event]]:
        yield [Reasoning("Let me see")]
        raise UpstreamIncomplete(row=14)

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("style", "content", "reasoning"),
    [
        ("think_tags", "<think>\nLet me see\n</think>\n", ""),
        ("reasoning_content", "", "Let me see"),
        ("hidden", "", ""),
    ],
)
async def test_a_stream_that_breaks_while_thinking_closes_the_tag_before_the_error(
    style: ThinkingStyle, content: str, reasoning: str
) -> None:
    source = BreaksWhileThinking()
    head = AnswerHead("chatcmpl-1", "grok-4", 1, style)

    messages = [m async for m in stream_chunks(cast("Committed", source), head, recording(Heard()))]

    answer = read_stream(b"".join(messages))
    assert (answer.content, answer.reasoning) == (content, reasoning)
    assert answer.error is not None
    assert answer.error["code"] == "upstream_incomplete"
    assert source.closed
