"""Events: what happened to a user's orders, kept for a while in a stream of their own, in order and each once.

An entry's name is its number and a random token. Whoever was away asks what came after the entry they have; when the
stream has it no longer, or another one in its place, because Redis forgot or lost its last moments, the answer is a
`Reset`: nobody knows (decision 0015). `flows/follow.py` tells those who are connected.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Iterable
from datetime import datetime

import msgspec

from app.base import clock, keys
from app.infra.lua import Redis, Script
from app.infra.secrets import Session

KEEP = 1000  # events of a stream
LIFE_MS = 86_400_000  # of a stream after its last event
MARK_MS = 3_600_000  # for which a repeat is known
TICKET_MS = 30_000
MOST_BYTES = 16_384  # of one event, encoded

_NAME = re.compile(r"([1-9][0-9]{0,14})-([0-9a-f]{8})")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened; clients get it as this JSON."""

    id: str  # unique: `order:<order event id>`; a second one of the same id is none
    type: str
    at: datetime
    data: dict[str, object]


class Published(msgspec.Struct, frozen=True):
    """It is the user's newest event, under this name."""

    name: bytes


class Repeated(msgspec.Struct, frozen=True):
    """It was published before."""


class Opened(msgspec.Struct, frozen=True):
    """The stream is there; its newest entry."""

    name: bytes


class Rest(msgspec.Struct, frozen=True):
    """Name and event, in turn."""

    entries: tuple[bytes, ...]


class Reset(msgspec.Struct, frozen=True):
    """Nobody knows what came after the entry that was named."""


class Granted(msgspec.Struct, frozen=True):
    """The ticket can be used."""


class Redeemed(msgspec.Struct, frozen=True):
    """Whom the ticket was given to."""

    bearer: bytes


class Void(msgspec.Struct, frozen=True):
    """No such ticket, or no longer."""


PUBLISH: Script[Published | Repeated] = Script("events/publish", Published, Repeated)
OPEN: Script[Opened] = Script("events/open", Opened)
SINCE: Script[Rest | Reset] = Script("events/since", Rest, Reset)
GRANT: Script[Granted] = Script("events/grant", Granted)
REDEEM: Script[Redeemed | Void] = Script("events/redeem", Redeemed, Void)

SCRIPTS = (PUBLISH, OPEN, SINCE, GRANT, REDEEM)


async def publish(redis: Redis, user_ids: Iterable[int], event: Event) -> list[Published | Repeated]:
    """Each of these users has the event, once; encoded once, sent to all in one flight.

    Raises: RedisDown, when some may have it and some not: again is safe. ValueError for more than `MOST_BYTES`.
    """
    encoded = msgspec.json.encode(event)
    if len(encoded) > MOST_BYTES:
        raise ValueError(f"event {event.id}: {len(encoded)} bytes")
    users = dict.fromkeys(user_ids)
    calls = (
        PUBLISH(
            redis,
            keys=[keys.events(user_id), keys.event_mark(user_id, event.id)],
            args=[encoded, _token(), KEEP, LIFE_MS, MARK_MS],
        )
        for user_id in users
    )
    return await asyncio.gather(*calls)


async def newest(redis: Redis, user_id: int) -> bytes:
    """The name of the user's newest entry; of the first one, if there was none."""
    return (await OPEN(redis, keys=[keys.events(user_id)], args=[_token(), LIFE_MS])).name


async def since(redis: Redis, user_id: int, name: bytes, *, most: int) -> Rest | Reset:
    """What came after the entry of this name."""
    named = _NAME.fullmatch(name.decode("latin-1"))
    if named is None:
        return Reset()
    return await SINCE(redis, keys=[keys.events(user_id)], args=[named[1], named[2], most])


async def grant(redis: Redis, session: Session) -> str:
    """A ticket that opens one stream for this session, soon: EventSource cannot send headers."""
    ticket = os.urandom(16).hex()
    await GRANT(redis, keys=[_kept(ticket)], args=[msgspec.msgpack.encode(session), TICKET_MS])
    return ticket


async def redeem(redis: Redis, ticket: str) -> Session | None:
    """The session that the ticket was given to; None when it is used up, too old or none, or that session has ended."""
    match await REDEEM(redis, keys=[_kept(ticket)]):
        case Redeemed(bearer=bearer):
            session = msgspec.msgpack.decode(bearer, type=Session)
            return session if session.expires_s > clock.unix_s() else None
        case Void():
            return None


def _kept(ticket: str) -> str:
    """Redis never sees the ticket itself."""
    return keys.event_ticket(hashlib.sha256(ticket.encode()).hexdigest()[:32])


def _token() -> str:
    return os.urandom(4).hex()
