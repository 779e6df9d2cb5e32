"""A URL is read in one way or refused, and what is not plainly public is closed."""

from ipaddress import ip_address, ip_network

import pytest

from app.base.target import MAX_URL, Refused, Rules, Target, parse, public

GOOD = {
    "https://shop.example/hook": Target("https", "shop.example", 443, "/hook", None),
    "https://shop.example": Target("https", "shop.example", 443, "/", None),
    "https://shop.example?a=b/c?d": Target("https", "shop.example", 443, "/?a=b/c?d", None),
    "https://SHOP.Example:8443/A/%7Eb;c=d,e/../f/": Target("https", "shop.example", 8443, "/A/%7Eb;c=d,e/../f/", None),
    "http://a.xn--p1ai:9999/": Target("http", "a.xn--p1ai", 9999, "/", None),
    "https://3com.example/": Target("https", "3com.example", 443, "/", None),
    "https://198.51.100.7:443/x": Target("https", "198.51.100.7", 443, "/x", ip_address("198.51.100.7")),
    "https://[2001:DB8:0::7]:8000/x": Target("https", "2001:db8::7", 8000, "/x", ip_address("2001:db8::7")),
}  # fmt: skip

# Each of these has been read as another place by some parser or resolver.
BAD = (
    "", "shop.example", "//shop.example/", "ftp://shop.example/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x",
    "HTTPS://shop.example/", " https://shop.example/", "https://shop.example/ ", "https://shop.example/\n",
    "https://shop.example/a b", "https://shop.example/\r\nHost:x", "https://shop.example/\0", "https:/shop.example/",
    "https:shop.example", "https://", "https:///x", "https://?x", "https://:443/", "https://shop.example:/",
    "https://user@shop.example/", "https://user:pass@shop.example/", "https://shop.example@127.0.0.1/",
    "https://shop.example:443@127.0.0.1/", "https://shop.example\\@127.0.0.1/", "https://127.0.0.1\\.shop.example/",
    "https://shop.example#@127.0.0.1/", "https://shop.example/#x", "https://shop.example;@x/", "https://a,b/",
    "https://shop.example:0/", "https://shop.example:65536/", "https://shop.example:99999/", "https://a:0443/",
    "https://shop.example:+443/", "https://shop.example:4 43/", "https://shop.example:٤٤٣/", "https://a:443:80/",
    "https://shop..example/", "https://.shop.example/", "https://shop.example./", "https://-a.example/",
    "https://a-.example/", "https://a_b.example/", "https://*.example/", "https://a%2eexample/", "https://a%00.b/",
    "https://магазин.рф/", "https://shop。example/", "https://①②⑦.⓪.⓪.①/", "https://ｅxample.com/",
    f"https://{'a' * 64}.example/", f"https://{'a.' * 127}example/", f"https://shop.example/{'a' * MAX_URL}",
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/", "https://0177.0.0.1/",
    "https://127.1/", "https://127.0.1/", "https://127.0.0.01/", "https://127.0.0.0x1/", "https://1.2.3.4.5/",
    "https://256.1.1.1/", "https://0/", "https://0x/", "https://1.1.1.1./", "https://shop.0x7f/", "https://shop.1/",
    "https://[127.0.0.1]/", "https://[::1/", "https://::1/", "https://[::1]x/", "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/", "https://[v1.x]/", "https://[:::1]/", "https://[]/", "https://[::1]]/",
    "https://shop.example/%zz", "https://shop.example/<x>", 'https://shop.example/"', "https://shop.example/é",
)  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_a_plain_url_is_taken_apart(url: str) -> None:
    assert parse(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD, ids=lambda url: repr(url)[:40])
def test_what_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url)


def test_the_host_header_has_the_port_unless_it_is_the_usual_one() -> None:
    urls = (
        "https://a.b/",
        "https://a.b:443/",
        "https://a.b:81/",
        "http://a.b:80/",
        "http://[::1]:81/",
        "https://[::1]/",
    )
    assert [parse(url).authority() for url in urls] == ["a.b", "a.b", "a.b:81", "a.b", "[::1]:81", "[::1]"]


CLOSED = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:0808:0808::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1",
    "fec0::1", "ff02::1", "ff0e::1", "5f00::1", "4000::1",
)  # fmt: skip
OPEN = ("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.0.1.1",
        "223.255.255.255",
        "2001:200::1", "2001:4860:4860::8888", "2606:4700:4700::1111", "2a02:5180::1", "3ffe::1")  # fmt: skip


@pytest.mark.parametrize("text", CLOSED)
def test_what_is_not_public_is_closed(text: str) -> None:
    address = ip_address(text)
    assert not public(address)
    with pytest.raises(Refused):
        Rules().judge(parse("https://shop.example/"), address)


@pytest.mark.parametrize("text", OPEN)
def test_what_is_public_is_open(text: str) -> None:
    assert public(ip_address(text))
    Rules().judge(parse("https://shop.example/"), ip_address(text))


def test_an_address_on_one_of_our_own_links_is_closed() -> None:
    assert not public(ip_address("2606:4700:4700::1111%1"))


def test_nothing_is_open_that_python_knows_to_be_special() -> None:
    """Every boundary of every /12 and of our own table: what `ipaddress` says is not global, is not for us either."""
    edges = [ip_address(block << 20) for block in range(4096)] + [
        ip_address(f"{block:x}::") for block in range(1, 65536)
    ]
    for text in CLOSED:
        network = ip_network(text)
        edges += [network[0] + step for step in (-1, 1) if 0 < int(network[0]) < 2**network.max_prefixlen - 1]
    assert [address for address in edges if public(address) and (not address.is_global or address.is_multicast)] == []


@pytest.mark.parametrize("url", ["http://shop.example/", "https://shop.example:22/", "https://shop.example:6379/",
                                 "https://shop.example:7999/", "https://shop.example:10000/", "https://127.0.0.1/",
                                 "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/"])  # fmt: skip
def test_what_need_not_be_looked_up_is_refused_at_once(url: str) -> None:
    with pytest.raises(Refused):
        Rules().check(parse(url))


def test_ones_own_networks_may_be_called_at_any_port_and_by_http_and_nothing_else_changes() -> None:
    rules = Rules("10.1.0.0/16, ::1")
    erp = parse("http://erp:5000/hook")
    rules.check(erp)  # only its address will tell
    rules.judge(erp, ip_address("10.1.2.3"))
    rules.check(parse("http://[::1]:5000/"))
    for text in ("10.2.0.1", "127.0.0.1", "8.8.8.8", "::ffff:10.1.2.3", "::2"):
        with pytest.raises(Refused):
            rules.judge(erp, ip_address(text))
    rules.judge(parse("https://shop.example/"), ip_address("8.8.8.8"))
    with pytest.raises(Refused):
        rules.judge(parse("https://shop.example/"), ip_address("10.2.0.1"))


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "example", "10.0.0.0/33", "*"])
def test_networks_that_are_none_are_refused(networks: str) -> None:
    with pytest.raises(ValueError, match=r"network|address|host"):
        Rules(networks)
