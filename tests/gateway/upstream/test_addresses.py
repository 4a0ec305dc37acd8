"""Names and addresses a client may not send us to."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.addresses import is_local_name, is_public, normalise_host


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "2606:4700:4700::1111",
        "2a00:1450:4001:81b::200e",
    ],
)
def test_it_takes_ordinary_public_addresses(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::a00:1",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_it_refuses_every_special_address(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("10.0x10203", "10.1.2.3"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("8.8.8.8", "8.8.8.8"),
        ("::1", "::1"),
        ("::ffff:7f00:1", "::ffff:127.0.0.1"),
    ],
)
def test_it_sees_through_every_notation(host: str, address: str) -> None:
    assert normalise_host(host) == ip_address(address)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
    ],
)
def test_it_normalises_names(host: str, name: str) -> None:
    assert normalise_host(host) == name


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "example.org..",
        ".example.org",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.1.1.256",
        "4294967296",
        "127.0.08",
        "foo.1",
        "foo.0x1",
        "99999999999999999999",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "ex%61mple.org",
        "a b",
        "a,b",
        "-a.example",
        "a" * 64 + ".example",
        "a." * 127 + "aaaa",
        "12345::",
    ],
)
def test_it_refuses_impossible_hosts(host: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        normalise_host(host)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "a.localhost",
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "printer.local",
        "box.localdomain",
        "router.home.arpa",
    ],
)
def test_it_knows_local_and_metadata_names(name: str) -> None:
    assert is_local_name(name)


def test_it_does_not_take_a_likeness_for_a_local_name() -> None:
    assert not any(map(is_local_name, ("localhost.example", "mylocalhost", "internal.example")))


@given(st.integers(0, 2**32 - 1))
def test_it_judges_an_ipv4_address_the_same_in_every_notation(value: int) -> None:
    address = IPv4Address(value)
    for form in (str(address), str(value), hex(value), f"0{value:o}", f"{address}."):
        assert normalise_host(form) == address


@given(st.integers(0, 2**32 - 1))
def test_it_refuses_every_ipv6_address_that_carries_an_ipv4_one(value: int) -> None:
    for prefix in ("::", "::ffff:", "64:ff9b::"):
        assert not is_public(IPv6Address(f"{prefix}{IPv4Address(value)}"))
    assert not is_public(IPv6Address((0x2002 << 112) | (value << 80)))


@given(st.text(max_size=40))
def test_it_only_ever_answers_or_raises_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        normalise_host(text)
