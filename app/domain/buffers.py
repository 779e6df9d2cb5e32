"""Buffers: what somebody writes waits a moment for more, and is then answered together (E1).

A conversation has one batch under way at a time, under a lease of its taker. When that is over without a word from it,
the next taker has the same batch, with the same id and the same messages; what came meanwhile waits for its own. Redis
may lose all of it (DESIGN law 1): then messages stay unanswered, and a repeat of one is told apart in Postgres.
"""

import secrets
from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID
from zlib import crc32

import msgspec
import structlog

from app.base import keys
from app.base.heard import Heard as Heard  # channels, which see no noun, make them
from app.base.ids import derived_id
from app.infra.lua import Part, Redis, Script

log = structlog.get_logger(__name__)

SHARDS = 8  # each is one slot, whose conversations one script can look through; a change loses what waits
MOST = 10  # messages of a batch (E)
LIFE_MS = 86_400_000  # of the marks that tell repeats, and of what nobody takes


class Batch(msgspec.Struct, frozen=True):
    """What is worked on together, by one worker at a time."""

    id: UUID  # the same again when its worker dies
    channel_id: int
    peer: str
    tries: int  # those that failed, and this one
    heard: list[Heard]  # in the order in which they came
    token: str = ""  # of this worker's lease
    died: int = 0  # how many workers had it before this one, in a row, and were not heard of again
    late_ms: int = 0  # since when it was due when it was taken


class Taken(msgspec.Struct, frozen=True):
    """The batches that are this worker's now, and when (ms from now) the next is due; None: none waits."""

    batches: list[Batch]
    next_ms: int | None


class Waits(msgspec.Struct, frozen=True):
    """The conversation is looked at after `wait_ms`, or as soon as its batch under way is done."""

    wait_ms: int


class Known(msgspec.Struct, frozen=True):
    """The message was there before."""


class Found(msgspec.Struct, frozen=True):
    """Batches, six facts and their messages each, one behind the other."""

    next_ms: int
    parts: tuple[Any, ...]


class Kept(msgspec.Struct, frozen=True):
    """The lease is as it was asked for."""


class Over(msgspec.Struct, frozen=True):
    """The batch is gone; what came meanwhile is due after `wait_ms`, -1: nothing did."""

    wait_ms: int


class Lost(msgspec.Struct, frozen=True):
    """The batch is another's, or over."""


PUSH: Script[Waits | Known] = Script("buffers/push", Waits, Known)
TAKE: Script[Found] = Script("buffers/take", Found)
KEEP: Script[Kept | Lost] = Script("buffers/keep", Kept, Lost)
DONE: Script[Over | Lost] = Script("buffers/done", Over, Lost)

SCRIPTS = (PUSH, TAKE, KEEP, DONE)

_decoder = msgspec.msgpack.Decoder(Heard)


async def push(
    redis: Redis, channel_id: int, peer: str, heard: Heard, *, quiet_ms: int, most: int, now_ms: int = 0
) -> int | None:
    """The message waits in its buffer, which a worker looks at in so many ms (0: at once); None: it was there before.

    Raises: RedisDown; whether it waits is unknown then, and the same message again is no harm.
    """
    talk = _talk(channel_id, peer)
    shard = shard_of(talk)
    pushed = await PUSH(
        redis,
        keys=[keys.buffer_seen(shard, channel_id, heard.external_id), *_keys(shard)],
        args=[talk, msgspec.msgpack.encode(heard), quiet_ms, most, LIFE_MS, now_ms],
    )
    return pushed.wait_ms if isinstance(pushed, Waits) else None


async def take(redis: Redis, shard: int, *, size: int, lease_ms: int, now_ms: int = 0) -> Taken:
    """Up to `size` batches of a shard that are due, or whose worker has let its lease run out; who waits longest first.

    Raises: RedisDown; what was taken all the same is free again when its lease is over.
    """
    token = secrets.token_hex(16)
    found = await TAKE(redis, keys=_keys(shard), args=[token, size, MOST, lease_ms, LIFE_MS, now_ms])
    return Taken(list(_batches(found.parts, token)), None if found.next_ms < 0 else found.next_ms)


async def keep(redis: Redis, batch: Batch, lease_ms: int, *, now_ms: int = 0) -> bool:
    """The batch is this worker's for longer; False: it is another's, or done. Raises: RedisDown."""
    return await _keep(redis, batch, lease_ms, "kept", now_ms)


async def give_back(redis: Redis, batch: Batch, wait_ms: int, *, failed: bool, now_ms: int = 0) -> bool:
    """The batch is anybody's after that wait, tried once more or as if it had not been; False: it was not this
    worker's any more. Raises: RedisDown.
    """
    return await _keep(redis, batch, wait_ms, "failed" if failed else "free", now_ms)


async def done(redis: Redis, batch: Batch, *, now_ms: int = 0) -> int | None:
    """The batch is over, if it was still this worker's; what came meanwhile is due in so many ms, None: nothing did.

    Raises: RedisDown; the batch may come back then.
    """
    talk = _talk(batch.channel_id, batch.peer)
    ended = await DONE(redis, keys=_keys(shard_of(talk)), args=[talk, batch.token, LIFE_MS, now_ms])
    return ended.wait_ms if isinstance(ended, Over) and ended.wait_ms >= 0 else None


def shard_of(talk: str) -> int:
    return crc32(talk.encode()) % SHARDS


async def _keep(
    redis: Redis, batch: Batch, wait_ms: int, how: Literal["kept", "failed", "free"], now_ms: int
) -> bool:  # fmt: skip
    talk = _talk(batch.channel_id, batch.peer)
    shard = shard_of(talk)
    said = await KEEP(
        redis,
        keys=[keys.buffer_talks(shard), keys.buffer_due(shard)],
        args=[talk, batch.token, wait_ms, how, LIFE_MS, now_ms],
    )
    return isinstance(said, Kept)


def _talk(channel_id: int, peer: str) -> str:
    return f"{channel_id}:{peer}"


def _keys(shard: int) -> list[Part]:
    return [keys.buffer_talks(shard), keys.buffer_heard(shard), keys.buffer_due(shard)]


def _batches(parts: tuple[Any, ...], token: str) -> Iterator[Batch]:
    """The batches of a reply; a message that cannot be read is left out, and told."""
    left = iter(parts)
    for talk, born, failed, died, late_ms, size in zip(*[left] * 6, strict=False):
        messages = [next(left) for _ in range(size)]
        channel_id, _, peer = talk.decode().partition(":")
        heard = [told for message in messages if (told := _read(message, int(channel_id))) is not None]
        # The token of its first lease names the batch, with the conversation: one call takes several.
        named = derived_id(born, talk)
        yield Batch(named, int(channel_id), peer, failed + 1, heard, token, died, late_ms)


def _read(message: bytes, channel_id: int) -> Heard | None:
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        log.error("message lost: it cannot be read", channel_id=channel_id, bytes=len(message))
        return None
