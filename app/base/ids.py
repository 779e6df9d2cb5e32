"""Identifiers: time-ordered UUIDs for rows that the application names before Postgres sees them."""

import os
import time
from uuid import UUID


def new_id() -> UUID:
    """A UUIDv7: unguessable (74 random bits) and ascending, so that indexes stay dense.

    Made here and not in Postgres: the hold in Redis, the order row and the gateway's invoice carry the same id.
    """
    stamp_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (stamp_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62
    return UUID(int=value | random & 0x3FFF_FFFF_FFFF_FFFF)


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` spells in canonical form, else None: one id has one spelling."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None
