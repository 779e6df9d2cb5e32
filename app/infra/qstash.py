"""Signed calls of a hosted queue: QStash's `Upstash-Signature`, a JWT over the very body and address (PROTOCOLS §8)."""

import base64
import hashlib
from typing import Any

import jwt
import msgspec

from app.base import clock
from app.errors import BadSignature
from app.infra.secrets import same

ALGORITHM = "HS256"  # and no other: not `none`, nor one whose public key we would take for a secret
ISSUER = "Upstash"
LEEWAY_S = 10  # between two clocks
LONGEST_S = 86_400  # that a signature may be good: its id is remembered for as long
MAX_TOKEN = 4096
MAX_ID = 200
REQUIRED = ["iss", "sub", "exp", "nbf", "jti", "body"]


class Proven(msgspec.Struct, frozen=True):
    """What a signature proves beside the body: the call's own id, and until when it is good."""

    id: str
    expires_s: int


class Keys:
    """The key that signs now, and the one that will."""

    def __init__(self, current: str, following: str) -> None:
        self.keys = [key for key in (current, following) if key]

    def verify(self, token: str, body: bytes, url: str) -> Proven:
        """Raises: BadSignature, whatever is wrong with it."""
        if not self.keys or not 0 < len(token) <= MAX_TOKEN or not token.isascii():
            raise BadSignature("Upstash-Signature is missing, or no JWT")
        for key in self.keys:
            claims = _claims(token, key, url)
            if claims is not None:
                return _judged(claims, body)
        raise BadSignature("Upstash-Signature is not ours, not for this address, or not good now")


def _claims(token: str, key: str, url: str) -> dict[str, Any] | None:
    """The claims, if this key signed them for this address and time."""
    try:
        return jwt.decode(
            token, key, algorithms=[ALGORITHM], issuer=ISSUER, subject=url, leeway=LEEWAY_S,
            options={"require": REQUIRED, "verify_aud": False, "verify_iat": False},
        )  # fmt: skip
    # Older releases of PyJWT let Python's own failures through: of exp 1e400, of a header that nests too deep.
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
        return None


def _judged(claims: dict[str, Any], body: bytes) -> Proven:
    told, id, expires_s = claims["body"], claims["jti"], int(claims["exp"])
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=")
    if not isinstance(told, str) or not same(told.rstrip("=").encode("utf-8", "replace"), digest):
        raise BadSignature("Upstash-Signature is of another body")
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID or "\0" in id or not id.isprintable():
        raise BadSignature("Upstash-Signature has no id")
    if expires_s > clock.unix_s() + LONGEST_S:
        raise BadSignature("Upstash-Signature is good for too long")
    return Proven(id, expires_s)
