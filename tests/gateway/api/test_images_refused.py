"""What ``/v1/images/*`` refuses, by field and code."""

from __future__ import annotations

import base64
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
    Drawing,
    drawing,
    generate,
)
from tests.gateway.api.reading import configured, error_of
from tests.gateway.live import KEY
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


@pytest.mark.parametrize(("fields", "code", "param"), [
    ({"prompt": None}, "string_type", "body.prompt"),
    ({"prompt": 3}, "string_type", "body.prompt"),
    ({"prompt": ""}, "empty_prompt", "prompt"),
    ({"prompt": " \n"}, "empty_prompt", "prompt"),
    ({"model": "grok-4"}, "model_not_supported", "model"),
    ({"model": "grok-imagine-1.0-edit"}, "model_not_supported", "model"),
    ({"model": "dall-e-9"}, "model_not_supported", "model"),
    ({"model": 7}, "string_type", "body.model"),
    ({"n": 0}, "greater_than_equal", "body.n"),
    ({"n": 11}, "less_than_equal", "body.n"),
    ({"n": "many"}, "int_parsing", "body.n"),
    ({"n": 1.5}, "int_from_float", "body.n"),
    ({"concurrency": 0}, "greater_than_equal", "body.concurrency"),
    ({"concurrency": 4}, "less_than_equal", "body.concurrency"),
    ({"response_format": "png"}, "invalid_response_format", "response_format"),
    ({"stream": True, "n": 3}, "invalid_stream_n", "stream"),
    ({"stream": "perhaps"}, "bool_parsing", "body.stream"),
    ({"partial_images": 4}, "less_than_equal", "body.partial_images"),
    ({"size": 1024}, "string_type", "body.size"),
])  # fmt: skip
def test_a_generation_names_what_is_wrong(
    client: httpx.Client, fields: Field, code: str, param: str
) -> None:
    answer = client.post(GENERATE, json={"prompt": "a cat", **fields})

    error = error_of(answer, 400)
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("body", "code"), [
    (b"", "json_invalid"), (b"[]", "dict_type"), (b"{", "json_invalid"), (b"{}", "missing"),
])  # fmt: skip
def test_a_generation_needs_a_json_object(client: httpx.Client, body: bytes, code: str) -> None:
    assert error_of(client.post(GENERATE, content=body), 400)["code"] == code


@pytest.mark.parametrize(("fields", "files", "code", "param"), [
    ({"prompt": ""}, [PICTURE], "empty_prompt", "prompt"),
    ({}, [PICTURE], "missing", "body.prompt"),
    ({"prompt": "x", "model": "grok-imagine-1.0"}, [PICTURE], "model_not_supported", "model"),
    ({"prompt": "x", "n": "0"}, [PICTURE], "greater_than_equal", "n"),
    ({"prompt": "x", "n": "11"}, [PICTURE], "less_than_equal", "n"),
    ({"prompt": "x", "n": "some"}, [PICTURE], "int_parsing", "body.n"),
    ({"prompt": "x", "response_format": "gif"}, [PICTURE], "invalid_response_format",
     "response_format"),
    ({"prompt": "x", "stream": "true", "n": "3"}, [PICTURE], "invalid_stream_n", "stream"),
    ({"prompt": "x"}, [("other", ("a.png", samples.PNG))], "missing_image", "image"),
    ({"prompt": "x"}, [("image", ("a.png", b""))], "empty_file", "image"),
    ({"prompt": "x"}, [("image", ("a.png", b"hello" * 50, "image/png"))], "invalid_image_type",
     "image"),
    ({"prompt": "x"}, [("image", ("a.gif", samples.GIF, "image/png"))], "invalid_image_type",
     "image"),
    ({"prompt": "x"}, [("image", ("a.png", samples.MP4))], "invalid_image_type", "image"),
    ({"prompt": "x"}, [("image", ("a.png", samples.PNG[:-40]))], "damaged_file", "image"),
    ({"prompt": "x"}, [("image", ("a.png", samples.png_bomb(30000, 29000)))], "too_many_pixels",
     "image"),
    ({"prompt": "x"}, [PICTURE] * 9, "invalid_image_count", "image"),
    ({"prompt": "x"}, [PICTURE] * 17, "invalid_image_count", "image"),
])  # fmt: skip
def test_an_edit_names_what_is_wrong(
    gateway: Drawing, client: httpx.Client, fields: Field, files: list[Any], code: str, param: str
) -> None:
    error = error_of(client.post(EDIT, data=fields, files=files), 400)

    assert (error["code"], error["param"]) == (code, param)
    assert gateway.temporary() == []


@pytest.mark.parametrize(("fields", "code", "param"), [
    ({}, "missing_image", "image"),
    ({"image": []}, "missing_image", "image"),
    ({"image": {}}, "missing_url", "image"),
    ({"image": "  "}, "missing_url", "image"),
    ({"images": [DATA_URI] * 17}, "invalid_image_count", "image"),
    ({"image": "ftp://example.org/a.png"}, "url_not_allowed", "image"),
    ({"image": "http://127.0.0.1/a.png"}, "url_not_allowed", "image"),
    ({"image": "http://[::1]:80/a.png"}, "url_not_allowed", "image"),
    ({"image": "data:image/png;base64,@@@"}, "invalid_image_url", "image"),
    ({"image": "data:text/html,<b>hello</b>"}, "invalid_image_type", "image"),
    ({"image": DATA_URI, "n": 11}, "less_than_equal", "body.n"),
    ({"prompt": " ", "image": DATA_URI}, "empty_prompt", "prompt"),
])  # fmt: skip
def test_an_edit_in_json_names_what_is_wrong(
    gateway: Drawing, client: httpx.Client, fields: Field, code: str, param: str
) -> None:
    error = error_of(client.post(EDIT, json={"prompt": "blue", **fields}), 400)

    assert (error["code"], error["param"]) == (code, param)
    assert gateway.temporary() == []


def test_a_file_that_is_too_large_is_refused(gateway: Drawing, client: httpx.Client) -> None:
    large = samples.PNG + bytes(50 << 20)

    answer = client.post(EDIT, data={"prompt": "x"}, files={"image": ("a.png", large)})

    error = error_of(answer, 400)
    assert (error["code"], error["param"]) == ("file_too_large", "image")
    assert gateway.temporary() == []


def test_a_key_may_be_kept_to_other_models(sandbox: SandboxThread, tmp_path: Path) -> None:
    with drawing(sandbox, tmp_path, ["ok-1"]) as gateway:
        entry = gateway.runtime.keys.lookup(KEY)
        object.__setattr__(entry, "allowed_models", frozenset({"grok-4"}))
        error = error_of(generate(gateway), 403)
    assert (error["code"], error["param"]) == ("model_not_allowed", "model")


@pytest.mark.parametrize(("name", "method"), [
    ("legacy", "legacy"), ("imagine_ws", "imagine_ws_experimental"),
    ("experimental", "imagine_ws_experimental"), ("new_method", "imagine_ws_experimental"),
])  # fmt: skip
def test_the_method_can_be_asked(client: httpx.Client, name: str, method: str) -> None:
    with configured({"grok.image_generation_method": name}):
        answer = client.get("/v1/images/method")

    assert answer.json() == {"image_generation_method": method}


@pytest.mark.parametrize("path", [GENERATE, EDIT, VARY])
def test_it_needs_a_key(gateway: Drawing, path: str) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        assert error_of(client.post(path, json={}), 401)["code"] == "invalid_api_key"
