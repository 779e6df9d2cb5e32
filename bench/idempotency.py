"""A thing done once for each key, under 64 concurrent callers: ours against what one would install or write.

A caller does something new (claim, effect, keep the reply) and asks for it again (the reply is replayed), in turns;
each of the two is a call. The effect costs nothing. Variants take turns on one server. `set-nx` is the classic lock,
`set-nx-token` the careful one. `correct`: no red test of this run found a fault.
"""

import asyncio
import json
import multiprocessing
import random
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import uvloop

from app.infra import embedded
from bench import crowd, report
from bench.performers import PERFORMERS, Effect, InProgress, Open, Perform

CALLS = 40  # of each caller in a round; every second is a replay
ROUNDS = 7
LEASE_S = 30
REPLY = json.dumps({"order": {"id": str(uuid4()), "number": 17, "status": "pending", "total_minor": 129_000}}).encode()

KEYS = 500  # each asked for by every process at once, twice
CROWD_CALLERS = 50
SHORT_LEASE_S = 1
STILL_S = 1.5  # longer than the lease
PATIENCE_S = 10.0
EFFECT_S = 0.002
RETRY_S = 0.005

Faults = dict[str, list[str]]


class Broken(Exception):
    """The effect failed."""


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="t-") as folder,
        embedded.serve(Path(folder) / "data", postgres=False) as servers,
        crowd.processes() as pool,
    ):
        faults = uvloop.run(tried(servers.redis_url, pool))
        rows = uvloop.run(compared(servers.redis_url, faults))
    report.publish("idempotency", rows)
    for name, found in faults.items():
        for fault in found:
            print(f"{name}: {fault}")


# ---- speed


async def compared(url: str, faults: Faults) -> list[report.Row]:
    async with AsyncExitStack() as stack:
        calls = {}
        wrong = dict.fromkeys(PERFORMERS, 0)

        def in_pairs(name: str, perform: Perform) -> crowd.Call:
            numbers: dict[str, count[int]] = {}

            async def call(who: str) -> None:
                number = next(numbers.setdefault(who, count()))
                reply = await perform(f"{who}-{number // 2}", nothing_new if number % 2 else effect)
                wrong[name] += reply != REPLY

            return call

        for name, open_ in PERFORMERS.items():
            calls[name] = in_pairs(name, await stack.enter_async_context(open_(url, LEASE_S)))
        rounds = await crowd.in_turns(calls, ROUNDS, CALLS)
    for name in PERFORMERS:
        if wrong[name]:
            faults[name].append(f"{wrong[name]} wrong replies")
    return [report.row(name, rounds[name], correct=not faults[name]) for name in PERFORMERS]


async def effect() -> bytes:
    return REPLY


async def nothing_new() -> bytes:
    return b"an effect where a replay was due"


# ---- red tests


async def tried(url: str, pool: ProcessPoolExecutor) -> Faults:
    """What is wrong with each variant."""
    faults: Faults = {}
    for name in PERFORMERS:
        lists = await crowd.in_processes(pool, done_by_crowd, name, url, str(uuid4()))
        faults[name] = faults_of_crowd([each for one in lists for each in one])
    # These mostly wait, so all variants may do it at once.
    for test in (faults_of_late_reply, faults_of_late_failure):
        found = await asyncio.gather(*(test(name, url, open_) for name, open_ in PERFORMERS.items()))
        for name, one in zip(PERFORMERS, found, strict=True):
            faults[name] += one
    return faults


Done = tuple[str, bytes, int]  # a key, the reply that one caller got, and how often its own effect ran


def done_by_crowd(name: str, url: str, crowd_id: str) -> list[Done]:
    """Runs in a process of its own, beside others that want the same."""
    return uvloop.run(_done(name, url, crowd_id))


