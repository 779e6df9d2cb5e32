"""One Lua script under 64 concurrent callers: our Pipe against redis-py as one would write it.

Variants take turns on one server. `correct`: the hash holds exactly one unit for every call that was answered.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import msgspec
import uvloop
from redis.asyncio import Redis

from app.infra import embedded, lua
from app.infra.pipe import Pipe
from bench import report

CALLERS = 64
CALLS = 150  # of each caller in a round
ROUNDS = 15
SCRIPT = """\
#!lua flags=
-- bench/score: add units to one member's total, and rank it by when it last changed.
--
-- reply  scored total        -- the member's total now
-- cost   O(log members), 4 commands
-- slot   {bench:<variant>}

local totals  = KEYS[1]            -- hash    units by member
local ranking = KEYS[2]            -- zset    member by the moment (ms) of its last change
local member  = ARGV[1]            -- bytes   member id
local units   = tonumber(ARGV[2])  -- units   > 0
local ttl_ms  = tonumber(ARGV[3])  -- ms      > 0

local time = redis.call("TIME")
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local total = redis.call("HINCRBY", totals, member, units)
redis.call("ZADD", ranking, now_ms, member)
redis.call("PEXPIRE", ranking, ttl_ms)
return {"scored", total}
"""

Call = Callable[[str], Awaitable[object]]


class Scored(msgspec.Struct, frozen=True):
    total: int


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        (Path(folder) / "bench").mkdir()
        (Path(folder) / "bench/score.lua").write_text(SCRIPT)
        with embedded.serve(Path(folder) / "data", postgres=False) as servers:
            report.publish("lua", uvloop.run(compared(servers.redis_url, Path(folder))))


async def compared(url: str, root: Path) -> list[report.Row]:
    script = lua.Script("bench/score", Scored, root=root)
    pipe, client = Pipe(url, timeout_ms=5000), Redis.from_url(url)
    await lua.load(pipe, [script])
    variants = {"torg": through_pipe(pipe, script), "redis-py": through_redis_py(client, script)}
    rounds: dict[str, list[report.Round]] = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, call in variants.items():
            done = await one_round(call)
            if number:  # the first is warm-up: connections, caches
                rounds[name].append(done)
    rows = []
    for name in variants:
        totals = await client.hvals(f"{{bench:{name}}}totals")
        correct = sum(map(int, totals)) == (ROUNDS + 1) * CALLERS * CALLS
        rows.append(report.row(name, rounds[name], correct=correct))
    await client.aclose()
    await pipe.aclose()
    return rows


def through_pipe(pipe: Pipe, script: lua.Script[Scored]) -> Call:
    keys = ["{bench:torg}totals", "{bench:torg}ranking"]
    return lambda member: script(pipe, keys=keys, args=[member, 1, 60_000])


def through_redis_py(client: Redis, script: lua.Script[Scored]) -> Call:
    keys = ["{bench:redis-py}totals", "{bench:redis-py}ranking"]
    registered = client.register_script(script.body)
    return lambda member: registered(keys=keys, args=[member, 1, 60_000])


async def one_round(call: Call) -> report.Round:
    calls_ms: list[float] = []

    async def caller(member: str) -> None:
        for _ in range(CALLS):
            start = perf_counter()
            await call(member)
            calls_ms.append((perf_counter() - start) * 1000)

    start = perf_counter()
    await asyncio.gather(*(caller(f"member-{number}") for number in range(CALLERS)))
    return report.Round(calls_ms, perf_counter() - start)
