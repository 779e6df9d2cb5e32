"""Buffers: what somebody writes waits a moment for more, and is then answered together (E1)."""

from uuid import UUID

import msgspec

from app.infra.lua import Redis


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message or button as its channel brought it."""

    external_id: str  # the channel's own id of it, which tells repeats
    at_s: int  # Unix seconds
    name: str = ""
    username: str = ""
    language: str = ""  # as the channel has it; empty: unknown
    text: str = ""  # words for the consultant; empty: for the bot's own routines, which read `raw`
    raw: str = ""  # the channel's JSON of what is no words: a command, a button, a photo


class Batch(msgspec.Struct, frozen=True):
    """What is worked on together, by one worker at a time."""

    id: UUID  # the same again when its worker dies
    channel_id: int
    peer: str
    tries: int  # how many workers have had it, this one included
    heard: list[Heard]  # in the order in which they came


class Taken(msgspec.Struct, frozen=True):
    """The batches that are this worker's now, and when (ms from now) the next is due; None: none waits."""

    batches: list[Batch]
    next_ms: int | None


async def push(redis: Redis, channel_id: int, peer: str, heard: Heard, *, quiet_ms: int, most: int) -> int | None:
    """The message waits in its buffer, which is due in so many ms; None: it was there before."""
    raise NotImplementedError


async def take(redis: Redis, shard: int, *, size: int, lease_ms: int) -> Taken:
    """Up to `size` due batches of a shard, those of dead workers first."""
    raise NotImplementedError


async def keep(redis: Redis, batch: Batch, lease_ms: int) -> bool:
    """The batch is this worker's for longer; False: it is another's, or done."""
    raise NotImplementedError


async def done(redis: Redis, batch: Batch) -> None:
    """The batch is over, and what came meanwhile has its turn."""
    raise NotImplementedError
