"""Where a stranger may send us: a URL taken apart in exactly one way, and which addresses behind it are public.

More generous parsers have been used to reach what lies behind a server: `0x7f.1`, `017700000001`, `https://good@bad`,
`[::ffff:10.0.0.1]`. What is not plainly a public place is refused.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import msgspec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048
PORTS = frozenset({443, *range(8000, 10_000)})  # of public places: not where mail, shells and databases listen

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)",
    re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)  # where a resolver may read an address: 127.1, 0x7f000001

# Not public, or not what it seems to be: from the special-purpose registries (RFC 6890 and its updates).
_CLOSED = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's host, from inside each of its machines
        "2001::/23",  # Teredo, ORCHID and others of IETF's own
        "2001:db8::/32", "2002::/16",  # documentation; 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48", "3fff::/20",
    )
]  # fmt: skip
# All that is handed out of IPv6: so neither ::1, fc00::/7, fe80::/10 and ff00::/8, nor IPv4 in the disguise of
# ::ffff:0:0/96 or 64:ff9b::/96.
_UNICAST = IPv6Network("2000::/3")


NOWHERE = "no public address"  # said of a name without any, too: nobody learns which names there are inside


class Refused(ValueError):
    """Nobody is sent there; the text says which rule it breaks."""


class Target(msgspec.Struct, frozen=True):
    """A URL, taken apart."""

    scheme: str  # http or https
    host: str  # a name in lower case, or an address in its one spelling, an IPv6 one without brackets
    port: int
    path: str  # with the query, as given
    address: Address | None  # the host, where it is an address

    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


class Rules:
    """What may be called: public addresses by https, and whatever is in these networks: `10.1.0.0/16, ::1`.

    Raises: ValueError for anything that is not a network.
    """

    def __init__(self, networks: str = "") -> None:
        self.networks: list[Network] = [ip_network(name) for name in networks.replace(",", " ").split()]

    def check(self, target: Target) -> None:
        """Raises: Refused, as far as that can be said before its name is looked up."""
        if target.address:
            self.judge(target, target.address)
        elif not self.networks:
            _check_public(target)

    def judge(self, target: Target, address: Address) -> None:
        """Raises: Refused when the target must not be called at this address."""
        if any(address in network for network in self.networks if network.version == address.version):
            return
        _check_public(target)
        if not public(address):
            raise Refused(NOWHERE)


def parse(url: str) -> Target:
    """Raises: Refused for anything but a plain URL."""
    found = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if found is None:
        raise Refused(f"send https://host/path in ASCII, at most {MAX_URL} characters, without user or fragment")
    host, port = found["host"].lower(), int(found["port"] or {"http": 80, "https": 443}[found["scheme"]])
    if port > 65535:
        raise Refused("no such port")
    address = _address(host)
    if address is None and not (len(host) <= 253 and all(map(_LABEL.fullmatch, host.split(".")))):
        raise Refused("the host is not a name; write others than ASCII ones in Punycode")
    path = found["path"] if found["path"].startswith("/") else f"/{found['path']}"
    return Target(found["scheme"], str(address) if address else host, port, path, address)


def public(address: Address) -> bool:
    """Anybody's, not this machine's, this network's or a special one's."""
    if isinstance(address, IPv6Address) and (address not in _UNICAST or address.scope_id):
        return False
    return not any(address in network for network in _CLOSED if network.version == address.version)


def _address(host: str) -> Address | None:
    """The address that the host is. Raises: Refused for one that is not in its usual spelling."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return IPv4Address(host)  # refuses leading zeros, which some read as octal
    except ValueError:
        raise Refused("an address is four decimal numbers, or in brackets") from None
    return None


def _check_public(target: Target) -> None:
    if target.scheme != "https":
        raise Refused("https only")
    if target.port not in PORTS:
        raise Refused("port 443, or 8000 to 9999")
