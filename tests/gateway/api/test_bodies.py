"""Bad input gets a clear error that names the field, and is never a 500."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.sandbox.serve import SandboxThread
from gateway.wire.chat import ChatCompletionRequest
from tests.gateway.live import KEY, LiveGateway
from tests.gateway.protocols import serve

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


def deep(around: bytes) -> bytes:
    return around % (b"[" * 10_000 + b"]" * 10_000)


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
    "deep content": deep(b'{"model": "grok-4", "messages": [{"role": "user", "content": %s}]}'),
    "deep block": deep(
        b'{"model": "grok-4", "messages": [{"role": "user", "content": [{"type": "text",'
        b' "text": "x", "cache_control": %s}]}]}'
    ),
    "deep schema": deep(
        b'{"model": "grok-4", "messages": [], "tools": [{"type": "function", "function":'
        b' {"name": "f", "parameters": {"a": %s}}}]}'
    ),
    "deep unknown field": deep(b'{"model": "grok-4", "messages": [], "metadata": %s}'),
    "a number of 5000 digits": b'{"model": "grok-4", "messages": [], "seed": ' + b"9" * 5000 + b"}",
    "infinity": b'{"model": "grok-4", "messages": [], "temperature": Infinity}',
    "half a surrogate in the prompt": (
        b'{"model": "grok-4", "messages": [{"role": "user", "content": "\\udfff"}]}'
    ),
    "a surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "a raw control character": b'{"model": "a\x00b"}',
    "UTF-16": '{"model": "grok-4"}'.encode("utf-16"),
    "a form": b"model=grok-4&messages=Hello",
    "compressed": gzip.compress(b'{"model": "grok-4"}'),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_it_names_the_body_when_it_is_not_json(gateway: LiveGateway, case: str) -> None:
    response = post(gateway, NOT_JSON[case])

    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("json_invalid", "body")


FUNCTION = {"type": "function", "function": {"name": "f"}}


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "grok-4", "messages": HELLO, **fields}


def said(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": "grok-4", "messages": [{"role": "user", "content": "Hello", **fields}]}


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
    (5, "dict_type", "body"),
    (True, "dict_type", "body"),
    ([{"model": "grok-4"}], "dict_type", "body"),
    ({"model": "x" * 100_000, "messages": HELLO}, "model_not_found", "model"),
    ({"model": "grok-4", "messages": HELLO, "n": 128}, "invalid_value", "n"),
    ({"model": "grok-4", "messages": ["Hello"]}, "model_type", "body.messages"),
    (said({"content": 5}), "string_type", "body.messages.content"),
    (said({"content": {"type": "text"}}), "string_type", "body.messages.content"),
    (said({"name": []}), "string_type", "body.messages.name"),
    (said({"tool_calls": {}}), "list_type", "body.messages.tool_calls"),
    (said({"tool_calls": [{}]}), "missing", "body.messages.tool_calls.function"),
    (said({"tool_call_id": 5}), "string_type", "body.messages.tool_call_id"),
    (asked(stream_options=True), "model_type", "body.stream_options"),
    (
        asked(stream_options={"include_usage": "?"}),
        "bool_parsing",
        "body.stream_options.include_usage",
    ),
    (asked(thinking=True), "string_type", "body.thinking"),
    (asked(video_config=[]), "model_type", "body.video_config"),
    (asked(video_config={"video_length": "long"}), "int_parsing", "body.video_config.video_length"),
    (asked(video_config={"video_length": 16}), "invalid_video_length", "video_config.video_length"),
    (asked(max_tokens=0), "greater_than_equal", "body.max_tokens"),
    (asked(max_completion_tokens=1.5), "int_from_float", "body.max_completion_tokens"),
    (asked(top_p=-0.1), "greater_than_equal", "body.top_p"),
    (asked(temperature="warm"), "float_parsing", "body.temperature"),
    (asked(seed={}), "int_type", "body.seed"),
    (asked(stop=5), "string_type", "body.stop"),
    (asked(stop=[5]), "string_type", "body.stop"),
    (asked(logprobs="?"), "bool_parsing", "body.logprobs"),
    (asked(top_logprobs=21), "less_than_equal", "body.top_logprobs"),
    (asked(response_format="json"), "dict_type", "body.response_format"),
    (asked(parallel_tool_calls=5), "bool_parsing", "body.parallel_tool_calls"),
    (asked(user=5), "string_type", "body.user"),
    (asked(tools=[FUNCTION] * 129), "too_long", "body.tools"),
    (asked(tools=[{"type": "web_search"}]), "literal_error", "body.tools.type"),
    (asked(tools=[{"type": "function"}]), "missing", "body.tools.function"),
    (asked(tools=[{"type": "function", "function": {}}]), "missing", "body.tools.function.name"),
    (asked(tools=[FUNCTION], tool_choice="sometimes"), "literal_error", "body.tool_choice"),
    (asked(tools=[FUNCTION], tool_choice=["f"]), "literal_error", "body.tool_choice"),
    (
        asked(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "g"}}),
        "invalid_value",
        "tool_choice.function.name",
    ),
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


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BLOCKS: list[tuple[str, Any, str, str]] = [
    ("user", "", "empty_content", ""),
    ("user", "   ", "empty_content", ""),
    ("user", None, "empty_content", ""),
    ("user", [], "empty_content", ""),
    ("assistant", "", "empty_content", ""),
    ("assistant", None, "empty_content", ""),
    ("system", [], "empty_content", ""),
    ("user", [[]], "empty_block", ".0"),
    ("user", [""], "empty_block", ".0"),
    ("user", [[1]], "invalid_type", ".0"),
    ("user", [{"type": "  "}], "empty_type", ".0.type"),
    ("user", [{"type": None}], "empty_type", ".0.type"),
    ("assistant", [IMAGE], "invalid_type", ".0.type"),
    ("developer", [IMAGE], "invalid_type", ".0.type"),
    ("tool", [IMAGE], "invalid_type", ".0.type"),
    ("user", [{"type": "text", "text": 5}], "empty_text", ".0.text"),
    ("user", [{"type": "text", "text": None}], "empty_text", ".0.text"),
    ("user", [{"type": "image_url", "image_url": {"url": " "}}], "missing_url", ".0.image_url"),
    ("user", [{"type": "image_url", "image_url": 5}], "missing_url", ".0.image_url"),
    ("user", [{"type": "input_audio"}], "missing_data", ".0.input_audio"),
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


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ({"type": "input_audio", "input_audio": {"data": "%%%", "format": "wav"}}, "invalid_audio"),
        ({"type": "file", "file": {"file_data": "%%%", "filename": "a.txt"}}, "invalid_file"),
        ({"type": "file", "file": {"url": "http://[::1]/a.txt"}}, "url_not_allowed"),
        ({"type": "file", "file": {"url": "gopher://a.test/"}}, "url_not_allowed"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "invalid_image_url"),
    ],
)
def test_an_attachment_that_cannot_be_used_penalises_nobody(
    gateway: LiveGateway, block: dict[str, Any], code: str
) -> None:
    content = [{"type": "text", "text": "See"}, block]
    error = error_of(gateway.ask(messages=[{"role": "user", "content": content}]))

    assert (error["code"], error["param"]) == (code, "messages")
    assert gateway.penalised() == []
    assert gateway.runtime.pool.open_leases == 0


@pytest.mark.parametrize("number", [b"1e400", b"-1e400"])
def test_a_number_beyond_floats_is_no_number(gateway: LiveGateway, number: bytes) -> None:
    body = b'{"model":"grok-4","messages":[{"role":"user","content":"x"}],"temperature":%s}'
    error = error_of(post(gateway, body % number))

    assert (error["code"], error["param"]) == ("finite_number", "body.temperature")


def nested_fields() -> Iterator[dict[str, Any]]:
    """As deep as the parser bears it, in every place that is not looked into."""
    nested: dict[str, Any] = {}
    for _ in range(180):
        nested = {"a": nested}
    text = {"type": "text", "text": "FRAMES:1", "x": nested}
    yield {"metadata": nested}
    yield {"response_format": nested}
    yield {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested}}]}
    yield {"messages": [{"role": "user", "content": [text], "x": nested}]}


@pytest.mark.parametrize("protocol", ["mgw", "xai"])
def test_nesting_that_the_parser_bears_breaks_nothing_behind_it(
    sandbox: SandboxThread, protocol: str
) -> None:
    with serve(sandbox, protocol, ["ok"]) as gateway:
        for fields in nested_fields():
            answer = gateway.ask(prompt="FRAMES:1", stream=False, **fields)
            assert answer.status_code == 200, (list(fields), answer.text)


def test_one_key_given_twice_counts_as_given_last(gateway: LiveGateway) -> None:
    body = b'{"model":"grok-4","messages":[],"messages":[{"role":"user","content":"FRAMES:1"}]}'

    assert post(gateway, body).status_code == 200


@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_a_body_that_is_too_large_gets_its_answer_on_a_plain_socket(
    gateway: LiveGateway, framing: str
) -> None:
    """The sender writes everything before it reads, as simple clients do."""
    piece = b" " * 1_000_000
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {KEY}\r\n"
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        if framing == "declared":
            connection.sendall(f"{head}Content-Length: 14000000\r\n\r\n".encode())
            for _ in range(14):
                connection.sendall(piece)
        else:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(14):
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in answer


def test_a_query_that_is_not_utf8_is_a_bad_request(gateway: LiveGateway) -> None:
    """uvicorn refuses it by itself; other servers hand it on."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/v1/models", "headers": [],
        "query_string": b"available=\xff\xfe",
    }  # fmt: skip
    gateway.inside_async(lambda: gateway.application(scope, receive, send))

    assert sent[0]["status"] == 400
    error = json.loads(sent[1]["body"])["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "query")


BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file"]) | ANY_JSON},
    optional={
        name: ANY_JSON | st.fixed_dictionaries({"url": ANY_JSON, "data": ANY_JSON})
        for name in ("text", "image_url", "input_audio", "file")
    },
)
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": ANY_JSON, "arguments": ANY_JSON}) | ANY_JSON},
    optional={"id": ANY_JSON, "type": st.just("function") | ANY_JSON},
)
ROLES = ["developer", "system", "user", "assistant", "tool"]
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES) | ANY_JSON},
    optional={
        "content": ANY_JSON | st.lists(BLOCK | ANY_JSON, max_size=3),
        "name": ANY_JSON,
        "tool_calls": st.lists(CALL, max_size=2) | ANY_JSON,
        "tool_call_id": ANY_JSON,
        "reasoning_content": ANY_JSON,
    },
)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.just("f") | ANY_JSON},
            optional=dict.fromkeys(("description", "parameters", "strict"), ANY_JSON),
        )
    },
)
BODY = st.fixed_dictionaries(
    {"model": st.just("grok-4"), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "tools": st.lists(TOOL, max_size=2),
        "tool_choice": st.sampled_from(["none", "auto", "required"]) | ANY_JSON,
        "video_config": st.dictionaries(
            st.sampled_from(["aspect_ratio", "video_length", "resolution", "preset"]), ANY_JSON
        ),
        "stream": st.booleans(),
        "stream_options": ANY_JSON,
        "thinking": ANY_JSON,
    },
)


@pytest.mark.parametrize("protocol", ["rest-mode", "xai"])
def test_no_message_block_or_tool_is_a_500(
    gateway: LiveGateway, sandbox: SandboxThread, protocol: str
) -> None:
    """Each passes every layer it is good enough for, the upstream's own checks included."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(BODY)
    def check(body: dict[str, Any]) -> None:
        response = client.post("/v1/chat/completions", content=json.dumps(body).encode())

        assert response.status_code in {200, 400}
        if response.status_code == 400:
            assert error_of(response)["message"]

    with serve(sandbox, protocol, ["ok"]) as running, running.client() as client:
        check()
        assert running.penalised() == []
        assert running.runtime.pool.open_leases == 0
