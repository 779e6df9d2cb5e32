"""A broadcast through kill -9 of its workers: everybody has it, and of each kill at most one user has it twice."""

import asyncio
from pathlib import Path

import pytest

from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.sql import Postgres
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.sandbox.telegram_wire import BotFault
from tests.e2e.stage import environment_of
from tests.e2e.traps import Zygote
from tests.flows.test_broadcasts import USERS
from tests.world import BOT_TOKEN, settings_for

SIZE = 300
KILLS = (40, 130, 220)  # after so many messages
BROADCAST = """
WITH made AS (INSERT INTO broadcasts (texts, audience, created_by)
              SELECT '{"en": "News!", "ru": "News!"}', 'all', min(id) FROM users RETURNING id)
INSERT INTO outbox (kind, key, payload) SELECT 'broadcast', id::text, jsonb_build_object('broadcast_id', id) FROM made
RETURNING id"""


class Stage:
    """Workers that a test starts and kills, on a Bot API that it watches."""

    def __init__(self, pg: Postgres, zygote: Zygote, env: dict[str, str], log: Path) -> None:
        self.pg, self.zygote, self.env, self.log = pg, zygote, env, log
        self.pids: list[int] = []

    def start(self) -> int:
        self.pids.append(self.zygote.ask("start", ["worker"], self.env, str(self.log)))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        self.pids.remove(pid)
        self.zygote.ask("kill", pid)

    async def sent(self) -> int:
        """How many are counted, once the broadcast is over."""
        async with asyncio.timeout(60):
            while True:
                ((state, sent),) = await self.pg.fetch("SELECT state, sent FROM broadcasts", ())
                if state == "done":
                    return int(sent)
                await asyncio.sleep(0.05)


def counts(api: Telegram) -> list[int]:
    return [len(api.sent_to(100_000 + n)) for n in range(1, SIZE + 1)]


async def reached(api: Telegram, number: int) -> None:
    """The user of this number has the message."""
    async with asyncio.timeout(60):
        while not api.sent_to(100_000 + number):  # noqa: ASYNC110  (what is waited for is in the simulator)
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_user_has_it_through_kills(
    pg_url: str, pg: Postgres, servers: Servers, redis: Pipe, zygote: Zygote, tmp_path: Path, workers: int
) -> None:
    api = Telegram(BOT_TOKEN)
    async with running(api.app()) as url:
        settings = settings_for(pg_url, servers.redis_url, telegram_api_url=url, lease_s=1, log_level="info")
        stage = Stage(pg, zygote, environment_of(settings), tmp_path / "workers.log")
        await pg.fetch(USERS, (SIZE,))
        await pg.fetch(BROADCAST, ())
        try:
            for _ in range(workers):
                stage.start()
            for after in KILLS:
                # The message is there and its answer is not: the one moment at which a kill doubles a message.
                chat = 100_000 + after
                api.faults.append(BotFault(on="sendMessage", chat_id=chat, hold_ms=60_000, after=True))
                await reached(api, after)
                for pid in tuple(stage.pids):
                    stage.kill(pid)
                    stage.start()
            assert await stage.sent() == SIZE
        finally:
            for pid in tuple(stage.pids):
                stage.kill(pid)
        assert [n + 1 for n, count in enumerate(counts(api)) if count != 1] == list(KILLS)
        assert sum(counts(api)) == SIZE + len(KILLS)


async def test_kills_at_any_moment_double_one_message_each_at_most(
    pg_url: str, pg: Postgres, servers: Servers, redis: Pipe, zygote: Zygote, tmp_path: Path
) -> None:
    api = Telegram(BOT_TOKEN)
    async with running(api.app()) as url:
        settings = settings_for(pg_url, servers.redis_url, telegram_api_url=url, lease_s=1, log_level="info")
        stage = Stage(pg, zygote, environment_of(settings), tmp_path / "workers.log")
        await pg.fetch(USERS, (SIZE,))
        await pg.fetch(BROADCAST, ())
        try:
            stage.start()
            for after in KILLS:
                await reached(api, after)
                stage.kill(stage.pids[0])
                stage.start()
            assert await stage.sent() == SIZE
        finally:
            for pid in tuple(stage.pids):
                stage.kill(pid)
        assert min(counts(api)) == 1
        assert max(counts(api)) <= 2
        assert sum(counts(api)) <= SIZE + len(KILLS)
