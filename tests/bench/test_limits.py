"""The red tests of bench/limits.py see the faults that they are there for, and no others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from app.infra.embedded import Servers
from bench import limits
from bench.limiters import LIMITERS, Admit, Quota, Told, per


@asynccontextmanager
async def generous(url: str, quota: Quota) -> AsyncIterator[Admit]:
    async def admit(who: str) -> Told:
        return Told(True)

    yield admit


@pytest.fixture
def url(servers: Servers) -> str:
    """A database of its own: the peers' keys are on nobody's map."""
    return f"{servers.redis_url.partition('?')[0]}?db=9"


async def test_a_limiter_without_limit_is_found(url: str) -> None:
    (fault,) = await limits.faults_of_short(url, generous)
    assert fault.startswith("1024 of 1024 calls passed")


@pytest.mark.parametrize(("name", "faulty"), [("limits", False), ("throttled-py", True)])
async def test_a_bucket_that_its_own_ttl_deletes_is_found(url: str, name: str, faulty: bool) -> None:
    assert bool(await limits.faults_of_short(url, LIMITERS[name])) is faulty


@pytest.mark.parametrize(("admitted", "faulty"), [(15, False), (18, False), (21, False), (13, True), (24, True)])
def test_a_rate_that_loses_or_makes_calls_is_found(admitted: int, faulty: bool) -> None:
    assert bool(limits.faults_of_rate(limits.SLOW, admitted)) is faulty


@pytest.mark.parametrize(("again", "refused"), [(True, 0), (False, limits.WAITS)])
async def test_a_limiter_that_lies_about_the_wait_is_found(again: bool, refused: int) -> None:
    calls = count()

    async def admit(who: str) -> Told:
        return Told(again and next(calls) % 2 == 1, wait_s=0.001)

    assert await limits.waits_refused(admit, "somebody") == refused


@pytest.mark.parametrize("name", LIMITERS)
async def test_every_limiter_admits_its_calls_and_no_more(url: str, name: str) -> None:
    async with LIMITERS[name](url, limits.HOURLY) as admit:
        heard = [await admit(name) for _ in range(103)]
    assert [told.admitted for told in heard] == [True] * 100 + [False] * 3
    assert all(told.wait_s > 1 for told in heard[100:])


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        (Quota(100, 60), ("minute", 100)),
        (Quota(100, 3600), ("hour", 100)),
        (Quota(3, 2), ("second", 1)),
        (Quota(10, 120), ("minute", 5)),
    ],
)
def test_the_nearest_that_litestar_can_say(quota: Quota, said: tuple[str, int]) -> None:
    assert per(quota) == said
