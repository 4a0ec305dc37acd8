"""``POST /v1/uploads/image``: pictures are kept, everything else is refused and gone."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.media.links import LinkPolicy
from gateway.wire.errors import ApiError
from tests.gateway.api.reading import error_of
from tests.gateway.media import samples
from tests.gateway.media.server import MAX_BODY, PUBLIC, MediaServer
from tests.gateway.media.urls import BEARER, Current

PATH = "/v1/uploads/image"
NAME = re.compile(r"upload-[0-9a-f]{32}\.(png|jpg|webp|gif)")
B = "xxBOUNDARYxx"
TYPE = f"multipart/form-data; boundary={B}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    with MediaServer(tmp_path_factory.mktemp("media")) as made:
        yield made


@pytest.fixture
def server(running: MediaServer) -> MediaServer:
    running.policy, Current.refuse = PUBLIC, None
    return running


@pytest.fixture
def client(server: MediaServer) -> Iterator[httpx.Client]:
    with server.client(key=True) as opened:
        yield opened


def part(
    name: str, content: bytes, filename: str | None = "a.png", more: str = "", kind: str = ""
) -> bytes:
    given_name = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{given_name}\r\n{more}'
    if kind:
        head += f"Content-Type: {kind}\r\n"
    return f"--{B}\r\n{head}\r\n".encode() + content + b"\r\n"


END = f"--{B}--\r\n".encode()
GOOD = part("note", b"hello", None) + part("file", samples.PNG) + END


def send(client: httpx.Client, body: bytes | Iterator[bytes], kind: str = TYPE) -> httpx.Response:
    return client.post(PATH, content=body, headers={"Content-Type": kind})


@pytest.mark.parametrize("extension", samples.PICTURES)
def test_it_works(server: MediaServer, client: httpx.Client, extension: str) -> None:
    content = samples.PICTURES[extension]

    answer = client.post(PATH, files={"file": ("photo.bmp", content, "image/x-nonsense")})

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"url", "name", "size_bytes"}
    assert NAME.fullmatch(body["name"])
    assert body["name"].endswith(extension)
    assert body["size_bytes"] == len(content)
    assert client.get(body["url"]).content == content


def test_its_address_is_signed_and_absolute(server: MediaServer, client: httpx.Client) -> None:
    server.policy = LinkPolicy(server.url, signed=True, lifetime=60)

    body = client.post(PATH, files={"file": samples.PNG}).json()

    assert body["url"].startswith(f"{server.url}/v1/files/image/{body['name']}?exp=")
    with server.client() as stranger:
        assert stranger.get(body["url"]).content == samples.PNG
        assert stranger.get(f"/v1/files/image/{body['name']}").status_code == 403


def test_it_takes_more_than_fits_into_memory_by_the_rules(
    server: MediaServer, client: httpx.Client
) -> None:
    content = samples.picture("PNG", (1500, 1500))
    assert len(content) > 20 * MAX_BODY

    answer = client.post(PATH, files={"file": content})

    assert answer.json()["size_bytes"] == len(content)


@pytest.mark.parametrize("place", range(3))
def test_the_file_may_stand_anywhere_in_the_form(client: httpx.Client, place: int) -> None:
    parts = [part("purpose", b"vision", None), part("unknown", b"zip", "a.zip")]
    parts.insert(place, part("file", samples.PNG))

    assert send(client, b"".join(parts) + END).status_code == 200


NAMELESS = f"--{B}\r\nContent-Type: image/png\r\n\r\nx\r\n".encode()
DRAWING = b"<svg onload='x()'/>" * 9
NESTED = GOOD.replace(B.encode(), b"yy")
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "no file": (part("note", b"x", None) + END, "missing_file", "file"),
    "no part at all": (END, "missing_file", "file"),
    "a field in place of a file": (part("file", b"\x89PNG", None) + END, "invalid_value", "file"),
    "an address in its place": (part("file", b"http://x", None) + END, "missing_file", "file"),
    "a file under another name": (part("image", samples.PNG) + END, "missing_file", "file"),
    "an empty file": (part("file", b"") + END, "empty_file", "file"),
    "two files": (part("file", samples.PNG) * 2 + END, "too_many_files", "file"),
    "a page": (part("file", b"<html>" * 50, kind="image/png") + END, "invalid_image_type", "file"),
    "a drawing": (part("file", DRAWING, "a.svg") + END, "invalid_image_type", "file"),
    "a film": (part("file", samples.MP4, "a.png") + END, "invalid_image_type", "file"),
    "half a picture": (part("file", samples.PNG[:-20]) + END, "damaged_file", "file"),
    "picture and more": (part("file", samples.GIF + b"PK\x03\x04") + END, "damaged_file", "file"),
    "a bomb": (part("file", samples.png_bomb(8000, 8000)) + END, "too_many_pixels", "file"),
    "no end": (part("file", samples.PNG), "form_invalid", "body"),
    "nothing": (b"", "form_invalid", "body"),
    "no form": (b'{"file": "x"}', "form_invalid", "body"),
    "no name": (NAMELESS + END, "form_invalid", "body"),
    "a long name": (part("n" * 300, b"x", None) + END, "form_invalid", "body"),
    "a long header": (part("a", b"x", more=f"X: {'y' * 9000}\r\n") + END, "form_invalid", "body"),
    "many headers": (part("a", b"x", more="X: y\r\n" * 50) + END, "form_invalid", "body"),
    "many parts": (part("a", b"", None) * 200 + END, "form_invalid", "body"),
    "a long text": (part("a", b"x" * 2_000_000, None) + END, "string_too_long", "a"),
    "many texts": (part("a", b"x" * 20_000, None) * 60 + END, "string_too_long", "a"),
    "a text that is none": (part("a", b"\xff\xfe", None) + END, "invalid_value", "a"),
    "a form in the form": (
        part("file", NESTED, kind="multipart/form-data; boundary=yy") + END,
        "invalid_image_type",
        "file",
    ),
    "a form in the form with its boundary": (part("file", GOOD) + END, "too_many_files", "file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_told_by_field_and_leaves_nothing(
    server: MediaServer, client: httpx.Client, case: str
) -> None:
    body, code, param = REFUSED[case]
    before = server.stored()

    error = error_of(send(client, body), 400)

    assert (error["code"], error["param"]) == (code, param), error
    assert server.left() == []
    assert server.stored() == before


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 300,
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=other",
        "MULTIPART/FORM-DATA",
        "multipart/form-data-ish; boundary=x",
        "multipart/mixed; boundary=" + B,
        "application/json",
        "image/png",
        "",
    ],
)
def test_a_form_without_its_boundary_is_none(client: httpx.Client, kind: str) -> None:
    assert error_of(send(client, GOOD, kind), 400)["code"] == "form_invalid"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    server: MediaServer, client: httpx.Client
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield part("file", samples.PNG)[:-2]
        while sent < 200:
            sent += 1
            yield bytes(1 << 20)

    answer = send(client, endless())

    assert error_of(answer, 400)["code"] == "file_too_large"
    assert "32 MiB" in answer.json()["error"]["message"]
    assert server.left() == []
    declared = error_of(declare(server, 10**10), 413)
    assert (declared["code"], declared["param"]) == ("request_too_large", "body")


def declare(server: MediaServer, length: int) -> httpx.Response:
    """A head that announces a body, and no body."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\n"
    head += f"Content-Type: {TYPE}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(server.address) as raw:
        raw.sendall(head.encode())
        answer = read_error(raw)
    head_, _, body = answer.partition(b"\r\n\r\n")
    status = int(head_.split()[1])
    return httpx.Response(status, headers={"content-type": "application/json"}, content=body)


