"""Thousands of keys, five callers of each in processes that are killed again and again: one effect, one answer.

TORG_ONCE_KEYS=10000 is the full run of issue 3 (a minute or two).
"""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections import defaultdict
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import asyncpg
import uvloop

from app.domain import once
from app.domain.once import Claimed, Finished, Mismatch, Replay, Running, Ticket
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.sql import Postgres

KEYS, CALLERS = int(os.environ.get("TORG_ONCE_KEYS", "2000")), 5
AT_ONCE = 100  # keys that one process works on at a time
LEASE_MS = 300  # instead of 14 s, so that the dead are not missed for long
KILL_EVERY = 50  # answers: on a slow machine as on a fast one

EFFECT = "INSERT INTO effects (key, by) VALUES ($1, $2) ON CONFLICT DO NOTHING"
GRANTED = "SELECT by FROM effects WHERE key = $1"


def call(database_url: str, redis_url: str, log: str) -> None:
    """One caller of every key; what it was answered is in its log, so that its successor goes on from there."""
    answered = {int(line.partition(b" ")[0]) for line in Path(log).read_bytes().split(b"\n")[:-1]}
    uvloop.run(_call(database_url, redis_url, log, [n for n in range(KEYS) if n not in answered]))


async def _call(database_url: str, redis_url: str, log: str, keys: list[int]) -> None:
    pg = await Postgres.open(database_url, pool_size=4, timeout_ms=30_000)
    redis = Pipe(redis_url, timeout_ms=30_000)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(n: int) -> None:
        async with turns:
            while (reply := await _ask(pg, redis, n)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            os.write(out, b"%d %s\n" % (n, reply))

    await asyncio.gather(*(one(n) for n in keys))
    await redis.aclose()
    await pg.close()


async def _ask(pg: Postgres, redis: Pipe, n: int) -> bytes | None:
    """The answer for this key; None when it must be asked again."""
    ticket = once.ticket(n % 100, f"key-{n}", "POST /api/orders", b"{}")
    match await once.claim(redis, ticket, lease_ms=LEASE_MS):
        case Replay(reply=reply):
            return reply
        case Claimed():
            return await _work(pg, redis, n, ticket)
        case Running():
            return None
        case Mismatch():
            raise AssertionError(n)


async def _work(pg: Postgres, redis: Pipe, n: int, ticket: Ticket) -> bytes | None:
    me = f"{os.getpid()}-{ticket.owner.hex()}"
    await pg.fetch(EFFECT, (n, me))
    ((by,),) = await pg.fetch(GRANTED, (n,))
    # A reply of its owner's making: were two of them kept, they would differ.
    reply = f"order {n} of {by}, said {me}".encode()
    return reply if await once.finish(redis, ticket, reply) == Finished() else None


async def test_one_effect_and_one_answer_however_often_the_callers_die(
    servers: Servers, pg_url: str, redis: Pipe, tmp_path: Path
) -> None:
    setup = await asyncpg.connect(pg_url)
    await setup.execute("CREATE TABLE effects (key int PRIMARY KEY, by text NOT NULL)")
    logs = [tmp_path / f"{n}.log" for n in range(CALLERS)]
    for log in logs:
        log.touch()
    kills = await killed_and_started(pg_url, servers.redis_url, logs)
    answers: dict[int, set[bytes]] = defaultdict(set)
    told = 0
    for line in b"".join(log.read_bytes() for log in logs).splitlines():
        number, _, reply = line.partition(b" ")
        answers[int(number)].add(reply)
        told += 1
    assert kills >= KEYS * CALLERS // KILL_EVERY // 2
    assert told >= KEYS * CALLERS
    assert {len(found) for found in answers.values()} == {1}
    assert sorted(answers) == list(range(KEYS))
    assert await setup.fetchval("SELECT count(*) FROM effects") == KEYS
    await setup.close()


async def killed_and_started(database_url: str, redis_url: str, logs: list[Path]) -> int:
    """Every caller has come to its end, though one after another was killed; returns how many kills that took."""
    chance, kills, deadline_s = random.Random(1), 0, time.monotonic() + 180
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(n: int) -> ForkServerProcess:
        process = context.Process(target=call, args=(database_url, redis_url, str(logs[n])))
        process.start()
        return process

    def answered() -> int:
        return sum(log.read_bytes().count(b"\n") for log in logs)

    callers = {n: start(n) for n in range(CALLERS)}
    while callers:
        assert time.monotonic() < deadline_s, f"{len(callers)} callers hang after {kills} kills"
        await asyncio.sleep(0.05 * chance.random())
        for n, process in list(callers.items()):
            if process.exitcode == 0:
                del callers[n]
            elif process.exitcode is not None:
                assert process.exitcode == -signal.SIGKILL
                callers[n] = start(n)
        if callers and answered() > KILL_EVERY * kills:
            victim = callers[chance.choice(list(callers))]
            if victim.is_alive() and victim.pid:
                os.kill(victim.pid, signal.SIGKILL)
                kills += 1
    return kills
