"""Random histories of loads, commits, bumps, expiries and flushes: nobody sees what the bound forbids.

The real read-through, copies and scripts; only the clock, the order of steps and what is lost are ours.
"""

import os
import random
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from logging import WARNING
from typing import Any

import pytest
import structlog
from structlog import make_filtering_bound_logger

from app.base.copies import Copies
from app.domain import catalog
from app.errors import PostgresDown, RedisDown
from app.flows import browse
from app.infra.lua import Script
from tests.flows.little_redis import LittleRedis, step

HISTORIES = int(os.environ.get("TORG_HISTORIES", "10000"))
ENTRY = catalog.product_entry(1)
BOUND_US = (catalog.LOCAL_MS + catalog.STALE_MS) * 1000
PROCESSES, STEPS, MOST_AT_ONCE = 3, 12, 6

# So much time passes before a step, so often of 100: now and then more than a copy, a lease or an entry lives.
OFTEN = {0: 60, 2_000: 15, 30_000: 10, 200_000: 8, 450_000: 4, 700_000: 1, 2_100_000: 1, 31_000_000: 1}
PAUSES_US = [pause_us for pause_us, often in OFTEN.items() for _ in range(often)]
ANSWERS_S = (0, 0, 0, 0.4, 0.9, 1.8)  # how long Postgres's answer is on its way
LIVES_MS = (0, 600, 5_000, 300_000, 300_000)


class History:
    """One product whose version is all that counts, three processes that show it, and whatever happens."""

    def __init__(self, redis: LittleRedis, dice: random.Random) -> None:
        self.redis, self.dice = redis, dice
        self.copies = [
            Copies(age_s=catalog.LOCAL_MS / 1000, most=9, most_bytes=99, clock=self.clock) for _ in range(PROCESSES)
        ]
        self.committed = 0
        self.bumped: list[tuple[int, int]] = [(-(10**18), 0)]  # from this moment on, this version is announced
        self.stale = self.reads = self.loads = 0
        redis.flush()
        redis.is_lost = lambda: dice.random() < lost
        lost = dice.choice((0.0, 0.0, 0.0, 0.05))

    def clock(self) -> float:
        return self.redis.now_us / 1e6

    def run(self) -> None:
        going: dict[Coroutine[Any, Any, None], int] = {}  # when each may go on
        if self.dice.random() < 0.5:
            going[self._reader(0)] = 0
            while going:
                self._advance(going)
        for _ in range(STEPS):
            if len(going) < MOST_AT_ONCE and self.dice.random() < 0.4:
                going[self._actor()] = 0
            if going:
                self._advance(going)
        while going:
            self._advance(going)

    def _advance(self, going: dict[Coroutine[Any, Any, None], int]) -> None:
        """Time passes, and one of those that may go on takes its next step, or dies with its process."""
        self.redis.now_us += self.dice.choice(PAUSES_US)
        ready = [actor for actor, moment_us in going.items() if moment_us <= self.redis.now_us]
        actor = self.dice.choice(ready) if ready else min(going, key=going.__getitem__)
        self.redis.now_us = max(self.redis.now_us, going.pop(actor))
        if self.dice.random() < 0.01:
            actor.close()
            return
        with suppress(StopIteration):
            going[actor] = self.redis.now_us + int(actor.send(None) * 1_000_000)

    def _actor(self) -> Coroutine[Any, Any, None]:
        kind = self.dice.random()
        if kind < 0.75:
            return self._reader(self.dice.randrange(PROCESSES))
        return self._writer() if kind < 0.97 else self._flush()

    async def _reader(self, process: int) -> None:
        due = max(version for moment_us, version in self.bumped if moment_us <= self.redis.now_us - BOUND_US)
        copies = self.copies[process]
        body = copies.get(ENTRY)
        if body is None:
            try:
                got = await browse.through(self.redis, self.clock, ENTRY, self._load)
            except PostgresDown:
                return
            copies.put(ENTRY, got)
            body = got.body
        self.reads += 1
        self.stale += int(body) < due

    async def _load(self) -> browse.Loaded:
        self.loads += 1
        await step()
        if self.dice.random() < 0.05:
            raise PostgresDown("lost")
        version = self.committed
        await step(self.dice.choice(ANSWERS_S))
        return browse.Loaded(str(version).encode(), self.dice.choice(LIVES_MS))

    async def _writer(self) -> None:
        self.committed += 1
        version = self.committed
        while True:
            await step()
            try:
                done = await catalog.bump(self.redis)
                break
            except RedisDown:
                pass  # the job does it again
        self.bumped.append((int(done.generation), version))

    async def _flush(self) -> None:
        await step()
        self.redis.flush()


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> LittleRedis:
    monkeypatch.setattr(browse, "sleep", step)
    monkeypatch.setattr(browse, "log", structlog.wrap_logger(None, wrapper_class=make_filtering_bound_logger(WARNING)))
    return LittleRedis()


def histories(redis: LittleRedis, number: int) -> Iterator[History]:
    for seed in range(number):
        history = History(redis, random.Random(seed))
        history.run()
        yield history


def test_nobody_sees_what_the_bound_forbids(redis: LittleRedis) -> None:
    stale = reads = loads = 0
    for history in histories(redis, HISTORIES):
        stale += history.stale
        reads += history.reads
        loads += history.loads
    assert stale == 0
    assert reads > 2 * HISTORIES
    assert loads < 0.8 * reads  # the rest came from copies and from Redis, among so many changes


# What a hurried hand might change: script, what stands there, what would stand there.
STAMPED = ('"generation", loaded', '"generation", redis.call("HGET", generation, "now") or "0"')
PLANTED: dict[str, list[tuple[Script[Any], str, str]]] = {
    "any entry is a hit": [(catalog.LOOK, "if now and kept == now then", "if kept then")],
    "the last value is shown for ever": [(catalog.LOOK, " and age_us <= stale_us", "")],
    "a value before the last one is shown": [(catalog.LOOK, "kept == before and ", "")],
    "an invalidation while loading is missed": [
        (catalog.KEEP, 'redis.call("HGET", generation, "now") ~= loaded', "false"),
        (catalog.KEEP, *STAMPED),
    ],
}


@pytest.mark.parametrize("faults", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_seen(
    redis: LittleRedis, monkeypatch: pytest.MonkeyPatch, faults: list[tuple[Script[Any], str, str]]
) -> None:
    for script, line, other in faults:
        assert line in script.body
        monkeypatch.setattr(script, "body", script.body.replace(line, other))
    assert any(history.stale for history in histories(redis, 10_000))
