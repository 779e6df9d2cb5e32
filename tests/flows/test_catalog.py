"""A crowd on a cold page: four processes, 250 callers in each, one load."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from app.domain import catalog
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

ROOT = Path(__file__).parents[2]
PROCESSES, CALLERS = 4, 250


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_a_crowd_of_four_processes_loads_a_cold_page_once(
    pg: Postgres, pg_url: str, servers: Servers, redis: Pipe, redis_is: str
) -> None:
    await (await Shelf.opened(pg)).product(title="Lamp")
    redis_url = servers.redis_url if redis_is == "there" else "unix:///nowhere/redis.sock"
    command = [sys.executable, "-m", "tests.flows.crowd", pg_url, redis_url, str(CALLERS)]
    children = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE) for _ in range(PROCESSES)
    ]
    try:
        assert [await line(child) for child in children] == ["ready"] * PROCESSES
        for title in ("Lamp", "Lantern", "Lighthouse"):
            await pg.fetch("UPDATE products SET title = $1", (title,))
            await catalog.bump(redis)
            for child in children:
                assert child.stdin
                child.stdin.write(b"go\n")
            told = [(await line(child)).split(" ") for child in children]
            assert [bodies for _, bodies in told] == [title] * PROCESSES
            # Without Redis each process reads for itself, and still once.
            assert sum(int(loads) for loads, _ in told) == (1 if redis_is == "there" else PROCESSES)
            await redis.command("FLUSHALL")  # the last value is not there to be shown either
    finally:
        for child in children:
            child.kill()
            await child.wait()


async def line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout
    return (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip()
