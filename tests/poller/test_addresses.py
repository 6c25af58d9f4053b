"""`poller.addresses`: which addresses a stranger's link may lead to."""

from __future__ import annotations

import socket

import pytest

from errors import InvalidInput
from poller import addresses


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.9.10",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "not-an-address",
    ],
)
def test_an_address_that_is_not_on_the_public_internet_is_refused(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "100.63.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "::ffff:127.0.0.1", "0"])
def test_every_spelling_of_loopback_is_refused_after_resolution(host: str) -> None:
    with pytest.raises(addresses.Refused):
        addresses.permitted(addresses.resolve(host, 80), allow_private=False)


def test_of_a_name_with_public_and_private_addresses_only_the_public_are_used() -> None:
    both = [(socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_INET, ("1.1.1.1", 80))]
    assert addresses.permitted(both, allow_private=False) == both[1:]
    assert addresses.permitted(both, allow_private=True) == both


def test_the_next_address_is_tried_when_one_takes_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed, socket.create_server(("127.0.0.1", 0)) as server:
        dead, alive = closed.getsockname(), server.getsockname()
        closed.close()
        with addresses.connect([(socket.AF_INET, dead), (socket.AF_INET, alive)], 5, allow_private=True) as connection:
            assert connection.getpeername() == alive


def test_an_address_of_this_machine_is_refused_even_if_it_were_public() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(addresses.Refused):
        addresses.connect([(socket.AF_INET, server.getsockname())], 5, allow_private=False)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
def test_a_name_that_does_not_exist_is_told_from_one_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises((addresses.NoSuchHost, addresses.NotReached)) as raised:
        addresses.resolve(host, 80)
    if raised.type is addresses.NotReached:  # a machine without any name server
        assert "looked up" in str(raised.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/a", "'ftp' links are not allowed"),
        ("file:///etc/passwd", "'file' links are not allowed"),
        ("clip.mp4", "only http:// and https://"),
        ("", "only http:// and https://"),
        ("http:///clip.mp4", "has no host"),
        ("http://example.com:0/", "has no host"),
        ("http://example.com:99999/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://user:secret@example.com/", "user name or password"),
        ("http://user@example.com/", "user name or password"),
        ("http://example.com\\@evil.example/", "backslashes"),
        ("http://example.com/\r\nX-Evil: 1", "control characters"),
        ("http://example.com/" + "a" * 9000, "over 8192"),
    ],
)
def test_a_link_of_another_kind_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as raised:
        addresses.host_of(url, "video_url")
    assert raised.value.message.startswith("video_url: ")
    assert "secret" not in raised.value.message
    assert raised.value.stage == "download"
