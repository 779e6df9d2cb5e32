"""Job queues on one Redis: ours, plain arq, saq and taskiq (`ListQueueBroker`), with one worker process of each.

Started: from the call that owes or enqueues a job until its first line runs, one job at a time and at 50 a second.
Done: the rate at which a backlog of 2,000 jobs that do next to nothing is worked off, ten at a time; its columns in ms
are from the moment at which the worker may begin. Every worker is there all the time, and idle while others are
measured; variants take turns, and each figure is the median of its rounds.

What favours the others: they keep their jobs in Redis alone. Ours is a row of Postgres on disk before it is rung for
(a statement and its commit), and each is claimed and closed by a statement of its own, so that three commits of ours
stand beside none. `lost`, below the table, is what that is for: each worker is killed with -9 while 200 jobs of 0.1 s
are worked off, and started again at once; 30 s later it is counted how often each job was done. An effect is a line in
a file, outside of everybody's transaction: between it and the end of its job any queue that loses nothing must double
it. Ours has a second effect in Postgres, in the statement that closes the row, as the jobs of the shop have. Looked at
335 s later, arq had done the rest (its mark of a running job lives for 310 s), saq had swept its jobs away as failed
(`retries` is 1 unless set), and of taskiq's nothing was left to be done: BRPOP had handed them out.
"""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from saq.queue.redis import RedisQueue
from taskiq_redis import ListQueueBroker

from app.demo import processes
from app.demo.processes import Child, Start
from app.infra.embedded import Servers
from app.infra.migrate import migrate
from app.infra.pipe import Pipe
from app.infra.queue import Queue
from app.infra.sql import Postgres
from bench import doers, report
from bench.report import Round, Row

ROUNDS = 3
SINGLE, PAUSE_S = (
    16,
    0.5,
)  # jobs one at a time in a round, and at most so long between two: nobody's poll is met in step
STEADY, STEADY_PER_S = 200, 50
BACKLOG, OWED_AT_ONCE = 2000, 20
SLOW, SLOW_S, KILL_AFTER, AFTERWARDS_S = 200, 0.1, 65, 30.0  # in the middle of a ten, for who takes tens
PATIENCE_S = 60.0
LOOK_S = 0.001

Enqueue = Callable[[int, float], Awaitable[object]]


class Notes:
    """What the jobs of one worker have written down."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0
        self.at_ns: dict[int, list[int]] = {}
        path.touch()

    def look(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self.read)
            data = file.read()
        whole = len(data) // doers.NOTE.size * doers.NOTE.size
        self.read += whole
        for number, at_ns in doers.NOTE.iter_unpack(data[:whole]):
            self.at_ns.setdefault(number, []).append(at_ns)

    async def all(self, numbers: Sequence[int]) -> None:
        """Each of these jobs has been done. Raises: TimeoutError."""
        left = set(numbers)
        async with asyncio.timeout(PATIENCE_S):
            while left:
                self.look()
                left -= self.at_ns.keys()
                await asyncio.sleep(LOOK_S if left else 0)

    async def some(self, numbers: Sequence[int], count: int) -> None:
        """So many of these jobs have been done. Raises: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.at_ns.keys() & set(numbers)) < count:
                await asyncio.sleep(LOOK_S)
                self.look()

    def once(self, numbers: Sequence[int]) -> bool:
        return all(len(self.at_ns[number]) == 1 for number in numbers)