async def _done(name: str, url: str, crowd_id: str) -> list[Done]:
    done: list[Done] = []
    async with PERFORMERS[name](url, LEASE_S) as perform:
        await perform(str(uuid4()), effect)  # connected, scripts loaded
        crowd.wait_for_all()
        numbers = count()

        async def call(_: str) -> None:
            key, ran = f"{crowd_id}-{next(numbers) // 2}", 0

            async def own() -> bytes:
                nonlocal ran
                ran += 1
                await asyncio.sleep(random.random() * EFFECT_S)
                return str(uuid4()).encode()

            done.append((key, await insisted(perform, key, own), ran))

        await crowd.one_round(call, KEYS * 2 // CROWD_CALLERS, CROWD_CALLERS)
    return done


def faults_of_crowd(done: list[Done]) -> list[str]:
    """Every key has one effect and one reply, whoever asked."""
    effects, replies = Counter[str](), dict[str, set[bytes]]()
    for key, reply, ran in done:
        effects[key] += ran
        replies.setdefault(key, set()).add(reply)
    twice = sum(times > 1 for times in effects.values())
    differ = sum(len(each) > 1 for each in replies.values())
    return [f"{twice} effects ran twice and {differ} replies differ, of {KEYS} keys"] if twice or differ else []


async def insisted(perform: Perform, key: str, own: Effect) -> bytes:
    """The reply, however long somebody else is at it. Raises: TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await perform(key, own)
            except InProgress:
                await asyncio.sleep(RETRY_S)


async def faults_of_late_reply(name: str, url: str, open_: Open) -> list[str]:
    """A holder stands still for longer than its claim lasts, somebody else finishes, then comes the holder's reply."""
    key = str(uuid4())

    async def second() -> bytes:
        return b"second"

    async with open_(url, SHORT_LEASE_S) as perform, Holder(name, url, key, fails=False) as holder:
        await asyncio.sleep(STILL_S)
        try:
            first_told = await insisted(perform, key, second)
        except TimeoutError:
            return [f"a key whose holder stands still is stuck for {PATIENCE_S:.0f} s"]
        await holder.go_on()
        told = await insisted(perform, key, second)
    return [f"a late reply took the place of another: {first_told!r}, then {told!r}"] if told != first_told else []


async def faults_of_late_failure(name: str, url: str, open_: Open) -> list[str]:
    """The same, but the holder fails late, while somebody else is at it: that one's claim stands."""
    key, begun, end = str(uuid4()), asyncio.Event(), asyncio.Event()

    async def second() -> bytes:
        begun.set()
        await end.wait()
        return b"second"

    async def third() -> bytes:
        return b"third"

    async with open_(url, LEASE_S) as perform, Holder(name, url, key, fails=True) as holder:
        await asyncio.sleep(STILL_S)
        working = asyncio.create_task(insisted(perform, key, second))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await holder.go_on()
        try:
            told = await perform(key, third)
        except InProgress:
            told = b""
        end.set()
        await working
    return [f"after a late failure two were at it at once: {told!r}"] if told else []


class Holder:
    """A process that has claimed the key and stands still in its effect, until it may go on."""

    def __init__(self, name: str, url: str, key: str, *, fails: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=hold, args=(theirs, name, url, key, fails), daemon=True)

    async def __aenter__(self) -> "Holder":
        self.process.start()
        await asyncio.to_thread(self.ours.recv)
        return self

    async def go_on(self) -> None:
        """It has done what it still had to do, and has ended."""
        self.ours.send("go on")
        await asyncio.to_thread(self.process.join)

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.join)


def hold(theirs: "Connection[str, str]", name: str, url: str, key: str, fails: bool) -> None:
    """What a holder's process runs."""

    async def first() -> bytes:
        theirs.send("begun")
        theirs.recv()  # blocks the whole loop: nothing renews the claim, as in a process that is swapped out
        if fails:
            raise Broken
        return b"first"

    async def performed() -> None:
        async with PERFORMERS[name](url, SHORT_LEASE_S) as perform:
            with suppress(Broken, InProgress):
                await perform(key, first)

    uvloop.run(performed())
