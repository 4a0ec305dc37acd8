"""The guarded fetcher: where it goes, what it sends, what it takes."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.upstream.fetch import (
    FetchFailed,
    FetchRefused,
    FileTooLarge,
    GuardedFetcher,
    WrongFileType,
    read_url,
)
from gateway.upstream.requests import FetchedFile

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24
IMAGES = frozenset({"image/"})
PDF = frozenset({"application/pdf"})
PUBLIC = "93.184.216.34"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Names:
    """A resolver with scripted answers, one list per look-up, the last one repeated."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        lists = self.answers.get(host)
        if lists is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown name")
        return lists.pop(0) if len(lists) > 1 else lists[0]


class NoNetwork:
    """Refuses to make sockets and remembers for which addresses."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def __call__(self, info: Any) -> socket.socket:
        self.dialled.append(info[4][0])
        raise OSError("no network here")


class Diverted(socket.socket):
    """A socket that connects to ``to`` wherever it is sent."""

    to: tuple[str, int]

    def connect(self, address: Any) -> None:
        super().connect(self.to)


class Diversion:
    """Leads every connection to one local port and remembers where it was meant to go."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.dialled: list[tuple[str, int]] = []

    def __call__(self, info: Any) -> socket.socket:
        self.dialled.append(info[4][:2])
        made = Diverted(socket.AF_INET, socket.SOCK_STREAM)
        made.to = ("127.0.0.1", self.port)
        return made


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    server = TestServer(app)
    async with server:
        yield server


def answering(body: bytes, content_type: str = "image/png", **headers: str) -> Handler:
    extra = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"Content-Type": content_type, **extra})

    return handler


def local_fetcher(**options: Any) -> GuardedFetcher:
    return GuardedFetcher(allow_private=lambda: True, **options)


async def fetch_local(handler: Handler, path: str = "/cat.png", **options: Any) -> FetchedFile:
    accept = options.pop("accept", IMAGES)
    async with serving(handler) as server:
        return await local_fetcher(**options).fetch(str(server.make_url(path)), accept=accept)


async def test_it_fetches_a_picture() -> None:
    found = await fetch_local(answering(PNG))
    assert found == FetchedFile("cat.png", "image/png", PNG)


REFUSED = [
    "http://0.0.0.0/",
    "http://0/",
    "http://127.0.0.1/",
    "http://127.0.0.1:8000/v1/models",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://ⓛocalhost/",
    "http://a.localhost/",
    "http://metadata.google.internal/",
    "http://metadata/",
    "http://instance-data.ec2.internal/",
    "http://private.example/",
    "http://mixed.example/",
    "http://mapped.example/",
    "http://user:pw@public.example/",
    "http://user@public.example/",
    "http://public.example@127.0.0.1/",
    "http://127.0.0.1\\@public.example/",
    "http://public.example\\@127.0.0.1/",
    "http://127.0.0.1%2523@public.example/",
    "http://pub%6cic.example/",
    "http://public.example:0/",
    "http://public.example:99999/",
    "http://public.example:x/",
    "http:///etc/passwd",
    "http://",
    "http:public.example",
    "//public.example/",
    "public.example",
    "",
    "file:///etc/passwd",
    "ftp://public.example/",
    "gopher://127.0.0.1:6379/_INFO",
    "data:image/png;base64,iVBORw0KGgo=",
    "jar:http://public.example!/",
    "unix:///var/run/docker.sock",
    "http://public.example/ HTTP/1.1\r\nX: y",
    "http://public.example/\x00",
    "http://public.example/" + "a" * 8192,
    "http://[::1",
    "http://[v1.a]/",
    "http://a..b/",
    "http://public.example/\ud800",
]


@pytest.mark.parametrize("url", REFUSED, ids=lambda url: ascii(url)[:60])
async def test_it_refuses_the_corpus_without_a_connection(url: str) -> None:
    names = Names(
        public_example=[[PUBLIC]],
        private_example=[["10.0.0.7"]],
        mixed_example=[[PUBLIC, "127.0.0.1"]],
        mapped_example=[["::ffff:127.0.0.1"]],
    )
    network = NoNetwork()
    fetcher = GuardedFetcher(allow_private=lambda: False, resolve=names, open_socket=network)
    with pytest.raises((FetchRefused, FetchFailed)) as caught:
        await fetcher.fetch(url, accept=IMAGES)
    assert network.dialled == []
    assert isinstance(caught.value, FetchRefused) or "[v1.a]" in url
    for secret in ("10.0.0.7", "127.0.0.1", "pw"):
        assert secret not in caught.value.reason


