"""Health: alive means that the process answers, ready means that it can sell."""

import msgspec
from litestar import Response, get

from app.base.together import Read, together
from app.errors import RedisDown
from app.shop import Shop
from app.web.handler import TheShop


class Live(msgspec.Struct, frozen=True):
    status: str = "live"


class Ready(msgspec.Struct, frozen=True):
    """`ready` while Postgres answers; without Redis the shop sells, slower."""

    status: str
    postgres: bool
    redis: bool


@get("/health/live")
async def live() -> Live:
    return Live()


@get("/health/ready")
async def ready(shop: TheShop) -> Response[Ready]:
    """200 when Postgres answers, 503 when not."""
    postgres, redis = await together(
        Read("postgres", lambda: _postgres(shop), False),
        Read("redis", lambda: _redis(shop), False),
        parallel=shop.deps.settings.parallel,
    )
    status = "ready" if postgres else "not ready"
    return Response(Ready(status, postgres, redis), status_code=200 if postgres else 503)


async def _postgres(shop: Shop) -> bool:
    return bool(await shop.deps.pg.fetch("SELECT 1", ()))


async def _redis(shop: Shop) -> bool:
    try:
        return await shop.deps.redis.command("PING") == b"PONG"
    except RedisDown:
        return False
