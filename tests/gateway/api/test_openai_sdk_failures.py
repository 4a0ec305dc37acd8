"""The exceptions that the official SDK raises, over every way to an upstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.sandbox.serve import SandboxThread
from tests.gateway.live import KEY, NO_TLS, LiveGateway, record
from tests.gateway.protocols import PROTOCOLS, WEB, serve

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
FAILURES: dict[str, tuple[type[openai.APIStatusError], int, str]] = {
    "badreq": (openai.BadRequestError, 400, "invalid_request"),
    "moderated": (openai.BadRequestError, 400, "content_policy_violation"),
    "limited": (openai.RateLimitError, 429, "rate_limit_exceeded"),
    "error500": (openai.InternalServerError, 502, "upstream_error"),
    "reset": (openai.InternalServerError, 502, "upstream_network_error"),
    "expired": (openai.InternalServerError, 503, "upstream_unavailable"),
    "hang": (openai.InternalServerError, 504, "upstream_timeout"),
}


@pytest.fixture(params=list(PROTOCOLS))
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def sdk(gateway: LiveGateway, key: str = KEY) -> OpenAI:
    http = openai.DefaultHttpxClient(verify=NO_TLS)
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, http_client=http)


@pytest.mark.parametrize(
    ("protocol", "behaviour"),
    [
        (protocol, behaviour)
        for protocol in PROTOCOLS
        for behaviour in FAILURES
        if behaviour != "hang" or protocol in {"mgw", "xai"}
    ],
)
def test_a_failure_before_the_answer_has_the_class_of_its_status(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    kind, status, code = FAILURES[behaviour]
    with (
        serve(sandbox, protocol, [behaviour]) as gateway,
        sdk(gateway) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="grok-4", messages=HELLO, stream=True)

    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code) == (status, code)
    assert ("retry-after" in error.response.headers) is (status == 429)


@pytest.mark.parametrize("behaviour", ["cut", "miderror"])
def test_a_failure_in_the_middle_is_raised_after_what_came_before(
    sandbox: SandboxThread, protocol: str, behaviour: str
) -> None:
    seen: list[str] = []
    with (
        serve(sandbox, protocol, [behaviour, "ok"]) as gateway,
        sdk(gateway) as client,
        client.chat.completions.create(model="grok-4", messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        seen.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    assert "".join(seen).startswith("You said: ")
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.code in {"upstream_incomplete", "upstream_error", "rate_limit_exceeded"}


async def test_failures_are_the_same_asynchronously(sandbox: SandboxThread, protocol: str) -> None:
    with serve(sandbox, protocol, ["miderror"]) as gateway:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="grok-4", messages=HELLO, stream=True
            )
            with pytest.raises(openai.APIError) as broken:
                async for _ in stream:
                    pass
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(model="gpt-5", messages=HELLO)

    assert broken.value.code == "upstream_error"
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.fixture(scope="module")
def limited(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    keys = {KEY: record(allowed_models=frozenset({"grok-3"}))}
    with LiveGateway(sandbox, keys=keys) as gateway:
        yield gateway


def test_a_model_that_the_key_may_not_use_is_permission_denied(limited: LiveGateway) -> None:
    with sdk(limited) as client, pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="grok-4", messages=HELLO)

    assert (caught.value.status_code, caught.value.code) == (403, "model_not_allowed")
    assert caught.value.param == "model"


def test_a_wrong_key_is_an_authentication_error_for_chat_too(limited: LiveGateway) -> None:
    with sdk(limited, "sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="grok-3", messages=HELLO, stream=True)

    assert caught.value.code == "invalid_api_key"


def test_an_unknown_route_is_not_found(limited: LiveGateway) -> None:
    with sdk(limited) as client, pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="grok-3", input="Hello")

    assert caught.value.code == "not_found"


@pytest.mark.parametrize("protocol", WEB)
@pytest.mark.parametrize("media", ["current", "legacy"])
def test_a_picture_is_uploaded_and_used_by_the_same_session(
    sandbox: SandboxThread, protocol: str, media: str
) -> None:
    sandbox.state.reset()
    with (
        serve(sandbox, protocol, ["ok", "ok"], {"grok.media_protocol": media}) as gateway,
        sdk(gateway) as client,
    ):
        answer = client.chat.completions.create(
            model="grok-4", messages=[{"role": "user", "content": PICTURE}], stream=False
        )

    assert answer.choices[0].finish_reason == "stop"
    state = sandbox.state
    path = {"current": "/http/upload-file-v2/direct", "legacy": "/rest/app-chat/upload-file"}
    (upload,) = state.requests_to(path[media])
    (account,) = state.accounts.values()
    used = _attached(sandbox, protocol)
    assert len(used) == 1
    assert set(used) <= account.files
    assert upload.token in state.accounts
    assert state.violations == []


PICTURE: list[Any] = [
    {"type": "text", "text": "What is this?"},
    {
        "type": "image_url",
        "image_url": {
            "url": "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
        },
    },
]


def _attached(sandbox: SandboxThread, protocol: str) -> list[str]:
    """The ids of uploads that the chat itself named."""
    ids: list[str] = []
    if protocol == "mgw":
        (socket,) = sandbox.state.requests_to("/ws/mgw/")
        for frame in socket.frames:
            ids += frame["event"].get("file_attachment_ids", [])
    else:
        (chat,) = sandbox.state.requests_to("/rest/app-chat/conversations/new")
        ids += chat.json()["fileAttachments"]
    return ids