async def test_it_connects_to_the_checked_address_though_the_name_changes_its_mind() -> None:
    names = Names(rebind_example=[[PUBLIC], ["127.0.0.1"]])
    async with serving(answering(PNG)) as server:
        way = Diversion(server.port or 0)
        fetcher = GuardedFetcher(allow_private=lambda: False, resolve=names, open_socket=way)
        found = await fetcher.fetch("http://rebind.example/a.png", accept=IMAGES)
    assert found.content == PNG
    assert names.asked == ["rebind.example"]
    assert way.dialled == [(PUBLIC, 80)]


async def test_it_looks_again_at_a_name_it_is_redirected_to() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://rebind.example/again")

    names = Names(rebind_example=[[PUBLIC], ["127.0.0.1"]])
    async with serving(handler) as server:
        way = Diversion(server.port or 0)
        fetcher = GuardedFetcher(allow_private=lambda: False, resolve=names, open_socket=way)
        with pytest.raises(FetchRefused):
            await fetcher.fetch("http://rebind.example/", accept=IMAGES)
    assert way.dialled == [(PUBLIC, 80)]


async def test_it_tries_every_checked_address_and_no_other() -> None:
    names = Names(two_example=[[PUBLIC, "1.1.1.1"]])
    network = NoNetwork()
    fetcher = GuardedFetcher(allow_private=lambda: False, resolve=names, open_socket=network)
    with pytest.raises(FetchFailed) as caught:
        await fetcher.fetch("http://two.example/", accept=IMAGES)
    assert set(network.dialled) == {"1.1.1.1", PUBLIC}
    assert PUBLIC not in caught.value.reason


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "//10.0.0.1/x",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://private.example/",
        "http://user:pw@public.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://[::1",
        "http://public.example:0/",
    ],
)
async def test_it_refuses_a_redirect_to_where_it_would_not_go(location: str) -> None:
    names = Names(public_example=[[PUBLIC]], private_example=[["192.168.0.9"]])

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": location})

    async with serving(handler) as server:
        way = Diversion(server.port or 0)
        fetcher = GuardedFetcher(allow_private=lambda: False, resolve=names, open_socket=way)
        with pytest.raises(FetchRefused):
            await fetcher.fetch("http://public.example/a", accept=IMAGES)
    assert len(way.dialled) == 1


async def test_it_follows_a_relative_redirect_and_names_the_file_after_its_end() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path != "/deep/dog.png":
            return web.Response(status=301, headers={"Location": "deep/dog.png?x=1#y"})
        return web.Response(body=PNG, content_type="image/png")

    assert (await fetch_local(handler, "/a")).name == "dog.png"


async def test_it_follows_three_redirects_and_not_four() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        left = int(request.path.strip("/"))
        if left:
            return web.Response(status=307, headers={"Location": f"/{left - 1}"})
        return web.Response(body=PNG, content_type="image/png")

    assert (await fetch_local(handler, "/3")).content == PNG
    with pytest.raises(FetchFailed):
        await fetch_local(handler, "/4")


async def test_a_redirect_to_nowhere_is_a_failure() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302)

    with pytest.raises(FetchFailed):
        await fetch_local(handler)


async def test_it_sends_nothing_of_ours_even_after_a_cookie_was_set() -> None:
    seen: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        if len(seen) == 1:
            headers = {"Location": "/next", "Set-Cookie": "sso=planted; Path=/"}
            return web.Response(status=302, headers=headers)
        return web.Response(body=PNG, content_type="image/png", headers={"Set-Cookie": "a=b"})

    async with serving(handler) as server:
        fetcher = local_fetcher()
        for _ in range(2):
            await fetcher.fetch(str(server.make_url("/a.png")), accept=IMAGES)
        host = f"127.0.0.1:{server.port}"
    assert len(seen) == 3
    for headers in seen:
        assert headers == {
            "host": host,
            "connection": "close",
            "user-agent": "grok2api",
            "accept": "*/*",
            "accept-encoding": "identity",
        }


