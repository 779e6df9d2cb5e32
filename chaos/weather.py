"""The storm itself: each disaster at its own pace, all of them beside each other."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from app.errors import PostgresDown
from app.infra import embedded
from app.infra.sql import Postgres
from chaos.ear import Ear
from chaos.fleet import Fleet

KILL_EVERY_S = 2.0
FREEZE_EVERY_S, FREEZE_S = 7.0, 5.0  # longer than a lease of 3 s
REDIS_EVERY_S, REDIS_AWAY_S = 15.0, 2.0  # at most
FLUSH_EVERY_S = 7.0
CUT_EVERY_S, CUTS = 3.0, 3
CRASHES = 5  # Postgres loses its processes so many times in 600 s, at least once

CUT = """
SELECT pg_terminate_backend(a.pid) FROM (
       SELECT pid FROM pg_stat_activity WHERE application_name <> 'witness' AND backend_type = 'client backend'
        ORDER BY random() LIMIT $1) a"""


class Outage(msgspec.Struct, frozen=True):
    server: str
    since_s: float
    until_s: float


class Weather:
    """What happened, and how often."""

    def __init__(self, home: Path, fleet: Fleet, ear: Ear, pg: Postgres) -> None:
        self.home, self.fleet, self.ear, self.pg = home, fleet, ear, pg
        self.counts = Counter[str]()
        self.outages: list[Outage] = []
        self.losses_s: list[float] = []  # when Redis forgot, or may have forgotten its last moments

    async def rage(self, seconds: float) -> None:
        """The storm, and its end: everything runs again."""
        crash_every_s = seconds / (max(1, round(seconds / 600 * CRASHES)) + 0.5)
        disasters = [
            (KILL_EVERY_S, self.kill), (FREEZE_EVERY_S, self.freeze), (REDIS_EVERY_S, self.kill_redis),
            (FLUSH_EVERY_S, self.flush), (CUT_EVERY_S, self.cut), (crash_every_s, self.crash_postgres),
        ]  # fmt: skip
        over = asyncio.Event()
        tasks = [asyncio.create_task(_again_and_again(every_s, deed, over)) for every_s, deed in disasters]
        await asyncio.sleep(seconds)
        over.set()
        await asyncio.gather(*tasks)

    async def kill(self) -> None:
        self.fleet.kill()
        self.counts["kill -9"] += 1

    async def freeze(self) -> None:
        self.counts[f"SIGSTOP for {FREEZE_S:.0f} s"] += 1
        await self.fleet.freeze(FREEZE_S)

    async def kill_redis(self) -> None:
        self.counts["Redis kill -9"] += 1
        self.losses_s.append(time.time())
        server = embedded.Redis(self.home, self.home / "run")
        await self._restart(server, signal.SIGKILL, random.uniform(0, REDIS_AWAY_S))

    async def flush(self) -> None:
        with suppress(RedisError, OSError):
            await self.ear.flush()
            self.losses_s.append(time.time())
            self.counts["FLUSHALL"] += 1

    async def cut(self) -> None:
        with suppress(PostgresDown):
            self.counts["terminated backends"] += len(await self.pg.fetch(CUT, (CUTS,)))

    async def crash_postgres(self) -> None:
        """An immediate shutdown: what was not committed is gone, and it comes back by crash recovery."""
        self.counts["Postgres crash"] += 1
        await self._restart(embedded.Postgres(self.home, self.home / "run"), signal.SIGQUIT, 0)

    async def _restart(self, server: embedded.Server, how: signal.Signals, away_s: float) -> None:
        pid, since_s = await asyncio.to_thread(server.pid), time.time()
        if pid:
            os.kill(pid, how)
            while server.runs():  # noqa: ASYNC110  (a process that is not our child ends without an event)
                await asyncio.sleep(0.005)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self._start_again)
        self.outages.append(Outage(server.name, since_s, time.time()))

    def _start_again(self) -> None:
        with embedded.serve(self.home):  # whoever finds a server missing starts it; we are not its last user
            pass


async def _again_and_again(every_s: float, deed: Callable[[], Awaitable[None]], over: asyncio.Event) -> None:
    """At an even pace, and never beside itself."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while not over.is_set():
        due_s = max(due_s + every_s, loop.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), max(0.0, due_s - loop.time()))
            return
        await deed()
