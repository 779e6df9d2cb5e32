"""Once: an Idempotency-Key lets one request work, and answers every repeat with the same bytes.

The claim is a lease with an owner: whoever dies leaves the key usable when the lease ends, and whoever comes back
after that has lost it and can keep nothing. Behind it stands the unique key in Postgres, which alone decides that
there is one effect (DESIGN law 1); Redis makes repeats cheap and their answers equal.
"""

import hashlib
import os

import msgspec

from app.base import keys
from app.infra.lua import Redis, Script

LEASE_MS = 14_000  # longer than any request takes; a crash leaves the key usable within 15 s
KEEP_MS = 86_400_000  # how long a repeat is answered from here; afterwards from Postgres


class Ticket(msgspec.Struct, frozen=True):
    """One request's attempt: which key, for which request, and by whom."""

    entry: str
    print: bytes
    owner: bytes


class Claimed(msgspec.Struct, frozen=True):
    """The caller works."""


class Running(msgspec.Struct, frozen=True):
    """Another request works, for at most so long."""

    left_ms: int


class Replay(msgspec.Struct, frozen=True):
    """It is done: what was answered."""

    reply: bytes


class Mismatch(msgspec.Struct, frozen=True):
    """The key belongs to another request."""


class Finished(msgspec.Struct, frozen=True):
    """The reply is kept."""


class Abandoned(msgspec.Struct, frozen=True):
    """The key is free again."""


class Lost(msgspec.Struct, frozen=True):
    """The lease ended: another may be at work, or have finished."""


CLAIM: Script[Claimed | Running | Replay | Mismatch] = Script("once/claim", Claimed, Running, Replay, Mismatch)
FINISH: Script[Finished | Lost] = Script("once/finish", Finished, Lost)
ABANDON: Script[Abandoned | Lost] = Script("once/abandon", Abandoned, Lost)

SCRIPTS = (CLAIM, FINISH, ABANDON)


def ticket(user_id: int, key: str, route: str, body: bytes) -> Ticket:
    """A new attempt. The print covers user, route and raw body: the same key under anything else is a mismatch."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    print = hashlib.sha256(f"{user_id}\n{route}\n".encode() + body).digest()
    return Ticket(keys.once(user_id, digest), print, os.urandom(16))


async def claim(redis: Redis, ticket: Ticket, *, lease_ms: int = LEASE_MS) -> Claimed | Running | Replay | Mismatch:
    """Raises: RedisDown; whether the key is claimed is then unknown, and the lease settles it."""
    return await CLAIM(redis, keys=[ticket.entry], args=[ticket.print, ticket.owner, lease_ms])


async def finish(redis: Redis, ticket: Ticket, reply: bytes) -> Finished | Lost:
    """Only for final replies: what a repeat could change (429, 503, a conflict) is abandoned instead."""
    return await FINISH(redis, keys=[ticket.entry], args=[ticket.owner, reply, KEEP_MS])


async def abandon(redis: Redis, ticket: Ticket) -> Abandoned | Lost:
    return await ABANDON(redis, keys=[ticket.entry], args=[ticket.owner])
