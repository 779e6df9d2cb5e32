"""The shop in the storm: its workers, the outside parties, and those who watch."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from app import settings as settings_floor
from app.demo import environment
from app.errors import PostgresDown, Problem
from app.flows import rank
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.sql import Postgres
from app.sandbox.crystalpay import CrystalPay
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.shop import Shop, opened
from chaos import claims
from chaos.ear import Ear, messages
from chaos.fleet import Fleet
from chaos.sales import ADMIN
from chaos.weather import Weather
from tests.e2e.traps import Zygote

WORKERS = 3
PATIENCE_S = 120.0  # after the storm
SLOW_S = (0.05, 0.5)  # what an outside party takes to hear, and the same again to answer
LOOK_AT_BOARDS_S = 1.0
BOARDS = ("all", "month", "week")
CURRENCY = "RUB"
OWED = "SELECT count(*) FROM outbox WHERE state = 'owed'"


class Scene:
    """Everything is there; the storm is the caller's."""

    def __init__(
        self, shop: Shop, pg: Postgres, crystalpay: CrystalPay, fleet: Fleet, ear: Ear, home: Path,
        sent: Counter[tuple[int, str]],
    ) -> None:  # fmt: skip
        self.shop, self.pg, self.crystalpay, self.fleet, self.ear, self.sent = shop, pg, crystalpay, fleet, ear, sent
        self.weather = Weather(home, fleet, ear, pg)

    @classmethod
    @asynccontextmanager
    async def opened(cls, zygote: Zygote, home: Path, servers: Servers) -> AsyncIterator[Self]:
        await migrate(servers.database_url)
        secrets = environment.secrets_of(home)
        crystalpay = CrystalPay(*(secrets[f"TORG_CRYSTALPAY_{part}"] for part in ("LOGIN", "SECRET", "SALT")))
        telegram = Telegram(secrets["TORG_TELEGRAM_BOT_TOKEN"])
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            environ = secrets | {
                "TORG_DATA_DIR": str(home),
                "TORG_DATABASE_URL": servers.database_url,
                "TORG_REDIS_URL": servers.redis_url,
                "TORG_CRYSTALPAY_URL": await enter(running(_slow(crystalpay.app()))),
                "TORG_TELEGRAM_API_URL": await enter(running(_slow(telegram.app()))),
                "TORG_ADMINS": str(ADMIN),
                "TORG_PENDING_ORDERS": "100",
                "TORG_PAYMENT_WINDOW_S": "86400",
                "TORG_TELEGRAM_PACE": "*=1000000/1",
            }
            pg = await Postgres.open(_called(servers.database_url, "witness"), pool_size=2, timeout_ms=10_000)
            stack.push_async_callback(pg.close)
            for text in claims.WITNESS:
                await pg.fetch(text, ())
            shop = await enter(opened(settings_floor.load(environ)))
            ear = Ear(servers.redis_url)
            stack.push_async_callback(ear.aclose)
            ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")} | environ
            fleet = Fleet(zygote, ours, home / "workers.log", WORKERS)
            stack.callback(fleet.stop)
            yield cls(shop, pg, crystalpay, fleet, ear, home, messages(telegram))

    async def look_at_boards(self) -> None:
        """Until cancelled: somebody looks at the leaderboard, so that it is built again whenever Redis lost it."""
        while True:
            with suppress(Problem):
                await self.look()
            await asyncio.sleep(LOOK_AT_BOARDS_S)

    async def look(self) -> None:
        """The boards are there: those that Redis has are as they were, the others are built."""
        for period in BOARDS:
            await rank.ranking(self.shop, period, CURRENCY, user_id=0, size=10)

    async def calm(self) -> float:
        """Nothing is owed any more, or will not be done; how long that took."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while (await self.rows(OWED))[0][0]:  # noqa: ASYNC110  (Postgres sets no event here)
                    await asyncio.sleep(0.05)
        return loop.time() - started_s

    async def rows(self, query: str, *args: object) -> list[Any]:
        """Of a Postgres that may just have lost its connections."""
        for _ in range(5):
            with suppress(PostgresDown):
                return list(await self.pg.fetch(query, args))
        raise PostgresDown("Postgres does not answer")


def _slow(app: Any) -> Any:
    """On a slow day at Telegram's, so that a worker that dies has something in its hands, done or not yet done."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(random.uniform(*SLOW_S))
            await send(message)

        if scope["type"] == "http":
            await asyncio.sleep(random.uniform(*SLOW_S))
        await app(scope, receive, answer)

    return slow


def _called(url: str, name: str) -> str:
    """The same address, for connections that call themselves so."""
    return f"{url}{'&' if '?' in url else '?'}application_name={name}"
