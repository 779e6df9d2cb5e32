"""Whose request it is: only trusted proxies are believed, and an IPv6 customer is one /64."""

import pytest

from app.base.address import MOST_HOPS, UNKNOWN, Proxies

NOBODY = Proxies("")
OURS = Proxies("10.0.0.0/8, 2001:db8:ffff::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # a stranger's word
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),  # what the client wrote stands further left
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),  # two headers, two proxies
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("10.0.0.1", ["2001:db8:0:0:1:2:3:4"], "2001:db8::/64"),
        ("2001:db8:ffff::1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["198.51.100.7, "], "10.0.0.1"),  # nonsense ends the chain
        ("10.0.0.1", ["198.51.100.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, 10.3.3.3, _hidden, 10.4.4.4"], "10.4.4.4"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1," * 1000 + "10.5.5.5" + ", 10.5.5.5" * MOST_HOPS], "10.5.5.5"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fe80::1%eth0", [], "fe80::/64"),
        (None, ["198.51.100.7"], UNKNOWN),
        ("", [], UNKNOWN),
    ],
)
def test_the_client_behind_trusted_proxies(peer: str | None, forwarded: list[str], client: str) -> None:
    assert OURS.client(peer, forwarded) == client


def test_nobody_is_trusted_unless_named() -> None:
    assert NOBODY.client("127.0.0.1", ["198.51.100.7"]) == "127.0.0.1"


def test_a_proxy_on_a_unix_socket_is_trusted_by_name() -> None:
    assert Proxies("unix").client(None, ["198.51.100.7"]) == "198.51.100.7"
    assert Proxies("unix").client("192.0.2.1", ["198.51.100.7"]) == "192.0.2.1"


def test_one_ipv6_customer_is_one_client_and_the_neighbour_another() -> None:
    found = {NOBODY.client(f"2001:db8:0:{net}::{host:x}", []) for net in (1, 2) for host in range(1, 50)}
    assert found == {"2001:db8:0:1::/64", "2001:db8:0:2::/64"}


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example", "10.0.0.1/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"appear|bits"):
        Proxies(text)
