"""Broken forms and bodies for ``/v1/images/*``, and many pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.drawing import (
    EDIT,
    GENERATE,
    Drawing,
    answer_of,
    drawing,
)
from tests.gateway.api.reading import error_of
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


B = "xxBOUNDARYxx"
GOOD = (
    (
        f'--{B}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nblue\r\n'
        f'--{B}\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'
        f'--{B}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    ).encode()
    + samples.PNG
    + f"\r\n--{B}--\r\n".encode()
)
PIECES = st.sampled_from([
    b"\r\n", b"--", b"\x00", b'"', B.encode(), b"\xff\xfe", b'; name="n"', b'; name="stream"',
    b"\r\n\r\ntrue\r\n", b"99999999999999999999", b"image[]", samples.PNG[:64], b"model",
    f'--{B}\r\nContent-Disposition: form-data; name="mask"; filename="m"\r\n\r\nx\r\n'.encode(),
])  # fmt: skip


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_form_breaks_it(gateway: Drawing, data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.one_of(PIECES, st.binary(max_size=4)))
        body[at : at + data.draw(st.integers(0, 40))] = change
    with gateway.client() as client:
        answer = client.post(
            EDIT,
            content=bytes(body),
            headers={"Content-Type": f"multipart/form-data; boundary={B}"},
        )

    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        error_of(answer, 400)
    assert gateway.gives_all_back()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
NAMES = ("prompt", "model", "n", "size", "quality", "style", "response_format", "stream", "user",
         "concurrency", "partial_images", "image", "images", "mask")  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES), st.sampled_from([GENERATE, EDIT]))
@settings(max_examples=150, deadline=None)
def test_no_json_breaks_it(gateway: Drawing, fields: Field, path: str) -> None:
    with gateway.client() as client:
        answer = client.post(path, json={"prompt": "x", **fields})

    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "é🎨" * 100])
@pytest.mark.parametrize("field", ["prompt", "size", "quality", "user"])
def test_strange_text_is_answered(client: httpx.Client, field: str, text: str) -> None:
    body = {"prompt": '"x"', field: f'"{text}"'}
    content = "{" + ",".join(f'"{name}":{value}' for name, value in body.items()) + "}"
    for stream in ("", ',"stream":true'):
        answer = client.post(GENERATE, content=content[:-1].encode() + stream.encode() + b"}")
        assert answer.status_code in (200, 400), answer.text


def test_memory_stays_flat(gateway: Drawing, client: httpx.Client) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1])

    def draw(times: int) -> None:
        for _ in range(times):
            body = {"prompt": "x", "n": 10, "concurrency": 3, "response_format": "b64_json"}
            assert len(answer_of(client.post(GENERATE, json=body))["data"]) == 10

    draw(5)
    before = resident()
    draw(40)
    assert resident() - before < 40_000
