"""The workers of `bench/jobs.py`: `python -m bench.doers torg|arq|saq|taskiq LIFELINE` does jobs until it is ended.

A job notes its number and the moment in a file, which is the same microseconds for everybody and outlives a kill -9. A
slow one takes so many seconds around its note. Each has ten jobs at a time, and is otherwise as its makers set it up.
`torg` is `torg worker` with one kind more; its slow job also has an effect in Postgres, in the statement that closes
its row, as every job of the shop has.
"""

import asyncio
import os
import random
import struct
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

import msgspec
import saq
import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker, func
from saq.queue.redis import RedisQueue
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker

from app import settings as settings_floor
from app.base.lease import Lease
from app.demo import processes
from app.domain import outbox
from app.shop import Shop
from workers import main as worker_main
from workers.kinds import KINDS, After, Kind

JOBS = 10  # at a time
NOTES, REDIS = "BENCH_NOTES", "TORG_REDIS_URL"  # variables of the environment
QUEUE = "bench"
NOTE = struct.Struct("qq")  # number, nanoseconds of the machine's monotonic clock

TABLE = "CREATE TABLE bench_effects (number int8 NOT NULL)"
OWE = "INSERT INTO outbox (kind, key, payload) VALUES ('bench', $1::int8::text, $2::text::jsonb) RETURNING id"
CLOSE = """
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id)
INSERT INTO bench_effects (number) SELECT $3 FROM mine"""


class Told(msgspec.Struct, frozen=True):
    number: int
    slow_s: float


_told = msgspec.json.Decoder(Told)


def noted(path: str) -> Callable[[int, float], Awaitable[None]]:
    """The job itself."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def note(number: int, slow_s: float) -> None:
        before_s = random.uniform(0, slow_s)
        if slow_s:
            await asyncio.sleep(before_s)
        os.write(file, NOTE.pack(number, perf_counter_ns()))
        if slow_s:
            await asyncio.sleep(slow_s - before_s)

    return note


async def torg(note: Callable[[int, float], Awaitable[None]]) -> None:
    async def run(shop: Shop, lease: Lease, job: outbox.Job) -> After:
        told = job.read(_told)
        await note(told.number, told.slow_s)
        if not told.slow_s:
            return await outbox.finish(shop.deps.pg, lease)
        await shop.deps.pg.fetch(CLOSE, (lease.outbox_id, lease.attempt_id, told.number))
        return None

    KINDS["bench"] = Kind(run)
    environ = {name: value for name, value in os.environ.items() if name.startswith("TORG_")}
    await worker_main.serve(settings_floor.load(environ | {"TORG_WORKER_JOBS": str(JOBS)}))


async def arq(note: Callable[[int, float], Awaitable[None]]) -> None:
    async def job(ctx: dict[Any, Any], number: int, slow_s: float) -> None:
        await note(number, slow_s)

    settings = RedisSettings.from_dsn(os.environ[REDIS])
    await Worker([func(job, name="job")], redis_settings=settings, queue_name=QUEUE, max_jobs=JOBS).main()


async def of_saq(note: Callable[[int, float], Awaitable[None]]) -> None:
    async def job(ctx: Any, *, number: int, slow_s: float) -> None:
        await note(number, slow_s)

    queue = RedisQueue.from_url(os.environ[REDIS], name=QUEUE)
    worker: saq.Worker[Any] = saq.Worker(queue, [("job", job)], concurrency=JOBS)
    await worker.start()


async def of_taskiq(note: Callable[[int, float], Awaitable[None]]) -> None:
    broker = ListQueueBroker(os.environ[REDIS])
    broker.register_task(note, "job")
    await run_receiver_task(broker, max_async_tasks=JOBS, run_startup=True)


WORKERS = {"torg": torg, "arq": arq, "saq": of_saq, "taskiq": of_taskiq}

if __name__ == "__main__":
    processes.hold_on_to(int(sys.argv[2]))
    uvloop.run(WORKERS[sys.argv[1]](noted(os.environ[NOTES])))
