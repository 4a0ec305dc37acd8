"""The one way to fetch an address that a client gave us.

FetchError
├── FetchRefused   the address is not one we go to
├── FileTooLarge   more bytes than allowed
├── WrongFileType  not a type that was asked for
└── FetchFailed    the other side did not deliver

Every hop is parsed by one parser, resolved once, checked address by address and then
connected to exactly what was checked, so that a name cannot change its meaning in
between. A fetch carries no cookie, credential, referrer or proxy of ours.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway.upstream.addresses import Address, is_local_name, is_public, normalise_host
from gateway.upstream.filetypes import is_accepted, presumed_type, safe_name, settle_type
from gateway.upstream.requests import FetchedFile

MAX_URL = 8192
MAX_BYTES = 32 * 1024 * 1024
USER_AGENT = "grok2api"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 64 * 1024
_NEVER_IN_A_URL = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port in, textual addresses out; raises OSError when there are none."""


class FetchError(Exception):
    """Base class; ``reason`` is ours, names no address and is safe to show to a client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FetchRefused(FetchError):
    """The address is malformed, or leads where a client may not send us."""


class FileTooLarge(FetchError):
    """The file has more bytes than allowed."""


class WrongFileType(FetchError):
    """The file is declared as, or turns out to be, a type that was not asked for."""


class FetchFailed(FetchError):
    """The server could not be reached, answered with an error, or took too long."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One hop: what to ask for, of whom, and the only addresses it may come from."""

    url: URL
    host: str
    addresses: tuple[str, ...]


class _Pinned(AbstractResolver):
    """Answers for one checked name with its checked addresses, and never looks again."""

    def __init__(self, target: _Target) -> None:
        self._target = target

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._target.host:
            raise OSError("not the checked host")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._target.addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses the system's resolver knows for ``host``."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


def read_url(text: str) -> tuple[URL, Address | str]:
    """A client's address, normalised, and the address or name it points at.

    Raises FetchRefused for anything but a plain http(s) URL of at most 8192 characters
    without user information.
    """
    if len(text) > MAX_URL:
        raise FetchRefused(f"The address is longer than {MAX_URL} characters.")
    if _NEVER_IN_A_URL.search(text):
        raise FetchRefused("The address is not a valid URL.")
    try:
        url = URL(text)
        host = normalise_host(url.raw_host or "")
    except ValueError as error:
        raise FetchRefused("The address is not a valid URL.") from error
    if url.scheme not in ("http", "https"):
        raise FetchRefused("Only http and https addresses are fetched.")
    if url.raw_user is not None or url.raw_password is not None:
        raise FetchRefused("The address must not contain a user name or password.")
    if url.explicit_port == 0:
        raise FetchRefused("The address is not a valid URL.")
    return url.with_host(str(host)).with_fragment(None), host


class GuardedFetcher:
    """Fetches files for clients, from public addresses only.

    ``allow_private`` is asked once per fetch and lifts the address check, nothing else.
    ``resolve`` and ``open_socket`` are the seams of the name and the network: the latter
    makes the socket for an ``AddrInfo`` tuple. ``total_timeout`` is in seconds and covers
    every hop, from the first look-up to the last byte.
    """

    def __init__(
        self,
        *,
        allow_private: Callable[[], bool],
        resolve: Resolver = resolve_by_system,
        open_socket: aiohttp.SocketFactoryType | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_bytes: int = MAX_BYTES,
        total_timeout: float = 30.0,
        max_redirects: int = 3,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._open_socket = open_socket
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._max_bytes = max_bytes
        self._total_timeout = total_timeout
        self._max_redirects = max_redirects

    async def fetch(self, url: str, *, accept: Set[str], name_hint: str = "") -> FetchedFile:
        """The file at ``url``, of one of the types or type prefixes in ``accept``.

        ``name_hint`` names the file when it has a usable name; else the URL does. Raises
        FetchRefused, FileTooLarge, WrongFileType or FetchFailed.
        """
        try:
            async with asyncio.timeout(self._total_timeout):
                return await self._follow(url, accept, name_hint, self._allow_private())
        except TimeoutError as error:
            raise FetchFailed("The address did not answer in time.") from error

    async def _follow(
        self, address: str, accept: Set[str], name_hint: str, private: bool
    ) -> FetchedFile:
        came_from: URL | None = None
        for _ in range(self._max_redirects + 1):
            target = await self._check(address, came_from, private)
            found = await self._get(target, accept, name_hint or target.url.name)
            if isinstance(found, FetchedFile):
                return found
            came_from, address = target.url, found
        raise FetchFailed("The address redirects too often.")

    async def _check(self, address: str, came_from: URL | None, private: bool) -> _Target:
        """One hop's target; ``came_from`` is set when ``address`` is a redirect's."""
        if came_from is not None:
            try:
                address = str(came_from.join(URL(address)))
            except ValueError as error:
                raise FetchRefused("The address redirects to an invalid URL.") from error
        url, host = read_url(address)
        if came_from is not None and came_from.scheme == "https" and url.scheme == "http":
            raise FetchRefused("The address redirects from https to http.")
        addresses = await self._addresses(host, url.port or 0, private)
        return _Target(url, str(host), tuple(str(one) for one in addresses))

    async def _addresses(self, host: Address | str, port: int, private: bool) -> list[Address]:
        if not isinstance(host, str):
            found = [host]
        elif is_local_name(host) and not private:
            raise FetchRefused("The address is not public.")
        else:
            found = await self._look_up(host, port)
        if not private and not all(is_public(one) for one in found):
            raise FetchRefused("The address is not public.")
        return found

    async def _look_up(self, host: str, port: int) -> list[Address]:
        try:
            found = [ip_address(one) for one in await self._resolve(host, port)]
        except (OSError, ValueError) as error:
            raise FetchFailed("The host name of the address could not be resolved.") from error
        if not found:
            raise FetchFailed("The host name of the address could not be resolved.")
        return list(dict.fromkeys(found))

    async def _get(self, target: _Target, accept: Set[str], name: str) -> FetchedFile | str:
        """The file, or the Location of a redirect."""
        try:
            async with (
                self._session(target) as session,
                session.get(target.url, allow_redirects=False) as response,
            ):
                if response.status in _REDIRECTS and response.headers.get("Location"):
                    return response.headers["Location"]
                return await self._take(response, accept, name)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise FetchFailed("The address could not be fetched.") from error

    def _session(self, target: _Target) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target),
            use_dns_cache=False,
            force_close=True,
            ssl=self._ssl_context,
            socket_factory=self._open_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
        )

    async def _take(
        self, response: aiohttp.ClientResponse, accept: Set[str], name: str
    ) -> FetchedFile:
        if response.status != 200:
            raise FetchFailed(f"The address answered with status {response.status}.")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchFailed("The address answered with a compressed body.")
        declared = response.headers.get("Content-Type", "")
        presumed = presumed_type(declared, name)
        if presumed and not is_accepted(presumed, accept):
            raise WrongFileType("The file at the address is not of an accepted type.")
        content = await self._read(response)
        mime = settle_type(declared, name, content)
        if not mime or not is_accepted(mime, accept):
            raise WrongFileType("The file at the address is not of an accepted type.")
        return FetchedFile(name=safe_name(name, mime), mime_type=mime, content=content)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        too_large = f"The file at the address is larger than {self._max_bytes} bytes."
        if (response.content_length or 0) > self._max_bytes:
            raise FileTooLarge(too_large)
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                raise FileTooLarge(too_large)
        if not body:
            raise FetchFailed("The file at the address is empty.")
        return bytes(body)
