"""Keys and what they protect: goods sealed at rest, session tokens, links, signatures compared in constant time."""

import base64
import binascii
import hashlib
import hmac
import os
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEAL_VERSION = 1
NONCE_BYTES = 12  # AES-GCM's own; random, so one key seals at most 2**32 goods (NIST SP 800-38D §8.3)


class BadKeys(Exception):
    """TORG_GOODS_KEYS is not `id:base64 of 32 bytes, …`; the keys themselves are never in the text."""


class Unsealable(Exception):
    """Sealed bytes do not open: another row's, altered, or their key is gone."""


def same(one: bytes, other: bytes) -> bool:
    """Equality that takes the same time wherever the two differ."""
    return hmac.compare_digest(one, other)


class Sealer:
    """Seals goods with AES-256-GCM: the first key seals, every key opens, a seal opens only in its own row.

    Shape: version byte, length of the key id, key id, nonce, ciphertext with tag.
    """

    def __init__(self, keys: str) -> None:
        self.ciphers: dict[bytes, AESGCM] = {}
        self.hash_key = b""
        for part in filter(None, (p.strip() for p in keys.split(","))):
            key_id, _, text = part.partition(":")
            try:
                key = base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise BadKeys(f"goods key {key_id[:16]!r} is not base64") from error
            if not 1 <= len(key_id) <= 16 or not key_id.isascii() or len(key) != 32:
                raise BadKeys("a goods key is not id:base64 of 32 bytes, id of 1-16 ASCII characters")
            self.ciphers[key_id.encode()] = AESGCM(key)
            # The last, that is the oldest, key: fingerprints stay comparable when a new key is put in front.
            self.hash_key = hashlib.sha256(b"torg fingerprint" + key).digest()
        if not self.ciphers:
            raise BadKeys("no goods key")

    def seal(self, plain: bytes, row: str) -> bytes:
        """`plain`, sealed for `row` (`"stock_items/<uuid>"`, `"shared_goods/<id>"`)."""
        key_id, cipher = next(iter(self.ciphers.items()))
        nonce = os.urandom(NONCE_BYTES)
        head = bytes((SEAL_VERSION, len(key_id))) + key_id
        return head + nonce + cipher.encrypt(nonce, plain, head + row.encode())

    def open(self, sealed: bytes, row: str) -> bytes:
        """What was sealed for `row`. Raises: Unsealable."""
        size = sealed[1] if len(sealed) > 2 and sealed[0] == SEAL_VERSION else 0
        head, rest = sealed[: 2 + size], sealed[2 + size :]
        cipher = self.ciphers.get(head[2:]) if size else None
        if cipher is None or len(rest) < NONCE_BYTES:
            raise Unsealable(f"{row}: not sealed by a key that is here")
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], head + row.encode())
        except InvalidTag as error:
            raise Unsealable(f"{row}: altered, or sealed for another row") from error

    def fingerprint(self, plain: bytes) -> bytes:
        """A keyed hash that finds a secret given twice without telling what it is."""
        return hmac.digest(self.hash_key, plain, "sha256")


class Session(msgspec.Struct, frozen=True):
    """Who calls: what a token proves."""

    user_id: int
    role: str
    expires_s: int  # Unix seconds


class Tokens:
    """Issues and reads session tokens: `v1.<user>.<role>.<expires>.<hmac>`, nothing secret in them."""

    def __init__(self, secret: str) -> None:
        self.key = hashlib.sha256(b"torg session" + secret.encode()).digest()

    def issue(self, session: Session) -> str:
        text = f"v1.{session.user_id}.{session.role}.{session.expires_s}"
        return f"{text}.{self._sign(text)}"

    def read(self, token: str, *, now_s: int) -> Session | None:
        """The session that this token proves at `now_s`; None when it is altered, expired or no token at all."""
        text, _, signature = token.rpartition(".")
        if not same(signature.encode(), self._sign(text).encode()):
            return None
        _, user_id, role, expires_s = text.split(".")  # signed by us, so of our own shape
        session = Session(int(user_id), role, int(expires_s))
        return session if session.expires_s > now_s else None

    def _sign(self, text: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self.key, text.encode(), "sha256")).decode().rstrip("=")


