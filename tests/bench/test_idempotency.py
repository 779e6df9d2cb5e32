"""Each way to do a thing once does it once; the red tests of bench/idempotency.py see where that ends."""

import asyncio

import pytest

from app.infra.embedded import Servers
from bench import idempotency
from bench.performers import PERFORMERS, InProgress


class Failed(Exception):
    pass


@pytest.fixture
def url(servers: Servers) -> str:
    """A database of its own: the peers' keys are on nobody's map."""
    return f"{servers.redis_url.partition('?')[0]}?db=9"


async def one() -> bytes:
    return b"one"


async def two() -> bytes:
    return b"two"


async def fails() -> bytes:
    raise Failed


@pytest.mark.parametrize("name", PERFORMERS)
async def test_the_first_reply_is_given_again(url: str, name: str) -> None:
    async with PERFORMERS[name](url, 30) as perform:
        assert [await perform(f"{name}-again", effect) for effect in (one, two, two)] == [b"one"] * 3
        assert await perform(f"{name}-other", two) == b"two"


@pytest.mark.parametrize("name", PERFORMERS)
async def test_who_comes_while_it_runs_is_told_so(url: str, name: str) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        begun.set()
        await end.wait()
        return b"slow"

    async with PERFORMERS[name](url, 30) as perform:
        running = asyncio.ensure_future(perform(f"{name}-slow", slow))
        await begun.wait()
        with pytest.raises(InProgress):
            await perform(f"{name}-slow", two)
        end.set()
        assert await running == b"slow"
        assert await idempotency.insisted(perform, f"{name}-slow", two) == b"slow"


@pytest.mark.parametrize("name", PERFORMERS)
async def test_a_failure_leaves_the_key_free(url: str, name: str) -> None:
    async with PERFORMERS[name](url, 30) as perform:
        with pytest.raises(Failed):
            await perform(f"{name}-fails", fails)
        assert await perform(f"{name}-fails", two) == b"two"


@pytest.mark.parametrize(
    ("done", "faulty"),
    [
        ([("k", b"a", 1), ("k", b"a", 0), ("l", b"b", 1)], False),
        ([("k", b"a", 1), ("k", b"a", 1)], True),
        ([("k", b"a", 1), ("k", b"b", 0)], True),
    ],
    ids=["once", "an effect twice", "another reply"],
)
def test_a_crowd_that_did_it_twice_is_found(done: list[idempotency.Done], faulty: bool) -> None:
    assert bool(idempotency.faults_of_crowd(done)) is faulty


async def test_a_holder_that_comes_too_late_is_found(url: str) -> None:
    tests = idempotency.faults_of_late_reply, idempotency.faults_of_late_failure
    names = "set-nx", "set-nx-token"
    found = await asyncio.gather(*(test(name, url, PERFORMERS[name]) for name in names for test in tests))
    assert [bool(faults) for faults in found] == [True, True, False, False]
