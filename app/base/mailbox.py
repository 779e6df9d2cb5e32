"""E-mail addresses and mail servers, taken apart in exactly one way.

An address is what everybody's mail server takes: no quoted local part, comment, address literal or name without a dot,
and no local part that needs SMTPUTF8. A domain in another script is written in Punycode, if that says the same to
whoever reads it.
"""

import re
from urllib.parse import unquote, urlsplit

import msgspec

MOST = 254  # characters of an address (RFC 5321 §4.5.3.1.3, without the angle brackets)

PORTS = {"smtps": 465, "smtp": 587, "smtp+plain": 25}

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"(?=.{{1,64}}$){_ATOM}(?:\.{_ATOM})*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class BadMailbox(ValueError):
    """Not an address that we send to; the text says which rule it breaks, and not the address."""


class Server(msgspec.Struct, frozen=True):
    """The mail server that takes our mail, and how it is spoken to."""

    host: str
    port: int
    scheme: str  # smtps: TLS from the start; smtp: STARTTLS or nothing; smtp+plain: no TLS, and so no password
    user: str | None
    password: str | None


class Sender(msgspec.Struct, frozen=True):
    """Who writes."""

    name: str  # may be empty
    address: str

    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def parse(text: str) -> str:
    """The address in its one spelling. Raises: BadMailbox."""
    local, at, domain = text.rpartition("@")
    if len(text) > MOST or not at or "@" in local:
        raise BadMailbox(f"not an address: one @, at most {MOST} characters")
    if not _LOCAL.fullmatch(local):
        raise BadMailbox("what stands before the @ must be ASCII letters, digits and !#$%&'*+/=?^_`{|}~-. , at most 64")
    address = f"{local}@{_ascii(domain.lower())}"
    if len(address) > MOST:
        raise BadMailbox(f"not an address: at most {MOST} characters")
    return address


def sender(text: str) -> Sender:
    """`Shop <orders@shop.example>`, or the address alone. Raises: BadMailbox."""
    name, bracket, rest = text.strip().rpartition("<")
    if bracket and not rest.endswith(">"):
        raise BadMailbox("not Name <address>")
    name = name.strip().strip('"')
    if any(not char.isprintable() for char in name):
        raise BadMailbox("the name holds control characters")
    return Sender(name, parse(rest.removesuffix(">") if bracket else text.strip()))


def server(url: str) -> Server:
    """`smtp://user:password@host:587`, what is not in it by the scheme. Raises: BadMailbox, without the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadMailbox("not a URL") from None
    if parts.scheme not in PORTS or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise BadMailbox(f"not scheme://user:password@host:port with one of {', '.join(PORTS)}")
    user, password = parts.username, parts.password
    if (user is None) != (password is None):
        raise BadMailbox("a user and a password, or neither; write / : @ in them as %2F %3A %40")
    if parts.scheme == "smtp+plain" and user is not None:
        raise BadMailbox("smtp+plain would send the password to whoever listens")
    return Server(
        host, port or PORTS[parts.scheme], parts.scheme, user and unquote(user), password and unquote(password)
    )


def _ascii(domain: str) -> str:
    labels = domain.split(".")
    if not domain.isascii():
        try:
            labels = domain.encode("idna").decode("ascii").split(".")
            same = ".".join(labels).encode("ascii").decode("idna") == domain
        except UnicodeError:
            same = False
        if not same:  # Python's mapping would make another domain of it: straße.example is not strasse.example
            raise BadMailbox("write the domain in Punycode")
    if len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise BadMailbox("the domain is not a name with a dot")
    return ".".join(labels)
