"""Calls that come together are done together, each with its own answer, its own failure, and no waiting for company."""

import asyncio

import pytest

from app.base.batches import Batches


class Down(Exception):
    pass


class Work:
    """Doubles numbers; a batch waits at the gate, so that others gather behind it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate, self.second = asyncio.Event(), asyncio.Event()
        self.down = False

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        if len(self.batches) == 2:
            self.second.set()
        await self.gate.wait()
        if self.down:
            raise Down
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


async def ask(batches: Batches[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batches.do(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_the_first_goes_at_once_and_the_others_together() -> None:
    work = Work()
    batches = Batches(work, most=3, at_once=1, patience_s=60, shared=Down)
    tasks = await ask(batches, 1)
    tasks += await ask(batches, 2, 3, 4, 5)
    assert work.batches == [[1]]
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert work.batches == [[1], [2, 3, 4], [5]]
    assert not batches.running


async def test_nobody_waits_for_a_slow_batch_while_another_may_run() -> None:
    work = Work()
    batches = Batches(work, most=3, at_once=2, patience_s=0.01, shared=Down)
    tasks = await ask(batches, 1)
    tasks += await ask(batches, 2, 3)
    assert work.batches == [[1]]
    await asyncio.wait_for(work.second.wait(), 5)
    tasks += await ask(batches, 4)
    await asyncio.sleep(0.05)
    assert work.batches == [[1], [2, 3]]
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3], [4]]


async def test_one_that_fails_is_alone_with_its_failure() -> None:
    work = Work()
    batches = Batches(work, most=9, at_once=1, patience_s=60, shared=Down)
    tasks = await ask(batches, 1)
    tasks += await ask(batches, 2, 13, 3)
    work.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [2, 4, 6]
    assert isinstance(answers[2], ValueError)
    assert work.batches == [[1], [2, 13, 3], [2], [13], [3]]


async def test_what_is_everybodys_failure_is_not_tried_again_one_by_one() -> None:
    work = Work()
    work.down = True
    batches = Batches(work, most=9, at_once=1, patience_s=60, shared=Down)
    tasks = await ask(batches, 1)
    tasks += await ask(batches, 2, 3)
    work.gate.set()
    assert all(isinstance(answer, Down) for answer in await asyncio.gather(*tasks, return_exceptions=True))
    assert work.batches == [[1], [2, 3]]


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    work = Work()
    batches = Batches(work, most=9, at_once=1, patience_s=60, shared=Down)
    first, second = await ask(batches, 1, 2)
    first.cancel()
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 4
    await batches.finish()
