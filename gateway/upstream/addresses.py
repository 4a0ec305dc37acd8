"""Which hosts a client may make us fetch from: names and addresses, judged without I/O.

The special-purpose ranges are those of the IANA IPv4 and IPv6 registries (RFC 6890).
They are spelled out here because ``ipaddress.is_global`` changes between Python releases.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)

_PRIVATE_V4 = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # this network, and the unspecified address
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; some clouds keep metadata here
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, the one metadata service on public space
        "169.254.0.0/16",  # link-local, and 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""Everything outside is special: loopback, mapped, compatible, NAT64, fc00::/7, fe80::/10."""
_PRIVATE_V6 = tuple(
    IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)

_LOCAL_NAMES = frozenset({"localhost", "metadata", "metadata.goog", "instance-data"})
_LOCAL_SUFFIXES = (".localhost", ".local", ".localdomain", ".internal", ".home.arpa")


def is_public(address: Address) -> bool:
    """Whether an address is ordinary public unicast, safe to connect to for a stranger.

    Addresses that carry an IPv4 address inside (mapped, compatible, 6to4, Teredo, NAT64)
    are not, whatever they carry.
    """
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _PRIVATE_V4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST_V6:
        return False
    return not any(address in net for net in _PRIVATE_V6)


def is_local_name(name: str) -> bool:
    """Whether a normalised name means this machine, this network or a metadata service."""
    return name in _LOCAL_NAMES or name.endswith(_LOCAL_SUFFIXES)


def normalise_host(host: str) -> Address | str:
    """The address a host is, in whatever notation, or its lower-case ASCII name.

    ``host`` is already in IDNA form and without brackets. Accepts the IPv4 notations that
    resolvers accept (decimal, octal, hexadecimal, fewer than four parts) and one trailing
    dot. Raises ValueError for a zone id, a malformed number and an impossible name.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("zone id")
        return ip_address(host)
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _parse_ipv4(labels)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("host name")
    return name


def _parse_ipv4(parts: list[str]) -> IPv4Address:
    numbers = [_parse_number(part) for part in parts]
    last = numbers.pop()
    if len(numbers) > 3 or any(number > 255 for number in numbers):
        raise ValueError("IPv4 address")
    room = 256 ** (4 - len(numbers))
    if last >= room:
        raise ValueError("IPv4 address")
    value = 0
    for number in numbers:
        value = value * 256 + number
    return IPv4Address(value * room + last)


def _parse_number(part: str) -> int:
    if not _NUMBER.fullmatch(part) or len(part) > 16:
        raise ValueError("IPv4 number")
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") and len(part) > 1 else int(part)
