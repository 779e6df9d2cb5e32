"""Turns: one at a time for a key, in the order of coming, and nothing is kept of lines that are empty."""

import asyncio

import pytest

from app.base.turns import Turns


async def test_those_of_one_key_go_one_after_another_in_the_order_of_coming() -> None:
    turns, told = Turns(), []

    async def go(name: int) -> None:
        async with turns.of("key"):
            told.append(name)
            await asyncio.sleep(0)
            told.append(name)

    await asyncio.gather(*(go(name) for name in range(5)))
    assert told == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


async def test_other_keys_do_not_wait() -> None:
    turns = Turns()
    async with turns.of("key"), turns.of(("another", 1)):
        assert len(turns.lines) == 2
    assert len(turns.lines) == 0


async def test_whoever_fails_or_leaves_the_line_holds_up_nobody() -> None:
    turns, gate = Turns(), asyncio.Event()

    async def go() -> None:
        async with turns.of("key"):
            await gate.wait()
            raise ValueError

    crowd = [asyncio.create_task(go()) for _ in range(3)]
    await asyncio.sleep(0)
    crowd[1].cancel()
    gate.set()
    done = await asyncio.gather(*crowd, return_exceptions=True)
    assert [type(one) for one in done] == [ValueError, asyncio.CancelledError, ValueError]
    async with asyncio.timeout(30), turns.of("key"):
        pass


@pytest.mark.parametrize("number", [1, 1000])
async def test_a_line_is_forgotten_when_it_is_empty(number: int) -> None:
    turns = Turns()

    async def go(key: int) -> None:
        async with turns.of(key):
            await asyncio.sleep(0)

    await asyncio.gather(*(go(n % 10) for n in range(number)))
    assert len(turns.lines) == 0
