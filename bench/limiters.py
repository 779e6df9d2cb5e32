"""The limiters of bench/limits.py: each as its own documentation has it, with its library's own connections."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from litestar import Litestar, get
from litestar.exceptions import TooManyRequestsException
from litestar.middleware.rate_limit import DURATION_VALUES, DurationUnit, RateLimitConfig, RateLimitMiddleware
from litestar.stores.base import Store
from litestar.stores.redis import RedisStore
from litestar.types import Message
from redis.asyncio import Redis
from throttled.asyncio import Quota as ThrottledQuota
from throttled.asyncio import Rate, RateLimiterType, Throttled
from throttled.asyncio import RedisStore as ThrottledStore

from app.domain import limits as ours
from app.domain.limits import Admitted, Charge, Policy, Refused, Who, Without
from app.infra.pipe import Pipe


class Quota(NamedTuple):
    """So many calls in so many seconds; a bucket holds as many unless `burst` says how many."""

    calls: int
    window_s: int
    burst: int = 0


class Told(NamedTuple):
    """What the caller hears; `wait_s` is what it is told to wait when it is refused."""

    admitted: bool
    wait_s: float = 0.0


Admit = Callable[[str], Awaitable[Told]]
Open = Callable[[str, Quota], AbstractAsyncContextManager[Admit]]


@asynccontextmanager
async def torg(url: str, quota: Quota) -> AsyncIterator[Admit]:
    policy = Policy("bench", quota.burst or quota.calls, quota.calls, quota.window_s, Who.CALLER, Without.CLOSED)
    async with aclosing(Pipe(url, timeout_ms=5000)) as pipe:

        async def admit(who: str) -> Told:
            match await ours.admit(pipe, [Charge(policy, who)]):
                case Refused(wait_ms):
                    return Told(False, wait_ms / 1000)
                case Admitted():
                    return Told(True)

        yield admit


def of_limits(strategy: type[RateLimiter]) -> Open:
    """`limits`: windows, no buckets, so its bursts are the whole window."""

    @asynccontextmanager
    async def opened(url: str, quota: Quota) -> AsyncIterator[Admit]:
        storage = RedisStorage(f"async+redis+{url.partition('?')[0]}", implementation="redispy")
        limiter, item = strategy(storage), RateLimitItemPerSecond(quota.calls, quota.window_s)

        async def admit(who: str) -> Told:
            if await limiter.hit(item, who):
                return Told(True)
            stats = await limiter.get_window_stats(item, who)
            return Told(False, max(0.0, stats.reset_time - time.time()))

        try:
            yield admit
        finally:
            bridge: Any = storage.bridge
            await disconnect(bridge.get_connection())

    return opened


@asynccontextmanager
async def throttled(url: str, quota: Quota) -> AsyncIterator[Admit]:
    store = ThrottledStore(server=url)
    rate = Rate(period=timedelta(seconds=quota.window_s), limit=quota.calls)
    limiter = Throttled(
        using=RateLimiterType.TOKEN_BUCKET.value,
        quota=ThrottledQuota(rate, burst=quota.burst or quota.calls),
        store=store,
    )

    async def admit(who: str) -> Told:
        answer = await limiter.limit(who)
        return Told(not answer.limited, max(0.0, answer.state.retry_after))

    try:
        yield admit
    finally:
        await disconnect(store._backend.get_client())


@asynccontextmanager
async def litestar(url: str, quota: Quota) -> AsyncIterator[Admit]:
    """The middleware alone, around nothing: neither routing nor a response is measured."""
    client = Redis.from_url(url)
    stores: dict[str, Store] = {"rate_limit": RedisStore(client)}
    app = Litestar([nothing], stores=stores, openapi_config=None, logging_config=None)
    middleware = RateLimitMiddleware(nobody, RateLimitConfig(per(quota)))

    async def admit(who: str) -> Told:
        scope: Any = {
            "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "client": (who, 1),
            "litestar_app": app, "app": app, "route_handler": nothing, "state": {},
        }  # fmt: skip
        try:
            await middleware(scope, no_body, no_answer)
        except TooManyRequestsException as refusal:
            return Told(False, float((refusal.headers or {})["RateLimit-Reset"]))
        return Told(True)

    try:
        yield admit
    finally:
        await disconnect(client)


async def disconnect(client: Any) -> None:
    """`aclose` alone leaves the connections of a pool that the client was given."""
    await client.connection_pool.disconnect()


def per(quota: Quota) -> tuple[DurationUnit, int]:
    """The nearest that Litestar can say: its windows are one second, minute, hour or day."""
    unit = next(unit for unit in reversed(DURATION_VALUES) if DURATION_VALUES[unit] <= quota.window_s)
    return unit, max(1, math.floor(quota.calls * DURATION_VALUES[unit] / quota.window_s))


@get("/")
async def nothing() -> None:
    return None


async def nobody(*_: object) -> None:
    return None


async def no_body() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def no_answer(_: Message) -> None:
    return None


LIMITERS: dict[str, Open] = {
    "torg": torg,
    "limits": of_limits(MovingWindowRateLimiter),
    "limits-counter": of_limits(SlidingWindowCounterRateLimiter),
    "throttled-py": throttled,
    "litestar": litestar,
}
