"""Bad input gets a clear error that names the field, and is never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.sandbox.serve import SandboxThread
from gateway.wire.chat import ChatCompletionRequest
from tests.gateway.live import LiveGateway

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    with LiveGateway(sandbox, settings={"server.max_body_mb": 11}) as running:
        yield running


def post(gateway: LiveGateway, content: bytes | Iterator[bytes]) -> Any:
    with gateway.client() as client:
        return client.post("/v1/chat/completions", content=content)


def error_of(response: Any) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


NOT_JSON = {
    "empty": b"",
    "cut off": b'{"model": "grok-4", "messages": [',
    "text": b"hello",
    "trailing": b'{"model": "grok-4"} x',
    "bad UTF-8": b'{"model": "\xff\xfe"}',
    "NaN": b'{"model": "grok-4", "messages": [], "temperature": NaN}',
    "half a surrogate": b'{"model": "\\ud800", "messages": []}',
    "deep arrays": b'{"model": "grok-4", "messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_it_names_the_body_when_it_is_not_json(gateway: LiveGateway, case: str) -> None:
    response = post(gateway, NOT_JSON[case])

    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("json_invalid", "body")


WRONG = [
    ([], "dict_type", "body"),
    ("text", "dict_type", "body"),
    (None, "dict_type", "body"),
    ({"messages": HELLO}, "missing", "body.model"),
    ({"model": "grok-4"}, "missing", "body.messages"),
    ({"model": 4, "messages": HELLO}, "string_type", "body.model"),
    ({"model": "grok-4", "messages": "Hello"}, "list_type", "body.messages"),
    ({"model": "grok-4", "messages": [{"content": "x"}]}, "missing", "body.messages.role"),
    (
        {"model": "grok-4", "messages": [{"role": "robot", "content": "x"}]},
        "literal_error",
        "body.messages.role",
    ),
    ({"model": "grok-4", "messages": HELLO, "stream": "maybe"}, "bool_parsing", "body.stream"),
    (
        {"model": "grok-4", "messages": HELLO, "temperature": 9},
        "less_than_equal",
        "body.temperature",
    ),
    ({"model": "grok-4", "messages": HELLO, "n": 0}, "greater_than_equal", "body.n"),
    ({"model": "grok-4", "messages": HELLO, "n": 2}, "invalid_value", "n"),
    ({"model": "grok-4", "messages": []}, "empty_messages", "messages"),
    ({"model": "gpt-4", "messages": HELLO}, "model_not_found", "model"),
    ({"model": "grok-imagine-1.0", "messages": HELLO}, "model_not_supported", "model"),
    ({"model": "grok-4", "messages": HELLO, "tools": {}}, "list_type", "body.tools"),
    (
        {"model": "grok-4", "messages": HELLO, "tool_choice": "required"},
        "invalid_value",
        "tool_choice",
    ),
    (
        {
            "model": "grok-4",
            "messages": HELLO,
            "tools": [{"type": "function", "function": {"name": "no spaces please"}}],
        },
        "string_pattern_mismatch",
        "body.tools.function.name",
    ),
    (
        {"model": "grok-4", "messages": HELLO, "video_config": {"video_length": 4}},
        "invalid_video_length",
        "video_config.video_length",
    ),
    (
        {"model": "grok-4", "messages": HELLO, "video_config": {"aspect_ratio": "5:4"}},
        "invalid_aspect_ratio",
        "video_config.aspect_ratio",
    ),
    (
        {"model": "grok-4", "messages": HELLO, "video_config": {"resolution": "8K"}},
        "invalid_resolution",
        "video_config.resolution",
    ),
    (
        {"model": "grok-4", "messages": HELLO, "video_config": {"preset": "wild"}},
        "invalid_preset",
        "video_config.preset",
    ),
]


@pytest.mark.parametrize(("body", "code", "param"), WRONG)
def test_it_names_the_field_that_is_wrong(
    gateway: LiveGateway, body: Any, code: str, param: str
) -> None:
    response = post(gateway, json.dumps(body).encode())

    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


BLOCKS = [
    ("user", "", "empty_content", ""),
    ("user", "   ", "empty_content", ""),
    ("user", None, "empty_content", ""),
    ("user", [], "empty_content", ""),
    ("user", [{}], "empty_block", ".0"),
    ("user", [None], "empty_block", ".0"),
    ("user", ["text"], "invalid_type", ".0"),
    ("user", [{"text": "x"}], "missing_type", ".0"),
    ("user", [{"type": "", "text": "x"}], "empty_type", ".0.type"),
    ("user", [{"type": 3}], "empty_type", ".0.type"),
    ("user", [{"type": "hologram"}], "invalid_type", ".0.type"),
    ("system", [{"type": "image_url", "image_url": {"url": "x"}}], "invalid_type", ".0.type"),
    ("user", [{"type": "text", "text": " "}], "empty_text", ".0.text"),
    ("user", [{"type": "text"}], "empty_text", ".0.text"),
    ("user", [{"type": "image_url"}], "missing_url", ".0.image_url"),
    ("user", [{"type": "image_url", "image_url": {}}], "missing_url", ".0.image_url"),
    ("user", [{"type": "input_audio", "input_audio": {}}], "missing_data", ".0.input_audio"),
    ("user", [{"type": "file", "file": {}}], "missing_data", ".0.file"),
    ("user", [{"type": "file", "file": {"file_id": "f"}}], "invalid_value", ".0.file.file_id"),
    ("user", [{"type": "text", "text": "a"}, {"type": "text"}], "empty_text", ".1.text"),
]


@pytest.mark.parametrize(("role", "content", "code", "where"), BLOCKS)
def test_it_names_the_block_that_is_wrong(
    gateway: LiveGateway, role: str, content: Any, code: str, where: str
) -> None:
    messages = [*HELLO, {"role": role, "content": content}]
    response = post(gateway, json.dumps({"model": "grok-4", "messages": messages}).encode())

    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == (code, f"messages.1.content{where}")


ATTACHMENTS = [
    ({"url": "data:image/png;base64,!!!"}, "invalid_image_url"),
    ({"url": "http://127.0.0.1:1/x.png"}, "url_not_allowed"),
    ({"url": "http://169.254.169.254/latest/meta-data"}, "url_not_allowed"),
    ({"url": "file:///etc/passwd"}, "invalid_image_url"),
    ({"url": "data:image/png;base64,aGVsbG8="}, "unsupported_file_type"),
]


@pytest.mark.parametrize(("image", "code"), ATTACHMENTS)
def test_it_refuses_attachments_it_cannot_or_must_not_read(
    gateway: LiveGateway, image: dict[str, str], code: str
) -> None:
    content = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": image}]
    body = {"model": "grok-4", "messages": [{"role": "user", "content": content}]}

    response = post(gateway, json.dumps(body).encode())

    assert response.status_code == 400
    assert error_of(response)["code"] in {code, "url_not_allowed"}
    assert gateway.penalised() == []


def test_ten_megabytes_are_fine(gateway: LiveGateway) -> None:
    text = "x" * 10_000_000 + " FRAMES:1"
    body = {"model": "grok-4", "stream": False, "messages": [{"role": "user", "content": text}]}

    assert post(gateway, json.dumps(body).encode()).status_code == 200


def test_more_than_the_configured_size_is_a_413(gateway: LiveGateway) -> None:
    response = post(gateway, b" " * 12_000_000)

    assert response.status_code == 413
    error = error_of(response)
    assert (error["code"], error["param"]) == ("request_too_large", "body")


def test_an_undeclared_size_is_counted_as_it_comes(gateway: LiveGateway) -> None:
    response = post(gateway, (b" " * 1_000_000 for _ in range(14)))

    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


def test_unknown_fields_and_duplicates_do_not_matter(gateway: LiveGateway) -> None:
    body = b'{"model":"x","model":"grok-4","stream":false,"frobnicate":{"a":[1]},"messages":'
    response = post(gateway, body + b'[{"role":"user","content":"FRAMES:1","x":1}]}')

    assert response.status_code == 200


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = sorted(ChatCompletionRequest.model_fields)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=4))
def test_no_body_is_a_500(gateway: LiveGateway, changes: dict[str, Any]) -> None:
    body = {"model": "grok-4", "messages": [{"role": "user", "content": "FRAMES:1"}]} | changes
    response = post(gateway, json.dumps(body).encode())

    assert response.status_code in {200, 400}
    if response.status_code == 400:
        assert error_of(response)["message"]
