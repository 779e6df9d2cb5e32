"""Who is at the other end: the client's address, through the proxies that the operator trusts and no others."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

MOST_HOPS = 20
UNKNOWN = "unknown"  # behind a unix socket without a trusted header


class Networks:
    """`10.0.0.0/8, ::1`, and `unix` for who comes over a unix socket, without an address.

    Raises: ValueError for anything that is not a network.
    """

    def __init__(self, text: str) -> None:
        names = text.replace(",", " ").split()
        self.unix = "unix" in names
        self.networks = [ip_network(name) for name in names if name != "unix"]

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return self.unix
        return any(address in network for network in self.networks if network.version == address.version)


class Proxies(Networks):
    """Networks whose X-Forwarded-For is believed."""

    def client(self, peer: str | None, forwarded: list[str]) -> str:
        """The client's address, as a name for its buckets: the whole IPv4 address, the /64 of an IPv6 one.

        Read from the right: each hop that is a trusted proxy vouches for the one before it. What a client wrote
        into the header itself stands further left and is never reached.
        """
        found = [address for address in self.path(peer, forwarded) if address]
        return _named(found[-1]) if found else UNKNOWN

    def path(self, peer: str | None, forwarded: list[str]) -> list[Address | None]:
        """From the peer to the client, as far as proxies vouch; a word that is no address is None, and the end."""
        found = [_parsed(peer or "")]
        for hop in reversed(",".join(forwarded).split(",")[-MOST_HOPS:] if forwarded else []):
            if found[-1] not in self:
                break
            found.append(_parsed(hop))
            if found[-1] is None:
                break
        return found


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=4096)
def _named(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"  # one customer has at least a /64
