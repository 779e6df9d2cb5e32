"""Flights: one call for everybody who wants the same at the same time, and nobody's leaving ends it."""

import asyncio

import pytest

from app.base.flights import Flights


class Call:
    """A call that waits to be let go, and counts how often it was made."""

    def __init__(self) -> None:
        self.made, self.go_on = 0, asyncio.Event()

    async def __call__(self) -> int:
        self.made += 1
        await self.go_on.wait()
        return self.made


async def test_all_who_ask_while_it_flies_share_one_call() -> None:
    flights, call = Flights[str, int](), Call()
    joined = [asyncio.create_task(flights.join("a", call)) for _ in range(100)]
    await asyncio.sleep(0)
    call.go_on.set()
    assert await asyncio.gather(*joined) == [1] * 100
    assert await flights.join("a", call) == 2  # the next one flies anew
    assert flights.flying == {}


async def test_different_keys_fly_apart() -> None:
    flights, call = Flights[str, int](), Call()
    call.go_on.set()
    assert sorted(await asyncio.gather(flights.join("a", call), flights.join("b", call))) == [1, 2]


async def test_a_caller_who_leaves_does_not_end_it_for_the_others() -> None:
    flights, call = Flights[str, int](), Call()
    first, second = (asyncio.create_task(flights.join("a", call)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    call.go_on.set()
    assert (await second, call.made) == (1, 1)


async def test_a_failure_is_everybodys_and_not_the_next_ones() -> None:
    flights = Flights[str, int]()

    async def fails() -> int:
        raise ValueError("no")

    told = await asyncio.gather(*(flights.join("a", fails) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in told] == ["no"] * 3
    call = Call()
    call.go_on.set()
    assert await flights.join("a", call) == 1


@pytest.mark.parametrize("fails", [True, False])
async def test_nobody_needs_to_hear_how_it_ended(fails: bool) -> None:
    """A failure that nobody asked for would be a warning of asyncio, and here an error."""
    flights, ended = Flights[str, int](), asyncio.Event()

    async def call() -> int:
        try:
            await asyncio.sleep(0)
            if fails:
                raise ValueError("no")
            return 1
        finally:
            ended.set()

    alone = asyncio.create_task(flights.join("a", call))
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await ended.wait()
    await asyncio.sleep(0)
    assert flights.flying == {}


async def test_at_the_end_nothing_flies() -> None:
    flights, call = Flights[str, int](), Call()
    left = asyncio.create_task(flights.join("a", call))
    await asyncio.sleep(0)
    await flights.finish()
    assert flights.flying == {}
    with pytest.raises(asyncio.CancelledError):
        await left