class Confirmation(msgspec.Struct, frozen=True):
    """Who asked for mail to which address: what a link that was sent there proves."""

    user_id: int
    address: str
    expires_s: int  # Unix seconds


class Confirmations:
    """Issues and reads the tokens of links in mails: `v1.<user>.email.<expires>.<hmac and address>`.

    Their key is not the session tokens' one: neither is ever taken for the other.
    """

    def __init__(self, secret: str) -> None:
        self.key = hashlib.sha256(b"torg e-mail" + secret.encode()).digest()

    def issue(self, asked: Confirmation) -> str:
        head = f"v1.{asked.user_id}.email.{asked.expires_s}"
        address = asked.address.encode()
        return f"{head}.{base64.urlsafe_b64encode(self._sign(head, address) + address).decode().rstrip('=')}"

    def read(self, token: str) -> Confirmation | None:
        """What this token proves, or did until it ended: the reader compares. None when it is altered or no token."""
        head, _, tail = token.rpartition(".")
        try:
            signed = base64.b64decode(tail + "=" * (-len(tail) % 4), altchars=b"-_", validate=True)
        except ValueError:  # also for what is not ASCII
            return None
        signature, address = signed[:32], signed[32:]
        if not same(signature, self._sign(head, address)):
            return None
        _, user_id, _, expires_s = head.split(".")  # signed by us, so of our own shape
        return Confirmation(int(user_id), address.decode(), int(expires_s))

    def _sign(self, head: str, address: bytes) -> bytes:
        return hmac.digest(self.key, head.encode(errors="replace") + b"\0" + address, "sha256")


class Offered(msgspec.Struct, frozen=True):
    """What was offered to whom, and until when: what an offer's token proves."""

    product_id: int
    quantity: int
    price_minor: int  # for all of them
    currency: str
    user_id: int
    expires_s: int  # Unix seconds


class Offers:
    """Issues and reads offers' tokens: 26 bytes that say what is offered, 16 of an HMAC, 56 characters of base64url.

    So short that they fit the 64 bytes of a Telegram button with a word before them. Their key is not the session
    tokens' one: neither is ever taken for the other.
    """

    SHAPE = (("product_id", 6), ("quantity", 1), ("price_minor", 6), ("user_id", 6), ("expires_s", 4))
    MAC_BYTES = 16

    def __init__(self, secret: str) -> None:
        self.key = hashlib.sha256(b"torg offer" + secret.encode()).digest()

    def issue(self, offered: Offered) -> str:
        """Raises: OverflowError for an amount or id of 2**48 or more, which no offer of ours is."""
        told = b"".join(getattr(offered, name).to_bytes(size) for name, size in self.SHAPE) + offered.currency.encode()
        return base64.urlsafe_b64encode(told + self._sign(told)).decode()

    def read(self, token: str) -> Offered | None:
        """What this token proves, or did until it ended: the reader compares. None when it is altered or no token."""
        try:
            signed = base64.b64decode(token, altchars=b"-_", validate=True)
        except ValueError:  # also for what is not ASCII
            return None
        if base64.urlsafe_b64encode(signed).decode() != token:  # another spelling would be another order's key
            return None
        told, signature = signed[: -self.MAC_BYTES], signed[-self.MAC_BYTES :]
        if not same(signature, self._sign(told)):
            return None
        figures, at = {}, 0
        for name, size in self.SHAPE:  # signed by us, so of our own shape
            figures[name] = int.from_bytes(told[at : at + size])
            at += size
        return Offered(currency=told[at:].decode(), **figures)

    def _sign(self, told: bytes) -> bytes:
        return hmac.digest(self.key, told, "sha256")[: self.MAC_BYTES]


def stock_row(stock_item_id: UUID) -> str:
    """The name under which a stock item's secret is sealed."""
    return f"stock_items/{stock_item_id}"


def shared_row(product_id: int) -> str:
    """The name under which a shared good is sealed."""
    return f"shared_goods/{product_id}"


def made_row(order_id: UUID, position: int) -> str:
    """The name under which a made good is sealed."""
    return f"made_goods/{order_id}/{position}"


def endpoint_row(endpoint_id: UUID) -> str:
    """The name under which an endpoint's signing secret is sealed."""
    return f"endpoints/{endpoint_id}"