class Variant:
    """One queue, with its worker."""

    def __init__(self, name: str, enqueue: Enqueue, start: Start, notes: Notes) -> None:
        self.name, self.enqueue, self.start, self.notes = name, enqueue, start, notes
        self.numbers = itertools.count(1)
        self.child: Child

    async def ready(self) -> None:
        """The worker runs, and does jobs."""
        self.child = started(self.start, self.name, self.notes.path)
        await self.do(1)

    def take(self, count: int) -> list[int]:
        return list(itertools.islice(self.numbers, count))

    async def do(self, count: int) -> None:
        numbers = self.take(count)
        for number in numbers:
            await self.enqueue(number, 0)
        await self.notes.all(numbers)

    async def single(self) -> tuple[Round, bool]:
        numbers, waits_ms = self.take(SINGLE), []
        for number in numbers:
            await asyncio.sleep(random.uniform(0, PAUSE_S))
            start_ns = perf_counter_ns()
            await self.enqueue(number, 0)
            await self.notes.all([number])
            waits_ms.append((self.notes.at_ns[number][0] - start_ns) / 1e6)
        return Round(waits_ms, sum(waits_ms) / 1000), self.notes.once(numbers)

    async def steady(self) -> tuple[Round, bool]:
        numbers, starts_ns = self.take(STEADY), {}
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async def one(number: int) -> None:
            starts_ns[number] = perf_counter_ns()
            await self.enqueue(number, 0)

        async with asyncio.TaskGroup() as calls:
            for n, number in enumerate(numbers):
                await asyncio.sleep(max(0.0, began_s + n / STEADY_PER_S - loop.time()))
                calls.create_task(one(number))
        await self.notes.all(numbers)
        waits_ms = [(self.notes.at_ns[number][0] - starts_ns[number]) / 1e6 for number in numbers]
        return Round(waits_ms, loop.time() - began_s), self.notes.once(numbers)

    async def backlog(self) -> tuple[Round, bool]:
        """Enqueued while the worker stands still."""
        numbers = self.take(BACKLOG)
        os.kill(self.child.process.pid, signal.SIGSTOP)
        try:
            await self.owe(numbers, 0)
        finally:
            start_ns = perf_counter_ns()
            os.kill(self.child.process.pid, signal.SIGCONT)
        await self.notes.all(numbers)
        waits_ms = [(self.notes.at_ns[number][0] - start_ns) / 1e6 for number in numbers]
        await asyncio.sleep(1)  # what is left of their bookkeeping
        return Round(waits_ms, max(waits_ms) / 1000), self.notes.once(numbers)

    async def owe(self, numbers: Sequence[int], slow_s: float) -> None:
        room = asyncio.Semaphore(OWED_AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await self.enqueue(number, slow_s)

        await asyncio.gather(*(one(number) for number in numbers))

    async def killed(self) -> Counter[int]:
        """How many jobs were done how often, so long after their worker was killed in the middle of them."""
        numbers = self.take(SLOW)
        await self.owe(numbers, SLOW_S)
        await self.notes.some(numbers, KILL_AFTER)
        self.child.process.kill()
        self.child.process.wait()
        self.child = started(self.start, self.name, self.notes.path)
        await asyncio.sleep(AFTERWARDS_S)
        self.notes.look()
        return Counter(len(self.notes.at_ns.get(number, ())) for number in numbers)


def main() -> None:
    report.run("jobs", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    await migrate(servers.database_url)
    async with AsyncExitStack() as stack:
        pg = await Postgres.open(servers.database_url, pool_size=8, timeout_ms=10_000)
        stack.push_async_callback(pg.close)
        await pg.fetch(doers.TABLE, ())
        variants = await stack.enter_async_context(opened(folder, servers, pg))
        measures = ("single", "steady", "backlog")
        done: dict[tuple[str, str], list[tuple[Round, bool]]] = {}
        for measure, _, variant in itertools.product(measures, range(ROUNDS), variants):
            done.setdefault((variant.name, measure), []).append(await getattr(variant, measure)())
        counts = await asyncio.gather(*(variant.killed() for variant in variants))
        ((effects, jobs),) = await pg.fetch("SELECT count(*), count(DISTINCT number) FROM bench_effects", ())
        rows = [
            report.row(f"{name} {measure}", [turn for turn, _ in turns], correct=all(right for _, right in turns))
            for (name, measure), turns in sorted(done.items(), key=lambda item: measures.index(item[0][1]))
        ]
        lines = [lost(variant.name, count) for variant, count in zip(variants, counts, strict=True)]
        return rows, [*lines, f"torg, effect in its own statement: {effects} effects of {jobs} jobs"]


@asynccontextmanager
async def opened(folder: Path, servers: Servers, pg: Postgres) -> AsyncIterator[list[Variant]]:
    """Each queue with its worker at work."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TORG_")}
    ours |= {
        "TORG_DATABASE_URL": servers.database_url,
        "TORG_REDIS_URL": servers.redis_url,
        "TORG_DATA_DIR": str(folder),
    }
    async with AsyncExitStack() as stack:
        enqueue = await enqueuers(stack, servers.redis_url, pg)
        block = processes.running(folder / "log", ours)
        start = block.__enter__()
        try:
            variants = [Variant(name, call, start, Notes(folder / f"{name}.notes")) for name, call in enqueue.items()]
            for variant in variants:
                await variant.ready()
            yield variants
        finally:
            await asyncio.to_thread(block.__exit__, None, None, None)


async def enqueuers(stack: AsyncExitStack, redis_url: str, pg: Postgres) -> dict[str, Enqueue]:
    """How a job comes into each queue."""
    redis = Pipe(redis_url, timeout_ms=1000)
    stack.push_async_callback(redis.aclose)
    bell = Queue(redis)
    arq = await create_pool(RedisSettings.from_dsn(redis_url))
    stack.push_async_callback(arq.aclose)
    saq = RedisQueue.from_url(redis_url, name=doers.QUEUE)
    stack.push_async_callback(saq.disconnect)
    broker = ListQueueBroker(redis_url)
    stack.push_async_callback(broker.shutdown)

    async def job(number: int, slow_s: float) -> None:
        """Named here, done by the worker."""

    task: Any = broker.register_task(job, "job")

    async def owe(number: int, slow_s: float) -> None:
        told = f'{{"number": {number}, "slow_s": {slow_s}}}'
        ((outbox_id,),) = await pg.fetch(doers.OWE, (number, told))
        await bell.ring(outbox_id)

    return {
        "torg": owe,
        "arq": lambda number, slow_s: arq.enqueue_job("job", number, slow_s, _queue_name=doers.QUEUE),
        "saq": lambda number, slow_s: saq.enqueue("job", number=number, slow_s=slow_s),
        "taskiq": task.kiq,
    }


def started(start: Start, name: str, notes: Path) -> Child:
    """The worker of this name as one more process of the block."""
    log = start.log_dir / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.doers", name, str(start.lifeline)],
            env=start.environ | {doers.NOTES: str(notes)}, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, pass_fds=[start.lifeline], start_new_session=True,
        )  # fmt: skip
    child = Child(name, process, log)
    start.children.append(child)
    return child


def lost(name: str, counts: Counter[int]) -> str:
    many = sum(count for times, count in counts.items() if times > 1)
    said = f"{counts[0]} not done {AFTERWARDS_S:.0f} s later, {counts[1]} once, {many} more than once"
    return f"{name}, killed with -9 in the middle of {counts.total()} jobs: {said}"


if __name__ == "__main__":
    main()
