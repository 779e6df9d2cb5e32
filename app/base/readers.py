"""Readers: who may read the metrics. They hold no secret, but they tell how a shop is doing."""

import hmac
from collections.abc import Iterable

from app.base.address import Networks, Proxies

NONE = "none"  # of any address
FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


class Readers:
    """Callers from these networks, and whoever has the token.

    An address is believed when the caller came directly, or through a trusted proxy. `fronted`: a proxy that nobody
    vouches for stands before us, so that an address proves nothing.

    Raises: ValueError for anything that is not a network.
    """

    def __init__(self, networks: str, token: str, proxies: Proxies, *, fronted: bool = False) -> None:
        self.networks = Networks("" if networks.strip() == NONE else networks)
        self.proxies, self.fronted = proxies, fronted
        self._expected = f"Bearer {token}".encode() if token else b""

    def may(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """`headers` with names in lower case."""
        given = list(headers)
        shown = [value for name, value in given if name == b"authorization"]
        if self._expected and len(shown) == 1 and hmac.compare_digest(shown[0], self._expected):
            return True
        forwarded = [value.decode("latin-1") for name, value in given if name == b"x-forwarded-for"]
        path = self.proxies.path(peer, forwarded)
        unvouched = path[-1] is None if path[1:] else any(name in FORWARDED for name, _ in given)
        return not (self.fronted or unvouched) and path[-1] in self.networks
