"""Copies: never too old, never too many, and one fetch for everybody who waits for the same key."""

import asyncio
import gc
import random

import pytest

from app.base.copies import Copies, Got


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Source:
    """What is fetched: a version that changes, given out when the test says so."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.version, self.fetches = clock, 1, 0
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def __call__(self) -> Got:
        self.fetches += 1
        self.asked.set()
        got = Got(str(self.version).encode(), self.clock())
        await self.may_answer.wait()
        return got


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def copies(clock: Clock) -> Copies:
    return Copies(age_s=0.5, most=3, most_bytes=100, clock=clock)


@pytest.fixture
def source(clock: Clock) -> Source:
    return Source(clock)


async def begun(copies: Copies, source: Source, key: str = "a") -> "asyncio.Task[bytes]":
    """A caller whose fetch is on its way."""
    source.asked.clear()
    task = asyncio.create_task(copies.read(key, source))
    await source.asked.wait()
    return task


async def test_a_copy_is_served_until_it_is_too_old(copies: Copies, clock: Clock, source: Source) -> None:
    assert await copies.read("a", source) == b"1"
    source.version = 2
    clock.now_s += 0.5
    assert (copies.get("a"), await copies.read("a", source)) == (b"1", b"1")
    clock.now_s += 0.001
    assert copies.get("a") is None
    assert await copies.read("a", source) == b"2"
    assert source.fetches == 2


async def test_its_age_counts_from_its_birth_and_not_from_its_arrival(
    copies: Copies, clock: Clock, source: Source
) -> None:
    source.may_answer.clear()
    caller = await begun(copies, source)
    clock.now_s += 0.4
    source.may_answer.set()
    assert await caller == b"1"
    clock.now_s += 0.2
    assert copies.get("a") is None


async def test_callers_who_miss_together_share_one_fetch(copies: Copies, source: Source) -> None:
    answers = await asyncio.gather(*(copies.read("a", source) for _ in range(500)), copies.read("b", source))
    assert (set(answers), source.fetches) == ({b"1"}, 2)


async def test_nobody_joins_a_fetch_that_began_too_long_ago(copies: Copies, clock: Clock, source: Source) -> None:
    source.may_answer.clear()
    early = await begun(copies, source)
    clock.now_s += 0.6
    source.version = 2
    late = await begun(copies, source)
    source.may_answer.set()
    assert (await early, await late, copies.get("a")) == (b"1", b"2", b"2")


async def test_an_older_answer_that_comes_later_does_not_replace_a_newer_one(copies: Copies, clock: Clock) -> None:
    copies.put("a", Got(b"new", clock()))
    copies.put("a", Got(b"old", clock() - 0.1))
    assert copies.get("a") == b"new"


async def test_what_is_forgotten_is_fetched_anew_and_what_was_on_its_way_is_not_kept(
    copies: Copies, clock: Clock, source: Source
) -> None:
    copies.put("b", Got(b"1", clock()))
    source.may_answer.clear()
    early = await begun(copies, source)
    clock.now_s += 0.1
    copies.forget()
    clock.now_s += 0.1
    source.version = 2
    late = await begun(copies, source)
    source.may_answer.set()
    assert (await early, await late, copies.get("a"), copies.get("b")) == (b"1", b"2", b"2", None)


async def test_a_caller_that_gives_up_does_not_end_the_fetch_of_the_others(copies: Copies, source: Source) -> None:
    source.may_answer.clear()
    first = await begun(copies, source)
    second = asyncio.create_task(copies.read("a", source))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    source.may_answer.set()
    assert (await second, source.fetches) == (b"1", 1)


async def test_a_failed_fetch_fails_everybody_once_and_the_next_one_fetches(copies: Copies, source: Source) -> None:
    async def fail() -> Got:
        raise LookupError("gone")

    failed = await asyncio.gather(*(copies.read("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in failed] == [LookupError] * 3
    assert await copies.read("a", source) == b"1"


async def test_a_failure_that_nobody_waits_for_is_not_reported_as_unheard(copies: Copies) -> None:
    may_fail = asyncio.Event()

    async def fail() -> Got:
        await may_fail.wait()
        raise LookupError("gone")

    caller = asyncio.create_task(copies.read("a", fail))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    flight = copies._flights["a"][0]
    may_fail.set()
    await asyncio.wait([flight])
    del flight
    gc.collect()
    assert (copies._flights, unheard) == ({}, [])


async def test_the_least_used_go_first_when_there_are_too_many(copies: Copies, clock: Clock) -> None:
    for key in "abc":
        copies.put(key, Got(b"x", clock()))
    copies.get("a")
    copies.put("d", Got(b"x", clock()))
    assert [key for key in "abcd" if copies.get(key)] == ["a", "c", "d"]


async def test_the_bytes_are_bounded_whatever_comes_and_goes(copies: Copies, clock: Clock) -> None:
    dice = random.Random(1)
    for number in range(2000):
        copies.put(dice.choice("abcdef"), Got(b"x" * dice.randint(0, 120), clock()))
        clock.now_s += dice.choice((0, 0, 0.01, 0.3))
        copies.get(dice.choice("abcdef"))
        if number % 100 == 0:
            copies.forget()
        kept = [got.body for got in copies._kept.values()]
        assert len(kept) <= 3
        assert sum(map(len, kept)) == copies._bytes <= 100


async def test_nothing_is_a_copy_too(copies: Copies, clock: Clock) -> None:
    copies.put("a", Got(b"", clock()))
    assert copies.get("a") == b""
