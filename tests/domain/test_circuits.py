"""Circuits as callers meet them: two processes' worth of them on one Redis, and one alone without."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import structlog
from structlog.testing import capture_logs

from app.base.circuit import Rules
from app.base.errands import Errands
from app.domain import circuits
from app.domain.circuits import Circuits
from app.errors import NotFound, PostgresDown, ProviderDown, ProviderRefused
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.lua.measure import commands_run

RULES = Rules(first_ms=400, most_ms=400)  # a cool-down that a test can wait for
NO_REDIS = "redis://127.0.0.1:9"


@pytest.fixture
async def pair(redis: Pipe, servers: Servers) -> AsyncIterator[tuple[Circuits, Circuits]]:
    """The circuits of two processes."""
    async with aclosing(Pipe(servers.redis_url, timeout_ms=10_000)) as other:
        yield Circuits(redis, RULES, lease_ms=5000), Circuits(other, RULES, lease_ms=5000)


async def call(known: Circuits, error: BaseException | None = None, name: str = "gate") -> None:
    async with known.calling(name):
        if error:
            raise error


async def fails(known: Circuits, times: int = 1, error: Exception | None = None) -> None:
    """So many calls reach the peer and fail."""
    error = error or ProviderDown("no answer")
    for _ in range(times):
        with pytest.raises(type(error)) as caught:
            await call(known, error)
        assert caught.value is error


async def refused(known: Circuits) -> ProviderDown:
    """The call is not made."""
    with pytest.raises(ProviderDown, match="left alone") as caught:
        async with known.calling("gate"):
            pytest.fail("the peer was called")
    return caught.value


async def state(known: Circuits) -> str:
    return {one.name: one.state for one in await known.list()}["gate"]


async def probed(known: Circuits, error: Exception | None = None) -> None:
    """The next call that gets through, which is the probe; until then all are refused."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await call(known, error)
            except ProviderDown as refusal:
                if refusal is error:
                    return None
                await asyncio.sleep(0.02)


# ---- what counts


async def test_what_one_process_counts_closes_the_other_one_out(pair: tuple[Circuits, Circuits]) -> None:
    one, other = pair
    await fails(one, 3)
    await fails(other, 2)
    assert (await refused(other)).retry_after_s == 1
    one._beliefs.clear()  # a second has passed
    await refused(one)
    assert await state(one) == await state(other) == "open"


@pytest.mark.parametrize(
    "error", [ProviderRefused("no such invoice"), NotFound("no bot"), PostgresDown("away"), ValueError("a defect")]
)
async def test_what_is_no_fault_of_the_peer_does_not_count(pair: tuple[Circuits, Circuits], error: Exception) -> None:
    await fails(pair[0], 20, error)
    assert (await pair[0].list())[0].failures == 0
    await call(pair[0])


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), ProviderDown("429", retry_after_s=7)])
async def test_what_is_counts(pair: tuple[Circuits, Circuits], error: Exception) -> None:
    await fails(pair[0], 5, error)
    await refused(pair[0])


async def test_a_cancelled_call_does_not_count(pair: tuple[Circuits, Circuits]) -> None:
    for _ in range(20):
        with pytest.raises(asyncio.CancelledError):
            await call(pair[0], asyncio.CancelledError())
    assert (await pair[0].list())[0].failures == 0


async def test_a_busy_peer_that_fails_now_and_then_is_called_on(pair: tuple[Circuits, Circuits]) -> None:
    for _ in range(30):
        await fails(pair[0])
        await call(pair[0])
        await call(pair[0])
    assert await state(pair[0]) == "closed"
    await fails(pair[0], 3)  # and as soon as it fails hardly less often than not, it is left alone
    await refused(pair[0])


# ---- half-open


async def test_one_probe_of_all_processes_closes_it_for_all(pair: tuple[Circuits, Circuits]) -> None:
    await fails(pair[0], 5)
    entered, leave, made = asyncio.Event(), asyncio.Event(), 0

    async def caller(known: Circuits) -> bool:
        nonlocal made
        known._beliefs.clear()
        try:
            async with known.calling("gate"):
                made += 1
                entered.set()
                await leave.wait()
        except ProviderDown:
            return False
        return True

    async with asyncio.timeout(10):
        tasks = [asyncio.create_task(caller(pair[0]))]
        while not entered.is_set():
            await asyncio.wait(tasks[-1:], timeout=0.02)
            tasks += [asyncio.create_task(caller(known)) for known in pair for _ in range(20)]
        assert await state(pair[1]) == "half_open"
        await asyncio.gather(*(caller(known) for known in pair for _ in range(20)))
        leave.set()
        assert sum(await asyncio.gather(*tasks)) == made == 1
    for known in pair:
        known._beliefs.clear()  # a second has passed
    await asyncio.gather(*(call(known) for known in pair for _ in range(20)))
    assert await state(pair[0]) == "closed"