def read_error(raw: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"}}"):
        got = raw.recv(65536)
        assert got, answer
        answer += got
    return answer


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-wrong"}])
def test_without_a_key_nothing_is_read(server: MediaServer, headers: dict[str, str]) -> None:
    with server.client() as client:
        body = part("file", samples.picture("PNG", (900, 900))) + END
        answer = client.post(PATH, content=body, headers={"Content-Type": TYPE, **headers})

    assert error_of(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["connection"] == "close"
    assert server.left() == []


def test_a_key_at_its_limit_is_refused(server: MediaServer, client: httpx.Client) -> None:
    Current.refuse = ApiError(429, "Enough.", type_="rate_limit_error", code="enough")

    assert error_of(send(client, GOOD), 429)["code"] == "enough"


def test_it_takes_no_form_where_none_belongs(server: MediaServer, client: httpx.Client) -> None:
    answer = client.post("/v1/files/image/a.png", files={"file": samples.PNG})

    assert error_of(answer, 405)["code"] == "method_not_allowed"


def begin(server: MediaServer, body: bytes, announced: int) -> socket.socket:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\n"
    head += f"Content-Type: {TYPE}\r\nContent-Length: {announced}\r\n\r\n"
    raw = socket.create_connection(server.address)
    raw.sendall(head.encode() + body)
    return raw


def wait_for(happened: Callable[[], Any]) -> None:
    until = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_sender_who_leaves_leaves_nothing(server: MediaServer) -> None:
    body = part("file", samples.picture("PNG", (1200, 1200)))
    raw = begin(server, body, len(body) + 1000)
    wait_for(server.left)

    raw.close()

    wait_for(lambda: server.application.running == 0 and not server.left())


def test_an_upload_interrupted_by_a_stop_gets_its_answer(server: MediaServer) -> None:
    body = part("file", samples.picture("PNG", (1200, 1200)))
    stopping = ApiError(503, "Stopping.", type_="server_error", code="service_stopping")
    with begin(server, body, len(body) + 1000) as raw:
        wait_for(server.left)

        async def stop() -> None:
            server.application.interrupt_all(stopping)

        server.inside(stop)
        assert b"service_stopping" in read_error(raw)
    wait_for(lambda: server.application.running == 0 and not server.left())


def test_bytes_may_come_one_by_one(client: httpx.Client) -> None:
    small = part("file", samples.picture("PNG", (2, 2))) + END

    answer = send(client, (small[at : at + 1] for at in range(len(small))))

    assert answer.status_code == 200


@given(st.integers(0, len(GOOD) - len(END)))
@settings(max_examples=60, deadline=None)
@example(0)
@example(len(GOOD) - len(END))
def test_a_form_cut_off_anywhere_is_refused(running: MediaServer, length: int) -> None:
    with running.client(key=True) as client:
        answer = send(client, GOOD[:length])

    assert error_of(answer, 400)["code"] == "form_invalid"
    assert running.left() == []


PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b"\x00",
        b":",
        b'"',
        B.encode(),
        f"--{B}\r\n".encode(),
        END,
        b"Content-Disposition: form-data",
        b'; name="file"',
        b'; filename="a.png"',
        b"; filename*=utf-8''a%00.png",
        b"Content-Type: multipart/mixed; boundary=y\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        samples.PNG[:200],
        samples.PNG,
    ]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=25))
