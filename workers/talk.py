"""The talk loop: batches of messages that are due are taken, and each is answered, many conversations side by side.

Words go to the consultant, a run of them as one turn; commands and buttons go one by one to their channel's routines.
A worker that dies, or fails, leaves a batch to the next one, whole: what is decided already is found so in Postgres, by
the ids of the runs, which are the same each time. What fails again and again is given up, so that the next message is
answered: in a dialogue that is worth more (B2). Postgres or Redis away is nobody's failure, nor is a channel that asks
to wait (its pace, its 429, its circuit): a crowd must not cost replies.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import Protocol

import msgspec
import structlog

from app.base import tally
from app.base.ids import derived_id
from app.domain import buffers, conversations
from app.domain.buffers import SHARDS, Batch, Heard
from app.errors import PostgresDown, Problem, ProviderDown, RedisDown
from app.flows import converse, hear, press
from app.settings import Settings
from app.shop import Shop

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.25
CROWDED_S = 0.01  # with little room only some shards are asked at a time
TRIES = 5  # that may fail
DEATHS = 20  # workers in a row that have not survived a batch


class Bot(Protocol):
    """What does commands and buttons of Telegram."""

    async def feed(self, shop: Shop, batch: Batch) -> None: ...


def _bot() -> Bot:
    from app.bot.dispatch import Bot  # seconds of import: in a thread, beside the work

    return Bot()


class Talk:
    """The conversations of one worker."""

    def __init__(self, settings: Settings, bot: Callable[[], Bot] = _bot) -> None:
        self.most, self.lease_s = settings.worker_jobs, settings.lease_s
        self.on = hear.doors(settings)
        self.running: set[asyncio.Task[None]] = set()
        self._make = bot
        self._made: asyncio.Future[Bot] | None = None
        self._rung = asyncio.Event()
        self._first = 0  # the shard that is asked first
        self._kinds: dict[int, str] = {}  # of channels, which never change theirs

    def wake(self) -> None:
        """A conversation may be due."""
        self._rung.set()

    async def work(self, shop: Shop, told: asyncio.Event) -> None:
        """Batches are answered until the worker is told to stop; then those under way are."""
        if "telegram" in self.on:
            self._load()
        while not told.is_set():
            self._rung.clear()
            rest_s = LOOK_EVERY_S
            try:
                rest_s = await self._take(shop)
            except RedisDown as error:
                log.warning("conversations not looked for", error=str(error))
            except Exception as error:  # a defect; what is taken is free again when its lease is over
                log.error("conversations not looked for", exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._rung.wait()
        while self.running:
            await asyncio.wait(self.running)

    def cut(self) -> None:
        """What still runs ends now, and is another worker's at once."""
        for task in self.running:
            task.cancel()

    async def _take(self, shop: Shop) -> float:
        """As much is under way as there is room for; when to look again. Raises: RedisDown."""
        room = self.most - len(self.running)
        asked = min(room, SHARDS)
        if asked <= 0:
            return LOOK_EVERY_S  # the first batch that ends wakes us
        shards = [(self._first + n) % SHARDS for n in range(asked)]
        self._first = (self._first + asked) % SHARDS
        lease_ms = self.lease_s * 1000
        takes = (buffers.take(shop.deps.redis, shard, size=room // asked, lease_ms=lease_ms) for shard in shards)
        found = await asyncio.gather(*takes, return_exceptions=True)
        rest_s = LOOK_EVERY_S if asked == SHARDS else CROWDED_S
        for taken in found:
            if isinstance(taken, buffers.Taken):
                for batch in taken.batches:
                    self._start(shop, batch)
                rest_s = min(rest_s, rest_s if taken.next_ms is None else taken.next_ms / 1000)
        for failed in found:
            if isinstance(failed, BaseException):
                raise failed
        return rest_s

    def _start(self, shop: Shop, batch: Batch) -> None:
        tally.BATCH_LAG.of().observe(batch.late_ms / 1000)
        task = asyncio.create_task(self._work_on(shop, batch), name="batch")
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if len(self.running) >= self.most:
            self.wake()
        self.running.discard(task)

    async def _work_on(self, shop: Shop, batch: Batch) -> None:
        """The batch is done, or waits for another try."""
        alive = asyncio.create_task(self._keep(shop, batch))
        try:
            for run in runs(batch):
                if alive.done():
                    log.warning("batch is another worker's by now", **_facts(batch))
                    return
                await self._try(shop, batch, run)
            next_ms = await buffers.done(shop.deps.redis, batch)
            tally.BATCHES.add("done")
            if next_ms == 0:
                self.wake()
        except asyncio.CancelledError:
            tally.BATCHES.add("returned")
            await asyncio.shield(self._give_back(shop, batch, 0, failed=False))
            raise
        except Exception as error:  # whatever it was, the batch must not be lost
            tally.BATCHES.add("failed")
            log.warning("batch will be tried again", **_why(error), **_facts(batch))
            asked_s = (error.retry_after_s if isinstance(error, Problem) else None) or 0
            wait_ms = max(self.lease_s, asked_s) * 1000
            await self._give_back(shop, batch, wait_ms, failed=not _is_nobodys(error))
        finally:
            alive.cancel()

    async def _try(self, shop: Shop, batch: Batch, run: Batch) -> None:
        """The run is done, or is given up. Raises: what it raises, as long as it is to be tried again."""
        if batch.died >= DEATHS:
            tally.RUNS_LOST.add()
            log.error("run given up: its workers died", turn_id=str(run.id), **_facts(batch))
            return
        try:
            await self._hand(shop, run)
        except Exception as error:
            if batch.tries < TRIES or _is_nobodys(error):
                raise
            tally.RUNS_LOST.add()
            log.error("run given up", turn_id=str(run.id), **_why(error), **_facts(batch))

    async def _hand(self, shop: Shop, run: Batch) -> None:
        """To whom it is for."""
        if run.heard[0].text:
            await converse.converse(shop, run)
            return
        if run.channel_id not in self._kinds:
            self._kinds = {known.id: known.kind for known in await conversations.channels(shop.deps.pg)}
        match self._kinds.get(run.channel_id):
            case "telegram":
                bot = await asyncio.shield(self._load())
                await bot.feed(shop, run)
            case "whatsapp":
                await press.press(shop, run)
            case kind:
                log.warning("nobody does this", kind=kind, **_facts(run))

    def _load(self) -> "asyncio.Future[Bot]":
        if self._made is None or (self._made.done() and self._made.exception()):
            self._made = asyncio.get_running_loop().run_in_executor(None, self._make)
        return self._made

    async def _give_back(self, shop: Shop, batch: Batch, wait_ms: int, *, failed: bool) -> None:
        try:
            await buffers.give_back(shop.deps.redis, batch, wait_ms, failed=failed)
        except RedisDown as error:
            log.warning("lease runs out by itself", error=str(error), **_facts(batch))

    async def _keep(self, shop: Shop, batch: Batch) -> None:
        """The lease lives as long as this task, which ends when it is lost."""
        while True:
            await asyncio.sleep(self.lease_s / 3)
            try:
                if not await buffers.keep(shop.deps.redis, batch, self.lease_s * 1000):
                    return
            except RedisDown as error:
                log.warning("lease not renewed", error=str(error), **_facts(batch))


def runs(batch: Batch) -> Iterator[Batch]:
    """Words that follow each other together, all else one by one; each part's id is the same every time."""
    told: list[list[Heard]] = []
    for words, group in groupby(batch.heard, key=lambda heard: bool(heard.text)):
        together = list(group)
        told += [together] if words else [[heard] for heard in together]
    for number, heard in enumerate(told):
        yield msgspec.structs.replace(batch, id=derived_id(batch.id.bytes, number.to_bytes(1)), heard=heard)


def _is_nobodys(error: Exception) -> bool:
    """No try: something that all conversations need is away, or a channel that surely has not got the reply."""
    held = isinstance(error, ProviderDown) and (not error.unsure or error.retry_after_s is not None)
    return held or isinstance(error, PostgresDown | RedisDown)


def _facts(batch: Batch) -> dict[str, object]:
    return {"batch_id": str(batch.id), "channel_id": batch.channel_id, "tries": batch.tries, "died": batch.died}


def _why(error: Exception) -> dict[str, object]:
    """What went wrong, without the text of an unforeseen error: it may quote what somebody wrote."""
    if isinstance(error, Problem):
        return {"error": str(error)}
    return {"error": type(error).__name__, "at": traceback.format_tb(error.__traceback__)[-3:]}
