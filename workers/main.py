"""The worker process: arq's Worker, woken by the bell, beside the relay and the sweeps.

arq polls and then takes four round trips to start a job (PROBE B4). A job id that comes over the bell is started
at once by arq's own `run_job`; polling stays as the fallback, and so does arq's bookkeeping.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from time import time_ns
from typing import Any, cast

import structlog
from arq.connections import RedisSettings
from arq.worker import Worker, func
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import shop as shops
from app.base import keys, tally
from app.errors import PostgresDown, Unavailable
from app.flows.audit import audit
from app.flows.expire import expire
from app.flows.poll import poll
from app.flows.refund import overdue
from app.infra import observe, queue
from app.infra.messenger import Late, Messenger
from app.settings import Settings
from app.shop import Shop
from workers import jobs
from workers.kinds import KINDS
from workers.post import Post
from workers.relay import Relay
from workers.talk import Talk

log = structlog.get_logger(__name__)

EXPIRE_EVERY_S = 5.0
AUDIT_EVERY_S = 20.0  # the counters live 30 s from their last audit
POLL_EVERY_S = 5.0
OVERDUE_EVERY_S = 30.0
BELL_WAIT_S = 1  # how long one BLMPOP waits

# After SIGTERM, in this order; with what closing the shop takes (2.5 s at most) no more than ten seconds.
DRAIN_S = 6.0  # what runs may end
CUT_S = 1.0  # what is cut gives its row back
GOODBYE_S = 0.5  # to arq's Redis, which may be frozen

Sweep = Callable[[Shop], Awaitable[int]]

# What every worker does again and again, whether or not there are jobs.
SWEEPS: tuple[tuple[float, Sweep], ...] = (
    (EXPIRE_EVERY_S, expire),
    (AUDIT_EVERY_S, audit),
    (POLL_EVERY_S, poll),
    (OVERDUE_EVERY_S, overdue),
)


class BellWorker(Worker):
    """arq's Worker that also waits on the bell."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taken: set[str] = set()  # decided before any await, so that bell and poll never start one job twice

    async def listen(self) -> None:
        """Every rung job starts at once, as long as there is room for it."""
        while True:
            if not self.allow_pick_jobs or self.job_counter >= self.max_jobs:
                await asyncio.sleep(0.01)
                continue
            room = self.max_jobs - self.job_counter
            try:
                bell = cast(Any, keys.ARQ_BELL)  # the stub asks for a list and would send it as one key
                rung = await cast(Awaitable[Any], self.pool.blmpop(BELL_WAIT_S, 1, bell, direction="LEFT", count=room))
            except (RedisError, OSError) as error:
                log.warning("bell not heard", error=repr(error))
                await asyncio.sleep(0.5)
                continue
            for job_id in (name.decode() for name in (rung[1] if rung else ())):
                if self._take(job_id):
                    await self._start(job_id)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """What polling finds and the bell has not started already, one by one."""
        for job_id in job_ids:
            if self._take(job_id.decode()):
                await super().start_jobs([job_id])
                self._let_go(job_id.decode())

    async def _start(self, job_id: str) -> None:
        await self.sem.acquire()
        self.job_counter += 1
        task = self.loop.create_task(self.run_job(job_id, time_ns() // 1_000_000))
        task.add_done_callback(lambda _: self._release_sem_dec_counter_on_complete())
        self.tasks[job_id] = task
        self._let_go(job_id)

    def _take(self, job_id: str) -> bool:
        if job_id in self.taken or job_id in self.tasks:
            return False
        self.taken.add(job_id)
        return True

    def _let_go(self, job_id: str) -> None:
        self.taken.discard(job_id)  # from here on `tasks` knows it, if it runs


async def serve(settings: Settings) -> None:
    """Jobs are done until SIGTERM or SIGINT; then nothing new is taken and running ones get `DRAIN_S` to finish.

    What is cut after that gives its row back, and the attempt is not counted: another worker starts it at once.

    The relay and the sweeps need Postgres alone, so they run whether or not arq has its Redis.

    Raises: PostgresDown when Postgres does not answer at the start.
    """
    observe.configure(settings)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, told.set)
    async with shops.opened(settings, _messenger(settings)) as shop, _measured(settings, shop):
        relay = Relay(settings.worker_jobs)
        sweeps = ((settings.relay_ms / 1000, relay.sweep), *SWEEPS)
        tasks = [asyncio.create_task(_every(period_s, sweep, shop, told)) for period_s, sweep in sweeps]
        post = Post()
        if shop.deps.smtp:
            tasks.append(asyncio.create_task(post.work(shop, told), name="post"))
        talk = Talk(settings)
        if talk.on:
            tasks.append(asyncio.create_task(talk.work(shop, told), name="talk"))
        tasks.append(asyncio.create_task(_work(settings, shop, post, talk, told), name="arq"))
        log.info("worker is ready", gateways=sorted(shop.gateways))
        await told.wait()
        log.info("worker stops")
        talk.wake()
        await _end(tasks, relay, talk)


def _measured(settings: Settings, shop: Shop) -> AbstractAsyncContextManager[None]:
    if not settings.metrics_port:
        return nullcontext()
    from workers import metrics  # what prints them takes a tenth of a second to import

    return metrics.served(settings, shop)


async def _end(tasks: list["asyncio.Task[None]"], relay: Relay, talk: Talk) -> None:
    """What runs may end, or is cut and gives its row back; nobody is waited for longer than that takes."""
    tasks = [*tasks, asyncio.create_task(relay.finish())]
    await asyncio.wait(tasks, timeout=DRAIN_S)
    relay.cut()
    talk.cut()
    await asyncio.wait(tasks, timeout=CUT_S + GOODBYE_S)  # arq's task cuts its jobs itself
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CUT_S)


