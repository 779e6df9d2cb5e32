"""One admission under 64 concurrent callers: ours against the limiters that one would install.

Variants take turns on one server, each as asyncio with its Redis storage. Every caller has a bucket (or window) of its
own, 100 calls in 60 s, and is always admitted. `limits` is its moving window, `limits-counter` its approximate one;
`litestar` is its middleware alone, without routing or response. `correct`: no red test of this run found a fault.
"""

import asyncio
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import uvloop

from app.infra import embedded
from bench import crowd, report
from bench.limiters import LIMITERS, Admit, Open, Quota, Told

CALLS = 50  # of each caller in a round
ROUNDS = 7
SPEED = Quota(100, 60)

HOURLY = Quota(100, 3600)  # nothing comes back while the crowd is there
CROWD_CALLERS, CROWD_CALLS = 125, 4  # of each process: 2,000 calls in all
SHORT = Quota(100, 1, burst=20)
SHORT_CALLS = 16
SLOW = Quota(3, 2)
SLOW_S = 12.0
ASK_S = 0.05
WAITS = 3
EARLY_S = 0.002  # a timer may fire so much too soon
# What a limiter cannot say is asked of it as the nearest that it can.
NEAREST = {("litestar", SLOW): Quota(1, 1)}

Faults = dict[str, list[str]]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="t-") as folder,
        embedded.serve(Path(folder) / "data", postgres=False) as servers,
        crowd.processes() as pool,
    ):
        faults = uvloop.run(tried(servers.redis_url, pool))
        rows = uvloop.run(compared(servers.redis_url, faults))
    report.publish("limits", rows)
    for name, found in faults.items():
        for fault in found:
            print(f"{name}: {fault}")


# ---- speed


async def compared(url: str, faults: Faults) -> list[report.Row]:
    async with AsyncExitStack() as stack:
        variants = {name: await stack.enter_async_context(open_(url, SPEED)) for name, open_ in LIMITERS.items()}
        refused = dict.fromkeys(variants, 0)

        def counted(name: str, admit: Admit) -> crowd.Call:
            async def call(who: str) -> None:
                told = await admit(who)  # not within the next line: others count meanwhile
                refused[name] += not told.admitted

            return call

        calls = {name: counted(name, admit) for name, admit in variants.items()}
        rounds = await crowd.in_turns(calls, ROUNDS, CALLS)
    for name in variants:
        if refused[name]:
            faults[name].append(f"refused {refused[name]} calls of callers within their limit")
    return [report.row(name, rounds[name], correct=not faults[name]) for name in variants]


# ---- red tests


async def tried(url: str, pool: ProcessPoolExecutor) -> Faults:
    """What is wrong with each limiter."""
    faults: Faults = {name: [] for name in LIMITERS}
    for name in LIMITERS:
        admitted = sum(await crowd.in_processes(pool, admitted_of_crowd, name, url, str(uuid4())))
        if admitted != HOURLY.calls:
            faults[name].append(f"{admitted} of 2,000 calls from {crowd.PROCESSES} processes passed a limit of 100")
    for name, open_ in LIMITERS.items():
        faults[name] += await faults_of_short(url, open_)
    # These mostly wait, so all limiters may do it at once.
    waited = await asyncio.gather(*(faults_of_slow(name, url, open_) for name, open_ in LIMITERS.items()))
    for name, found in zip(LIMITERS, waited, strict=True):
        faults[name] += found
    return faults


def admitted_of_crowd(name: str, url: str, who: str) -> int:
    """Runs in a process of its own: how many of its calls for this caller were admitted."""
    return uvloop.run(_admitted(name, url, who))


async def _admitted(name: str, url: str, who: str) -> int:
    heard: list[Told] = []
    async with LIMITERS[name](url, HOURLY) as admit:

        async def call(_: str) -> None:
            heard.append(await admit(who))

        await admit("somebody else")  # connected, script loaded
        crowd.wait_for_all()
        await crowd.one_round(call, CROWD_CALLS, CROWD_CALLERS)
    return sum(told.admitted for told in heard)


async def faults_of_short(url: str, open_: Open) -> list[str]:
    """A bucket that is full again in a fifth of a second still refuses."""
    heard: list[Told] = []
    async with open_(url, SHORT) as admit:

        async def call(_: str) -> None:
            heard.append(await admit("everybody"))

        start = perf_counter()
        await crowd.one_round(call, SHORT_CALLS)
        most = SHORT.calls * (1 + perf_counter() - start) + 1
    admitted = sum(told.admitted for told in heard)
    return [f"{admitted} of {len(heard)} calls passed a limit of {most:.0f}"] if admitted > most else []


async def faults_of_slow(name: str, url: str, open_: Open) -> list[str]:
    """Who keeps asking gets all that the quota gives in the time, and who waits as told is admitted."""
    quota = NEAREST.get((name, SLOW), SLOW)
    async with open_(url, quota) as admit:
        patient, asker = str(uuid4()), str(uuid4())
        refused, admitted = await asyncio.gather(waits_refused(admit, patient), keeps_asking(admit, asker))
    faults = [f"refused {refused} of {WAITS} who waited as told"] if refused else []
    return faults + faults_of_rate(quota, admitted)


def faults_of_rate(quota: Quota, admitted: int) -> list[str]:
    """A window may be late or early by one filling; more is lost or made up."""
    given = quota.calls / quota.window_s * SLOW_S
    fits = abs(admitted - given) <= quota.calls
    return (
        [] if fits else [f"{admitted} calls in {SLOW_S:.0f} s at {quota.calls} in {quota.window_s} s: {given:.0f} due"]
    )


async def waits_refused(admit: Admit, who: str) -> int:
    refused = 0
    for _ in range(WAITS):
        while (told := await admit(who)).admitted:
            pass
        await asyncio.sleep(told.wait_s + EARLY_S)
        told = await admit(who)
        refused += not told.admitted
    return refused


async def keeps_asking(admit: Admit, who: str) -> int:
    """How many calls are admitted from the moment on at which nothing is left."""
    while (await admit(who)).admitted:
        pass
    admitted, end = 0, perf_counter() + SLOW_S
    while perf_counter() < end:
        told = await admit(who)
        admitted += told.admitted
        await asyncio.sleep(ASK_S)
    return admitted