async def test_it_takes_no_proxy_and_no_netrc_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=PNG, content_type="image/png")

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login planted password planted\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    await fetch_local(handler)
    assert seen == [None]


async def test_it_keeps_the_name_in_the_host_header() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.host)
        return web.Response(body=PNG, content_type="image/png")

    names = Names(files_example=[["127.0.0.1"]])
    async with serving(handler) as server:
        fetcher = local_fetcher(resolve=names)
        await fetcher.fetch(f"http://Files.Example.:{server.port}/a", accept=IMAGES)
        port = server.port
    assert seen == [f"files.example:{port}"]


@pytest.mark.parametrize("declares", [True, False])
async def test_it_refuses_more_bytes_than_allowed(declares: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        if declares:
            response.content_length = 200
        await response.prepare(request)
        await response.write(PNG + b"\0" * (200 - len(PNG)))
        return response

    with pytest.raises(FileTooLarge):
        await fetch_local(handler, max_bytes=199)
    assert len((await fetch_local(handler, max_bytes=200)).content) == 200


async def test_it_does_not_wait_for_a_body_that_is_declared_too_large() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        response.content_length = 33_554_433
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    with pytest.raises(FileTooLarge):
        await fetch_local(handler)


async def test_it_stops_reading_an_endless_body() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        while True:
            await response.write(b"\0" * 65536)

    with pytest.raises(FileTooLarge):
        await fetch_local(handler, max_bytes=1_000_000)


@pytest.mark.parametrize("says", ["nothing", "headers", "some"])
async def test_it_gives_up_in_time_on_a_server_that_stalls(says: str) -> None:
    released = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        if says != "nothing":
            await response.prepare(request)
        if says == "some":
            await response.write(PNG)
        await released.wait()
        return response

    async with serving(handler) as server:
        url = str(server.make_url("/a.png"))
        with pytest.raises(FetchFailed, match="in time"):
            await local_fetcher(total_timeout=0.05).fetch(url, accept=IMAGES)
        released.set()


async def test_the_time_cap_covers_the_name_lookup() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    fetcher = GuardedFetcher(allow_private=lambda: False, resolve=never, total_timeout=0.01)
    with pytest.raises(FetchFailed, match="in time"):
        await fetcher.fetch("http://slow.example/", accept=IMAGES)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "x-gzip", "identity, gzip"])
async def test_it_refuses_an_encoded_body_such_as_a_bomb(coding: str) -> None:
    bomb = gzip.compress(PNG + b"\0" * 5_000_000)
    with pytest.raises(FetchFailed, match="compressed"):
        await fetch_local(answering(bomb, Content_Encoding=coding))


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        (PNG, "text/html"),
        (PNG, "application/pdf"),
        (b"<html>", "image/png"),
        (b"<svg/>", "image/svg+xml"),
        (b"%PDF-1.7", "image/png"),
        (b"<html>", ""),
        (b"<html>", "application/octet-stream"),
        (b"\0\0\0\x20ftypavif", "image/avif"),
    ],
)
async def test_it_takes_only_pictures_for_pictures(body: bytes, declared: str) -> None:
    with pytest.raises(WrongFileType):
        await fetch_local(answering(body, declared), "/x")


async def test_it_does_not_read_the_body_of_a_wrongly_declared_file() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    with pytest.raises(WrongFileType):
        await fetch_local(handler, "/x")


@pytest.mark.parametrize(
    ("body", "declared", "found"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpg", "image/jpeg"),
        (b"\xff\xd8\xff\xe0", "image/png", "image/jpeg"),
        (b"GIF89a", "image/gif; x=y", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "IMAGE/WEBP", "image/webp"),
        (PNG, "binary/octet-stream", "image/png"),
    ],
)
async def test_it_believes_the_content_of_a_picture(body: bytes, declared: str, found: str) -> None:
    assert (await fetch_local(answering(body, declared), "/x")).mime_type == found