async def _work(settings: Settings, shop: Shop, post: Post, talk: Talk, told: asyncio.Event) -> None:
    """arq works; when it ends because Redis is away it starts again, until the process is told to stop."""
    while not told.is_set():
        worker = _worker(settings, shop, post, talk)
        main = asyncio.create_task(worker.main())
        stop = asyncio.create_task(told.wait())
        try:
            await asyncio.wait({main, stop}, return_when=asyncio.FIRST_COMPLETED)
            if told.is_set():
                await _drain(worker)
            elif error := main.exception():
                log.warning("arq ended and starts again", error=repr(error))
                await asyncio.sleep(1)
        finally:
            stop.cancel()
            main.cancel()
            await asyncio.gather(main, return_exceptions=True)
            await _close(worker)


async def _drain(worker: BellWorker) -> None:
    """Running jobs finish, at most for `DRAIN_S`; what is cut then gives its row back."""
    worker.allow_pick_jobs = False
    for task in worker.ctx.get("beside", ()):
        task.cancel()  # what the bell hands over from now on stays in the queue for others
    if running := list(worker.tasks.values()):
        await asyncio.wait(running, timeout=DRAIN_S)


async def _close(worker: BellWorker) -> None:
    for task in (*worker.ctx.get("beside", ()), *worker.tasks.values()):
        task.cancel()
    with suppress(TimeoutError):  # they give their rows back, and then tell a Redis that may be frozen
        async with asyncio.timeout(CUT_S):
            await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    worker.tasks.clear()
    try:
        async with asyncio.timeout(GOODBYE_S):  # arq's own goodbye waits for ever on a frozen Redis
            await worker.close()
    except (RedisError, OSError) as error:
        log.warning("arq not closed cleanly", error=repr(error))
    if worker._pool is not None:  # or each new arq would leave its connections behind
        with suppress(RedisError, OSError):
            async with asyncio.timeout(GOODBYE_S):
                await worker._pool.connection_pool.disconnect()


def _messenger(settings: Settings) -> Messenger | None:
    """The bot, loading while the first jobs already run; None without a token."""
    if not settings.telegram_bot_token:
        return None

    def make() -> Messenger:
        from app.infra import telegram  # seconds of import: beside the work, not before it

        return telegram.bot(settings)

    return Late(make)


def _worker(settings: Settings, shop: Shop, post: Post, talk: Talk) -> BellWorker:
    async def start_beside(ctx: dict[Any, Any]) -> None:
        """The bell is heard once arq has its Redis."""
        ctx["beside"] = [asyncio.create_task(worker.listen(), name="bell")]

    longest_s = max(settings.job_timeout_s, *(kind.timeout_s for kind in KINDS.values()))
    worker = BellWorker(
        # A settled payment is delivered and told in the same run: three rows, each with its own time.
        functions=[
            func(_run_job, name=queue.JOB, timeout=4 * longest_s),
            func(_wake_post, name=queue.MAIL, timeout=1),
            func(_wake_talk, name=queue.TALK, timeout=1),
        ],
        ctx={"shop": shop, "post": post, "talk": talk},
        on_startup=start_beside,
        queue_name=keys.ARQ_QUEUE,
        redis_settings=_redis_settings(settings.redis_url),
        max_jobs=settings.worker_jobs,
        poll_delay=settings.worker_poll_ms / 1000,
        queue_read_limit=1000,
        health_check_interval=30,
        keep_result=0,
        max_tries=2**31,  # arq's own count: what stopping workers have cut is not given up
        handle_signals=False,  # `serve` does
        job_serializer=queue.serialize,
        job_deserializer=queue.deserialize,
    )
    return worker


async def _run_job(ctx: dict[Any, Any], outbox_id: int) -> None:
    try:
        await jobs.run(ctx["shop"], outbox_id)
    except PostgresDown as error:
        log.warning("job not claimed, the relay rings again", outbox_id=outbox_id, error=str(error))


async def _wake_post(ctx: dict[Any, Any], outbox_id: int) -> None:
    """The mail is one of those that the post takes next."""
    ctx["post"].wake()


async def _wake_talk(ctx: dict[Any, Any], no_row: int) -> None:
    """A conversation is due."""
    ctx["talk"].wake()


async def _every(period_s: float, sweep: Sweep, shop: Shop, told: asyncio.Event) -> None:
    """The sweep runs again and again until told to stop; one that fails is logged and tried at its next turn."""
    while not told.is_set():
        name, outcome = sweep.__qualname__.partition(".")[0].lower(), "done"
        try:
            await sweep(shop)
        except Exception as error:  # a sweep must outlive whatever it meets
            outcome = "failed"
            known = isinstance(error, Unavailable)
            log.warning("sweep failed", sweep=sweep.__qualname__, error=str(error), exc_info=None if known else error)
        tally.SWEEPS.add(name, outcome)
        with suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), period_s)


def _redis_settings(url: str) -> RedisSettings:
    """arq dies with the first lost connection unless it is told to try again (PROBE B4)."""
    settings = RedisSettings.from_dsn(url)
    settings.retry = Retry(ExponentialBackoff(cap=1, base=0.05), retries=20)
    settings.retry_on_timeout = True
    settings.retry_on_error = [RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError]
    settings.conn_retries = 1
    return settings
