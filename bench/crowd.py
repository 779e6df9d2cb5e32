"""Crowds of callers: rounds in which the variants take turns, and work that several processes do at once."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from time import perf_counter
from typing import ParamSpec, TypeVar

from bench.report import Round

CALLERS = 64
PROCESSES = 4
PATIENCE_S = 60  # for a process to import what it needs

Call = Callable[[str], Awaitable[object]]
P = ParamSpec("P")
R = TypeVar("R")
_starts: list[Barrier] = []  # of this process, once it belongs to a pool


async def one_round(call: Call, calls: int, callers: int = CALLERS, crowd: str = "") -> Round:
    """Each caller makes its calls one after another, under a name of its own."""
    calls_ms: list[float] = []

    async def caller(name: str) -> None:
        for _ in range(calls):
            start = perf_counter()
            await call(name)
            calls_ms.append((perf_counter() - start) * 1000)

    start = perf_counter()
    await asyncio.gather(*(caller(f"{crowd}-{number}") for number in range(callers)))
    return Round(calls_ms, perf_counter() - start)


async def in_turns(variants: Mapping[str, Call], rounds: int, calls: int) -> dict[str, list[Round]]:
    """The rounds of each variant, interleaved; the first of each is warm-up and left out."""
    done: dict[str, list[Round]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, call in variants.items():
            done[name].append(await one_round(call, calls, crowd=f"{name}-{number}"))
    return {name: each[1:] for name, each in done.items()}


def processes() -> ProcessPoolExecutor:
    """A few processes, as a shop behind a balancer has; they start fresh, so nothing of ours is shared."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(PROCESSES)
    return ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_join, initargs=(start,))


def _join(start: Barrier) -> None:
    _starts.append(start)


async def in_processes(pool: ProcessPoolExecutor, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> list[R]:
    """What each process returns; `work` calls `wait_for_all` when it is ready."""
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(pool, work, *args) for _ in range(PROCESSES)))


def wait_for_all() -> None:
    """Every process of the pool is ready; blocks the thread."""
    _starts[0].wait(PATIENCE_S)