async def test_it_takes_a_document_by_type_or_extension() -> None:
    for declared in ("application/pdf", "application/octet-stream"):
        found = await fetch_local(answering(b"%PDF-1.7", declared), "/a.pdf", accept=PDF)
        assert (found.name, found.mime_type) == ("a.pdf", "application/pdf")


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
async def test_any_answer_but_200_is_a_failure(status: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Content-Type": "image/png"})

    with pytest.raises(FetchFailed):
        await fetch_local(handler)


async def test_an_empty_file_is_a_failure() -> None:
    with pytest.raises(FetchFailed):
        await fetch_local(answering(b""))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\n\r\n",
    ],
)
async def test_a_broken_server_is_a_failure_and_nothing_else(reply: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.png"
        with pytest.raises((FetchFailed, FetchRefused)):
            await local_fetcher().fetch(url, accept=IMAGES)


async def test_an_unknown_name_and_a_name_without_addresses_are_failures() -> None:
    fetcher = GuardedFetcher(allow_private=lambda: False, resolve=Names(empty_example=[[]]))
    for url in ("http://unknown.example/", "http://empty.example/"):
        with pytest.raises(FetchFailed, match="could not be resolved"):
            await fetcher.fetch(url, accept=IMAGES)


async def test_allowing_private_addresses_is_asked_for_each_fetch() -> None:
    allowed = True
    async with serving(answering(PNG)) as server:
        fetcher = GuardedFetcher(allow_private=lambda: allowed)
        url = str(server.make_url("/a.png"))
        await fetcher.fetch(url, accept=IMAGES)
        allowed = False
        with pytest.raises(FetchRefused):
            await fetcher.fetch(url, accept=IMAGES)


async def test_the_systems_resolver_is_used_unless_told_otherwise() -> None:
    async with serving(answering(PNG)) as server:
        found = await local_fetcher().fetch(f"http://localhost:{server.port}/", accept=IMAGES)
    assert found.name == "image.png"


def test_it_normalises_what_it_asks_for() -> None:
    url, host = read_url("HTTP://BÜCHER.example.:8080/ä?q=ü#part")
    assert host == "xn--bcher-kva.example"
    assert str(url) == "http://xn--bcher-kva.example:8080/%C3%A4?q=%C3%BC"


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_pem


@asynccontextmanager
async def serving_tls(
    folder: Path, asked: list[str], location: str = ""
) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """A TLS server for files.example: its port, and a context that trusts it."""
    pem, key_pem = _certificate(folder, "files.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key_pem)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if location:
            return web.Response(status=302, headers={"Location": location})
        return web.Response(body=PNG, content_type="image/png")

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1], ssl.create_default_context(cafile=str(pem))
    finally:
        await runner.cleanup()


async def test_it_names_the_host_in_tls_and_verifies_it(tmp_path: Path) -> None:
    asked: list[str] = []
    names = Names(files_example=[[PUBLIC]], other_example=[[PUBLIC]])
    async with serving_tls(tmp_path, asked) as (port, trusting):
        fetcher = GuardedFetcher(
            allow_private=lambda: False,
            resolve=names,
            open_socket=Diversion(port),
            ssl_context=trusting,
        )
        found = await fetcher.fetch("https://files.example/a.png", accept=IMAGES)
        with pytest.raises(FetchFailed):
            await fetcher.fetch("https://other.example/a.png", accept=IMAGES)
        wary = local_fetcher(resolve=names, open_socket=Diversion(port))
        with pytest.raises(FetchFailed):
            await wary.fetch("https://files.example/a.png", accept=IMAGES)
    assert found.content == PNG
    assert asked == ["files.example", "other.example", "files.example"]


async def test_it_refuses_a_redirect_from_https_to_http(tmp_path: Path) -> None:
    names = Names(files_example=[[PUBLIC]])
    async with serving_tls(tmp_path, [], "http://files.example/") as (port, trusting):
        way = Diversion(port)
        fetcher = GuardedFetcher(
            allow_private=lambda: False, resolve=names, open_socket=way, ssl_context=trusting
        )
        with pytest.raises(FetchRefused, match="https to http"):
            await fetcher.fetch("https://files.example/a.png", accept=IMAGES)
    assert way.dialled == [(PUBLIC, 443)]


async def test_a_cancelled_fetch_stays_cancelled() -> None:
    entered = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handler) as server:
        url = str(server.make_url("/"))
        task = asyncio.ensure_future(local_fetcher().fetch(url, accept=IMAGES))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_seam_takes_what_aiohttp_calls_a_socket_factory() -> None:
    factory: aiohttp.SocketFactoryType = NoNetwork()
    assert callable(factory)
