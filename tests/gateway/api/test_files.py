"""``/v1/files``: what is there, in parts and whole; who may read; what no name reaches."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.conditions import Version, wanted_span
from gateway.media.links import LinkPolicy
from gateway.media.store import in_memory
from gateway.wire.errors import ApiError
from tests.gateway.api.reading import error_of
from tests.gateway.media import samples
from tests.gateway.media.server import PUBLIC, MediaServer

SIGNED = LinkPolicy("", signed=True, lifetime=3600)
LARGE = samples.picture("PNG", (1200, 1200))
IMAGE = "/v1/files/image/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaServer]:
    root = tmp_path_factory.mktemp("media")
    with MediaServer(root) as running:
        running.put("image", "users-u-1-a.png", samples.PNG)
        running.put("image", "large.png", LARGE)
        for extension, content in samples.PICTURES.items():
            running.put("image", f"kind.of.{extension}.{extension}", content)
        for extension, content in samples.VIDEOS.items():
            running.put("video", f"kind.{extension}", content)
        (root / "secret.png").write_bytes(samples.PNG)
        (root / "image" / "link.png").symlink_to(root / "secret.png")
        running.put("image", ".hidden.png", samples.PNG)
        yield running


@pytest.fixture
def client(server: MediaServer) -> Iterator[httpx.Client]:
    server.policy = PUBLIC
    server.configure(accel_redirect="")
    with server.client() as opened:
        yield opened


@pytest.mark.parametrize("name", ["users-u-1-a.png", "users/u-1/a.png", "users/u-1/a.jpg"])
def test_it_works(client: httpx.Client, name: str) -> None:
    answer = client.get(IMAGE + name)

    assert (answer.status_code, answer.content) == (200, samples.PNG)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(samples.PNG))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert answer.headers["content-security-policy"].endswith("; sandbox")
    assert answer.headers["content-disposition"] == 'inline; filename="users-u-1-a.png"'
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("path", "mime"),
    [
        ("image/kind.of.png.png", "image/png"),
        ("image/kind.of.jpg.jpg", "image/jpeg"),
        ("image/kind.of.webp.webp", "image/webp"),
        ("image/kind.of.gif.gif", "image/gif"),
        ("video/kind.mp4", "video/mp4"),
        ("video/kind.webm", "video/webm"),
    ],
)
def test_every_type_is_served_as_what_it_is(client: httpx.Client, path: str, mime: str) -> None:
    answer = client.get(f"/v1/files/{path}")

    assert (answer.status_code, answer.headers["content-type"]) == (200, mime)


def test_head_tells_the_same_without_a_body(client: httpx.Client) -> None:
    got, told = client.get(IMAGE + "large.png"), client.head(IMAGE + "large.png")

    for answer in (got, told):
        answer.headers.pop("date", None)
    assert told.status_code == 200
    assert told.content == b""
    assert told.headers == got.headers
    ranged = client.head(IMAGE + "large.png", headers={"Range": "bytes=0-1"})
    assert ranged.status_code == 200, "a range is for GET alone"


def test_other_methods_are_not_allowed(client: httpx.Client) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = client.request(method, IMAGE + "large.png")
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/image/nothing.png",
        "/v1/files/video/large.png",
        "/v1/files/audio/large.png",
        "/v1/files/image/../secret.png",
        "/v1/files/image/%2e%2e/secret.png",
        "/v1/files/image/..%2fsecret.png",
        "/v1/files/image/..%252fsecret.png",
        "/v1/files/image/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/files/image//etc/passwd",
        "/v1/files/image/%2fetc%2fpasswd",
        "/v1/files/image/..%5c..%5csecret.png",
        "/v1/files/image/large.png%00.txt",
        "/v1/files/image/large%00.png",
        "/v1/files/image/large.png%0d%0aX-Evil:%201",
        "/v1/files/image/large.png%0a",
        "/v1/files/image/link.png",
        "/v1/files/image/.hidden.png",
        "/v1/files/image/.",
        "/v1/files/image/%c0%ae%c0%ae/secret.png",
        "/v1/files/image/%ff%fe",
        "/v1/files/image/" + "a" * 201,
        "/v1/files/image/" + "a" * 60_000,
        "/v1/files/image/" + "a/" * 20_000,
        "/v1/files/image/",
        "/v1/files/image",
        "/v1/files/",
    ],
)
def test_no_name_reaches_anything_else(
    server: MediaServer, client: httpx.Client, path: str
) -> None:
    """Sent as it is written here, since clients tidy paths up."""
    with socket.create_connection(server.address) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 "), answer[:300]
    assert body.startswith(b'{"error": {"message": ')
    assert b"evil" not in head.lower()


def test_unchanged_files_are_not_sent_again(client: httpx.Client) -> None:
    first = client.get(IMAGE + "large.png")
    tag, date = first.headers["etag"], first.headers["last-modified"]

    for headers in (
        {"If-None-Match": tag},
        {"If-None-Match": f'W/{tag}, "other"'},
        {"If-None-Match": "*"},
        {"If-None-Match": tag, "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": date},
    ):
        answer = client.get(IMAGE + "large.png", headers=headers)
        assert (answer.status_code, answer.content) == (304, b""), headers
        assert answer.headers["etag"] == tag
        assert "content-length" not in answer.headers
        assert "content-type" not in answer.headers
    for headers in (
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": date},
        {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ):
        assert client.get(IMAGE + "large.png", headers=headers).status_code == 200, headers


def test_another_version_than_the_wanted_one_is_refused(client: httpx.Client) -> None:
    first = client.get(IMAGE + "large.png")
    tag, date = first.headers["etag"], first.headers["last-modified"]

    for headers in (
        {"If-Match": '"other"'},
        {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ):
        answer = client.get(IMAGE + "large.png", headers=headers)
        assert error_of(answer, 412)["code"] == "precondition_failed"
    for headers in ({"If-Match": tag}, {"If-Match": "*"}, {"If-Unmodified-Since": date}):
        assert client.get(IMAGE + "large.png", headers=headers).status_code == 200


def test_a_part_is_sent_only_of_the_version_it_is_for(client: httpx.Client) -> None:
    first = client.get(IMAGE + "large.png")
    tag, date = first.headers["etag"], first.headers["last-modified"]

    for current, status in ((tag, 206), (date, 206), ('"other"', 200), (f"W/{tag}", 200)):
        headers = {"Range": "bytes=5-9", "If-Range": current}
        answer = client.get(IMAGE + "large.png", headers=headers)
        assert answer.status_code == status
        assert answer.content == (LARGE[5:10] if status == 206 else LARGE)


@given(
    st.one_of(
        st.tuples(st.integers(0, len(LARGE) + 10), st.integers(0, len(LARGE) + 10)),
        st.tuples(st.integers(0, len(LARGE) + 10), st.none()),
        st.tuples(st.none(), st.integers(0, len(LARGE) + 10)),
    )
)
@settings(max_examples=60, deadline=None)
@example((0, 0))
@example((len(LARGE) - 1, None))
@example((len(LARGE), None))
@example((None, 0))
@example((0, 10**40))
@example((10**5000, None))
def test_a_range_is_a_slice(server: MediaServer, wanted: tuple[int | None, int | None]) -> None:
    first, last = wanted
    digits = ["" if number is None else _decimal(number) for number in wanted]
    with server.client() as client:
        answer = client.get(IMAGE + "large.png", headers={"Range": "bytes=" + "-".join(digits)})

    if first is None:
        expected = LARGE[-last:] if last else b""
    elif last is None:
        expected = LARGE[first:] if first < len(LARGE) else b""
    elif last < first:
        assert (answer.status_code, answer.content) == (200, LARGE)
        return
    else:
        expected = LARGE[first : last + 1] if first < len(LARGE) else b""
    if not expected:
        assert error_of(answer, 416)["code"] == "range_not_satisfiable"
        assert answer.headers["content-range"] == f"bytes */{len(LARGE)}"
        return
    assert (answer.status_code, answer.content) == (206, expected)
    start = len(LARGE) - len(expected) if first is None else first
    told = f"bytes {start}-{start + len(expected) - 1}/{len(LARGE)}"
    assert answer.headers["content-range"] == told


def _decimal(number: int) -> str:
    return "1" + "0" * 5000 if number == 10**5000 else str(number)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,5-9",
        "bytes=",
        "bytes=-",
        "lines=0-1",
        "bytes=a-b",
        "bytes 0-1",
        "0-1",
        "bytes=1--2",
    ],
)
def test_what_is_no_single_range_is_answered_with_everything(
    client: httpx.Client, header: str
) -> None:
    answer = client.get(IMAGE + "large.png", headers={"Range": header})

    assert (answer.status_code, answer.content) == (200, LARGE)


@given(st.text(), st.integers(0, 1000))
@settings(max_examples=300)
def test_no_range_makes_it_fail_in_another_way(header: str, size: int) -> None:
    try:
        span = wanted_span({"Range": header}, Version('"x"', 0, size))
    except ApiError as error:
        assert error.status == 416
        return
    assert 0 <= span.start <= span.start + span.length <= size


def path_of(server: MediaServer, name: str = "large.png") -> str:
    return server.links.url("image", name)


def test_a_signed_link_opens_without_a_key_until_it_expires(
    server: MediaServer, client: httpx.Client
) -> None:
    server.policy = SIGNED
    url = path_of(server)
    answer = client.get(url)
    assert (answer.status_code, answer.content) == (200, LARGE)
    directive, _, seconds = answer.headers["cache-control"].partition("max-age=")
    assert directive == "private, "
    assert 3600 <= int(seconds.removesuffix(", immutable")) <= 4000
    slashed = path_of(server, "users-u-1-a.png").replace("users-u-1-a", "users/u-1/a")
    assert client.get(slashed).status_code == 200

    server.now += 5000
    refused = client.get(url)
    assert error_of(refused, 403)["code"] == "link_expired"
    server.now -= 5000


@pytest.mark.parametrize("name", ["large.png", "nothing.png", ".hidden.png", "..%2fsecret.png"])
def test_without_a_signature_nobody_learns_what_is_there(
    server: MediaServer, client: httpx.Client, name: str
) -> None:
    server.policy = SIGNED
    wrong = path_of(server, "users-u-1-a.png").partition("?")[2]

    for query in ("", "?sig=&exp=", "?exp=99999999999&sig=" + "0" * 32, f"?{wrong}"):
        answer = client.get(IMAGE + name + query)
        error = error_of(answer, 403)
        assert (error["type"], error["code"]) == ("permission_error", "invalid_link")


def test_a_valid_key_opens_by_name(server: MediaServer) -> None:
    server.policy = SIGNED
    with server.client(key=True) as client:
        answer = client.get(IMAGE + "large.png")
        assert (answer.status_code, answer.content) == (200, LARGE)
        assert answer.headers["cache-control"].startswith("private, ")
        assert client.get(IMAGE + "nothing.png").status_code == 404
        wrong = {"Authorization": "Bearer sk-wrong"}
        assert client.get(IMAGE + "large.png", headers=wrong).status_code == 403


def test_a_signed_link_to_what_is_gone_says_so(server: MediaServer, client: httpx.Client) -> None:
    server.policy = SIGNED

    error = error_of(client.get(path_of(server, "nothing.png")), 404)

    assert (error["type"], error["code"]) == ("not_found_error", "not_found")
    assert "no longer" in error["message"]


def test_the_server_in_front_may_send_the_file(server: MediaServer, client: httpx.Client) -> None:
    server.configure(accel_redirect="/internal-media/")

    answer = client.get(IMAGE + "users/u-1/a.jpg", headers={"Range": "bytes=0-1"})

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-accel-redirect"] == "/internal-media/image/users-u-1-a.png"
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(IMAGE + "nothing.png").status_code == 404


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count


def test_nothing_stays_open(server: MediaServer, client: httpx.Client) -> None:
    client.get(IMAGE + "large.png")
    before = open_files()
    for _ in range(20):
        client.get(IMAGE + "large.png")
        client.head(IMAGE + "large.png")
        client.get(IMAGE + "large.png", headers={"If-None-Match": "*"})
        client.get(IMAGE + "large.png", headers={"Range": "bytes=99999999-"})
        client.get(IMAGE + "large.png", headers={"If-Match": '"other"'})
        client.get(IMAGE + "link.png")
    assert open_files() <= before


def test_a_reader_that_leaves_gives_the_file_back(tmp_path: Path, server: MediaServer) -> None:
    server.policy = PUBLIC
    server.put("image", "huge.png", samples.PNG + bytes(30_000_000))
    before = open_files()
    readers = [socket.create_connection(server.address) for _ in range(5)]
    for reader in readers:
        reader.sendall(b"GET /v1/files/image/huge.png HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert server.application.running == 5
    for reader in readers:
        reader.close()

    _wait_for(lambda: server.application.running == 0 and open_files() <= before)


def _wait_for(happened: object) -> None:
    import time

    until = time.monotonic() + 5
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_file_cleaned_while_it_is_read_arrives_whole(server: MediaServer) -> None:
    server.policy = PUBLIC
    content = samples.PNG + os.urandom(20_000_000)
    path = server.put("image", "cleaned.png", content)
    with socket.create_connection(server.address) as reader:
        reader.sendall(
            b"GET /v1/files/image/cleaned.png HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        beginning = reader.recv(1000)
        path.unlink()
        answer = beginning + b"".join(iter(lambda: reader.recv(1 << 20), b""))

    assert answer.partition(b"\r\n\r\n")[2] == content


def test_a_file_that_shrinks_ends_in_a_broken_connection(server: MediaServer) -> None:
    server.policy = PUBLIC
    path = server.put("image", "shrinking.png", samples.PNG + bytes(20_000_000))
    with socket.create_connection(server.address) as reader:
        reader.sendall(b"GET /v1/files/image/shrinking.png HTTP/1.1\r\nHost: x\r\n\r\n")
        beginning = reader.recv(1000)
        os.truncate(path, 1000)
        answer = beginning + b"".join(iter(lambda: reader.recv(1 << 20), b""))

    assert len(answer) < 20_000_000


def test_many_read_the_same_file_at_once(server: MediaServer) -> None:
    server.policy = PUBLIC
    answers: list[bytes] = []

    def read() -> None:
        with server.client() as client:
            answers.append(client.get(IMAGE + "large.png").content)

    readers = [threading.Thread(target=read) for _ in range(40)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)

    assert answers == [LARGE] * 40


def test_what_is_saved_is_served_at_its_link(server: MediaServer, client: httpx.Client) -> None:
    server.policy = SIGNED
    stored = server.inside(
        lambda: server.store.save("video", "users-u-v-content", in_memory(samples.MP4))
    )

    answer = client.get(server.links.url(stored.kind, stored.name))

    assert (answer.status_code, answer.content) == (200, samples.MP4)
    assert answer.headers["content-type"] == "video/mp4"