async def test_a_probe_that_fails_opens_it_again(pair: tuple[Circuits, Circuits]) -> None:
    await fails(pair[0], 5)
    await probed(pair[0], ProviderDown("still"))
    await refused(pair[0])
    assert (await pair[0].list())[0].failures == 6


async def test_a_probe_that_is_refused_closes_it(pair: tuple[Circuits, Circuits]) -> None:
    await fails(pair[0], 5)
    await probed(pair[0], ProviderRefused("an answer is an answer"))
    await call(pair[0])


async def test_a_probe_that_is_cancelled_lets_another_one_try(redis: Pipe) -> None:
    errands = Errands()
    known = Circuits(redis, RULES, lease_ms=60_000, errands=errands)
    await fails(known, 5)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(_cancelled_probe(known), 10)
    await errands.finish()
    await probed(known)
    assert await state(known) == "closed"


async def _cancelled_probe(known: Circuits) -> None:
    while True:
        try:
            await call(known, asyncio.CancelledError())
        except ProviderDown:
            await asyncio.sleep(0.02)


async def test_a_failure_that_comes_late_does_not_open_it_again(pair: tuple[Circuits, Circuits]) -> None:
    end = asyncio.Event()

    async def slow() -> None:
        async with pair[1].calling("gate"):
            await end.wait()
            raise ProviderDown("too late")

    tasks = [asyncio.create_task(slow()) for _ in range(20)]
    await asyncio.sleep(0)
    await call(pair[1])
    await fails(pair[0], 5)
    await probed(pair[0])
    end.set()
    assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {ProviderDown}
    assert await state(pair[0]) == "closed"
    assert (await pair[0].list())[0].failures == 0


# ---- cost


async def test_calls_that_go_well_cost_a_round_trip_a_second(redis: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    known, now_s = Circuits(redis, RULES, lease_ms=5000), 1000.0
    monkeypatch.setattr(circuits, "monotonic", lambda: now_s)

    async def many() -> None:
        for _ in range(500):
            await call(known)

    first = await commands_run(redis, many())
    assert first == 2  # TIME and HMGET of one `circuits/admit`
    assert await commands_run(redis, many()) == 0
    now_s += 1.01
    assert await commands_run(redis, many()) == first


async def test_calls_that_are_refused_cost_none(redis: Pipe) -> None:
    known = Circuits(redis, Rules(first_ms=60_000), lease_ms=5000)
    await fails(known, 5)

    async def many() -> None:
        for _ in range(100):
            await refused(known)

    assert await commands_run(redis, many()) == 0


# ---- without Redis


async def test_without_redis_each_process_counts_for_itself() -> None:
    async with aclosing(Pipe(NO_REDIS, timeout_ms=50)) as away:
        one, other = Circuits(away, RULES, lease_ms=5000), Circuits(away, RULES, lease_ms=5000)
        await call(one)
        await fails(one, 5)
        await refused(one)
        await call(other)
        assert await state(one) == "open"
        await probed(one)
        assert await state(one) == "closed"


async def test_when_redis_goes_the_peer_is_called_on(redis: Pipe) -> None:
    known = Circuits(redis, Rules(first_ms=60_000), lease_ms=5000)
    await fails(known, 5)
    await refused(known)
    async with aclosing(Pipe(NO_REDIS, timeout_ms=50)) as away:
        known.redis = away
        known._beliefs.clear()  # a second has passed
        await call(known)
        await fails(known, 5)
        await refused(known)


async def test_a_failure_that_redis_is_not_there_to_hear_of_is_counted_here(redis: Pipe) -> None:
    known = Circuits(redis, RULES, lease_ms=5000)
    await call(known)
    async with aclosing(Pipe(NO_REDIS, timeout_ms=50)) as away:
        known.redis = away
        await fails(known, 5)
        known._beliefs.clear()
        await refused(known)


# ---- seen


async def test_each_change_is_logged_once(pair: tuple[Circuits, Circuits], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = structlog.wrap_logger(None, wrapper_class=structlog.BoundLogger)  # whatever level others have set
    monkeypatch.setattr(circuits, "log", plain)
    with capture_logs() as said:
        await fails(pair[0], 5)
        await refused(pair[0])
        await refused(pair[1])
        await probed(pair[0])
    assert [(line["event"], line["circuit"]) for line in said] == [
        ("circuit open", "gate"), ("circuit half-open, one call tries", "gate"), ("circuit closed", "gate"),
    ]  # fmt: skip


async def test_the_list_has_every_peer_before_anybody_was_called(redis: Pipe) -> None:
    known = Circuits(redis, RULES, names=["cryptopay"], lease_ms=5000)
    assert [(one.name, one.state) for one in await known.list()] == [
        ("cryptopay", "closed"), ("mail", "closed"), ("model", "closed"), ("telegram", "closed"),
        ("whatsapp", "closed"),
    ]  # fmt: skip
