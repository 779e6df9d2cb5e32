"""Ways to do a thing once for each key, for bench/idempotency.py: the effect runs, its reply is kept and given again.

All of them keep what they know in Redis alone; the unique key in Postgres that stands behind ours is not measured.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, cast
from uuid import uuid4

from idempotency_kit import AsyncIdempotencyCoordinator, IdempotencyDomainService
from idempotency_kit.core.adapters import JsonResultAdapter
from idempotency_kit.core.exceptions import IdempotencyInProgressError
from idempotency_kit.infra.storage.redis.aio import RedisAsyncIdempotencyRepository
from redis.asyncio import Redis

from app.domain import once
from app.domain.once import Lost, Mismatch, Replay, Running
from app.infra.pipe import Pipe

BODY = b'{"lines": [{"product_id": 1, "quantity": 1}], "provider": "crystalpay"}'
KEPT_MS = 600_000
CLAIM = """
local found = redis.call("GET", KEYS[1])
if found then return found end
redis.call("SET", KEYS[1], "claim:" .. ARGV[1], "PX", ARGV[2])
return "yours"
"""
FINISH = """
if redis.call("GET", KEYS[1]) ~= "claim:" .. ARGV[1] then return 0 end
redis.call("SET", KEYS[1], "reply:" .. ARGV[2], "PX", ARGV[3])
return 1
"""
GIVE_UP = """
if redis.call("GET", KEYS[1]) ~= "claim:" .. ARGV[1] then return 0 end
return redis.call("DEL", KEYS[1])
"""

Effect = Callable[[], Awaitable[bytes]]
Perform = Callable[[str, Effect], Awaitable[bytes]]
Open = Callable[[str, int], AbstractAsyncContextManager[Perform]]  # the server's URL and how long (s) a claim lasts


class InProgress(Exception):
    """Somebody is at it."""


@asynccontextmanager
async def torg(url: str, lease_s: int) -> AsyncIterator[Perform]:
    async with aclosing(Pipe(url, timeout_ms=5000)) as pipe:

        async def perform(key: str, effect: Effect) -> bytes:
            ticket = once.ticket(7, key, "POST /api/orders", BODY)
            # As `once.claim`, whose lease is too long to wait for.
            match await once.CLAIM(pipe, keys=[ticket.entry], args=[ticket.print, ticket.owner, lease_s * 1000]):
                case Replay(reply):
                    return reply
                case Running() | Mismatch():
                    raise InProgress
            try:
                reply = await effect()
            except BaseException:
                await once.abandon(pipe, ticket)
                raise
            if await once.finish(pipe, ticket, reply) == Lost():
                raise InProgress  # somebody else's reply counts
            return reply

        yield perform


@asynccontextmanager
async def set_nx(url: str, lease_s: int) -> AsyncIterator[Perform]:
    """The classic: a lock by SET NX, a reply by SET, and the lock is deleted by whoever had it once."""
    redis = Redis.from_url(url)

    async def perform(key: str, effect: Effect) -> bytes:
        if (kept := await redis.get(f"reply:{key}")) is not None:
            return cast(bytes, kept)
        if not await redis.set(f"lock:{key}", 1, nx=True, px=lease_s * 1000):
            raise InProgress
        try:
            reply = await effect()
            await redis.set(f"reply:{key}", reply, px=KEPT_MS)
            return reply
        finally:
            await redis.delete(f"lock:{key}")

    try:
        yield perform
    finally:
        await redis.aclose()


@asynccontextmanager
async def set_nx_token(url: str, lease_s: int) -> AsyncIterator[Perform]:
    """The careful version: one key for claim and reply, and only the owner of the claim changes it."""
    redis = Redis.from_url(url)
    claim, finish, give_up = (redis.register_script(body) for body in (CLAIM, FINISH, GIVE_UP))

    async def perform(key: str, effect: Effect) -> bytes:
        token = str(uuid4())
        found = cast(bytes, await claim(keys=[key], args=[token, lease_s * 1000]))
        if found.startswith(b"reply:"):
            return found.removeprefix(b"reply:")
        if found != b"yours":
            raise InProgress
        try:
            reply = await effect()
        except BaseException:
            await give_up(keys=[key], args=[token])
            raise
        if not await finish(keys=[key], args=[token, reply, KEPT_MS]):
            raise InProgress
        return reply

    try:
        yield perform
    finally:
        await redis.aclose()


@asynccontextmanager
async def idempotency_kit(url: str, lease_s: int) -> AsyncIterator[Perform]:
    redis = Redis.from_url(url)
    coordinator = AsyncIdempotencyCoordinator(
        RedisAsyncIdempotencyRepository(redis),
        IdempotencyDomainService(),
        in_flight="raise",
        in_flight_lease_seconds=lease_s,
        on_storage_error="raise",
    )
    adapter = JsonResultAdapter()

    async def perform(key: str, effect: Effect) -> bytes:
        async def action() -> Any:
            return (await effect()).decode()

        try:
            reply: str = await coordinator.coordinate("bench", key, KEPT_MS // 1000, adapter, action)
        except IdempotencyInProgressError:
            raise InProgress from None
        return reply.encode()

    try:
        yield perform
    finally:
        await redis.aclose()


PERFORMERS: dict[str, Open] = {
    "torg": torg,
    "idempotency-kit": idempotency_kit,
    "set-nx-token": set_nx_token,
    "set-nx": set_nx,
}
