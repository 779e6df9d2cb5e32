"""Identifiers: time-ordered UUIDs for rows that the application names before Postgres sees them."""

import os
import time
from hashlib import sha256
from uuid import UUID


def new_id() -> UUID:
    """A UUIDv7: unguessable (74 random bits) and ascending, so that indexes stay dense.

    Made here and not in Postgres: the order row and the gateway's invoice carry the same id.
    """
    stamp_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (stamp_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62
    return UUID(int=value | random & 0x3FFF_FFFF_FFFF_FFFF)


def derived_id(*parts: bytes) -> UUID:
    """A UUIDv8 that the same parts give again, in any process."""
    digest = sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()
    value = int.from_bytes(digest[:16]) & ~(0xF << 76 | 0b11 << 62)
    return UUID(int=value | 0x8 << 76 | 0b10 << 62)


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` spells in canonical form, else None: one id has one spelling."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None