@settings(max_examples=150, deadline=None)
def test_no_pieces_of_a_form_break_it(running: MediaServer, pieces: list[bytes]) -> None:
    expect_an_answer(running, b"".join(pieces))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_to_a_form_breaks_it(running: MediaServer, data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(body) - 1, 400)))
        change = data.draw(st.one_of(PIECES, st.binary(max_size=3)))
        body[at : at + data.draw(st.integers(0, 40))] = change
    expect_an_answer(running, bytes(body))


def expect_an_answer(server: MediaServer, body: bytes) -> None:
    """A picture that was kept, or an error in the envelope; nothing is left on the disk."""
    with server.client(key=True) as client:
        answer = send(client, body)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        assert NAME.fullmatch(answer.json()["name"])
    else:
        error_of(answer, 400)
    assert server.left() == []


def test_the_path_of_a_file_name_means_nothing(server: MediaServer, client: httpx.Client) -> None:
    for name in ("../../evil.png", "/etc/passwd", "a\\..\\b.png", "x" * 3000, "a%00.png", ""):
        body = part("file", samples.PNG, name) + END
        answer = send(client, body)
        assert answer.status_code == 200, answer.text
        assert NAME.fullmatch(answer.json()["name"])
    assert all(NAME.fullmatch(name) for name in server.stored())
    assert {path.name for path in Path(server.root).iterdir()} <= {"image", "incoming", "video"}
