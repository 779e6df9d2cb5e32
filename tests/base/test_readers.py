"""Who may read the metrics: by an address that nobody could have made up, or by the token."""

import pytest

from app.base.address import Proxies
from app.base.readers import Readers

TOKEN = "a-token-of-the-tests-0123456789-0123456789"
LOCAL = "127.0.0.0/8, ::1"


def headers(**given: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]


@pytest.mark.parametrize(
    ("peer", "given", "may"),
    [
        ("127.0.0.1", {}, True),
        ("127.8.9.10", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("192.0.2.1", {}, False),
        ("::2", {}, False),
        (None, {}, False),
        ("", {}, False),
        # A proxy beside us that nobody told us of: whoever it speaks for is not local.
        ("127.0.0.1", {"x_forwarded_for": "198.51.100.7"}, False),
        ("127.0.0.1", {"x_forwarded_for": "127.0.0.1"}, False),
        ("127.0.0.1", {"x_forwarded_for": ""}, False),
        ("127.0.0.1", {"x_real_ip": "127.0.0.1"}, False),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
        # A trusted one.
        ("10.0.0.1", {"x_forwarded_for": "127.0.0.1"}, True),  # its own neighbour
        ("10.0.0.1", {"x_forwarded_for": "127.0.0.1, 198.51.100.7"}, False),  # what the client wrote
        ("10.0.0.1", {"x_forwarded_for": "198.51.100.7"}, False),
        ("10.0.0.1", {"x_forwarded_for": "unknown"}, False),
        ("10.0.0.1", {"x_forwarded_for": "127.0.0.1, nonsense"}, False),
        ("10.0.0.1", {"x_forwarded_for": ""}, False),
        ("10.0.0.1", {}, False),
    ],
)
def test_by_address(peer: str | None, given: dict[str, str], may: bool) -> None:
    assert Readers(LOCAL, "", Proxies("10.0.0.0/8")).may(peer, headers(**given)) is may


def test_a_trusted_proxy_that_says_nothing_is_itself() -> None:
    both = Readers("10.0.0.0/8", "", Proxies("10.0.0.0/8"))
    assert both.may("10.0.0.1", [])
    assert not both.may("10.0.0.1", headers(x_forwarded_for="unknown"))
    assert not both.may("10.0.0.1", headers(x_real_ip="198.51.100.7"))
    assert both.may("10.0.0.1", headers(x_forwarded_for="10.9.9.9"))


def test_a_unix_socket_is_named_like_a_network() -> None:
    assert Readers("unix", "", Proxies("")).may(None, [])
    assert not Readers("unix", "", Proxies("")).may("127.0.0.1", [])
    assert not Readers("unix", "", Proxies("unix")).may(None, headers(x_forwarded_for="nonsense"))


def test_behind_somebody_unknown_no_address_counts() -> None:
    fronted = Readers(LOCAL, TOKEN, Proxies(""), fronted=True)
    assert not fronted.may("127.0.0.1", [])
    assert fronted.may("127.0.0.1", headers(authorization=f"Bearer {TOKEN}"))


@pytest.mark.parametrize(
    ("authorization", "may"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (TOKEN, False),
        ("Bearer ", False),
        ("", False),
        ("Bearer \N{SNOWMAN}", False),
    ],
)
def test_by_token_from_anywhere(authorization: str, may: bool) -> None:
    given = headers(authorization=authorization, x_forwarded_for="198.51.100.7")
    assert Readers("none", TOKEN, Proxies("")).may("192.0.2.1", given) is may


def test_without_a_token_none_is_right_and_two_headers_are_none() -> None:
    assert not Readers("none", "", Proxies("")).may("192.0.2.1", headers(authorization="Bearer "))
    twice = headers(authorization=f"Bearer {TOKEN}") * 2
    assert not Readers("none", TOKEN, Proxies("")).may("192.0.2.1", twice)
    assert not Readers("none", TOKEN, Proxies("")).may("127.0.0.1", [])


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "127.0.0.1, none"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"appear|bits"):
        Readers(text, "", Proxies(""))
