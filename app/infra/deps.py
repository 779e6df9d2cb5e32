"""Every outside part that a process holds, opened once and closed once."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import msgspec

from app.infra import http as http_parts
from app.infra.messenger import Messenger
from app.infra.pipe import Pipe
from app.infra.queue import Queue
from app.infra.secrets import Sealer, Tokens
from app.infra.sql import Postgres
from app.settings import Settings


class Deps(msgspec.Struct, frozen=True, kw_only=True):
    """The parts; None where the settings leave the secret out."""

    settings: Settings
    redis: Pipe
    pg: Postgres
    queue: Queue
    http: httpx.AsyncClient
    messenger: Messenger | None
    tokens: Tokens | None
    sealer: Sealer | None


@asynccontextmanager
async def opened(settings: Settings, messenger: Messenger | None = None) -> AsyncIterator[Deps]:
    """The parts of `settings` and the given messenger, closed again in reverse order.

    Raises: PostgresDown when Postgres does not answer; Redis may come later (DESIGN law 1).
    """
    async with AsyncExitStack() as stack:
        pg = await Postgres.open(
            settings.database_url, pool_size=settings.pg_pool_size, timeout_ms=settings.pg_timeout_ms
        )
        stack.push_async_callback(pg.close)
        redis = Pipe(settings.redis_url, timeout_ms=settings.redis_timeout_ms)
        stack.push_async_callback(redis.aclose)
        http = await stack.enter_async_context(http_parts.client(settings.gateway_timeout_ms))
        if messenger:
            stack.push_async_callback(messenger.close)
        yield Deps(
            settings=settings,
            redis=redis,
            pg=pg,
            queue=Queue(redis),
            http=http,
            messenger=messenger,
            tokens=Tokens(settings.session_secret) if settings.session_secret else None,
            sealer=Sealer(settings.goods_keys) if settings.goods_keys else None,
        )
