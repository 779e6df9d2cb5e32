"""Concurrent reads are all settled, fail each for itself, and give the same side by side and one after another."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import LogCapture

from app.base import together as module
from app.base.together import REQUIRED, Read, together

calm = settings(deadline=None)  # the machine may be busy
both = pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "in turn"])


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


def gives(value: Any, after: asyncio.Event | None = None) -> Callable[[], Awaitable[Any]]:
    async def read() -> Any:
        if after:
            await after.wait()
        await asyncio.sleep(0)
        return value

    return read


def fails(error: Exception, turns: int = 1) -> Callable[[], Awaitable[Any]]:
    async def read() -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise error

    return read


@both
async def test_results_come_in_the_order_of_the_reads(parallel: bool) -> None:
    assert await together(Read("a", gives(1)), Read("b", gives("2")), parallel=parallel) == (1, "2")


@both
async def test_a_failed_read_yields_its_default_and_is_logged_with_its_name(parallel: bool, logged: LogCapture) -> None:
    found = await together(
        Read("a", gives(1)), Read("b", fails(ValueError("no")), 0), Read("c", fails(OSError()), None), parallel=parallel
    )
    assert found == (1, 0, None)
    assert [(line["read"], line["error"]) for line in logged.entries] == [("b", "ValueError('no')"), ("c", "OSError()")]


@both
async def test_a_read_that_is_not_wanted_is_not_called(parallel: bool, logged: LogCapture) -> None:
    found = await together(Read("a", fails(ValueError()), 7, when=False), Read("b", gives(2)), parallel=parallel)
    assert (found, logged.entries) == ((7, 2), [])


def test_a_conditional_read_needs_a_default() -> None:
    with pytest.raises(ValueError, match="'a' is conditional"):
        Read("a", gives(1), when=False)


@both
async def test_every_read_is_settled_before_a_required_failure_is_raised(parallel: bool) -> None:
    ended = []

    async def slow() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append("slow")

    with pytest.raises(ValueError, match="first"):
        await together(
            Read("a", slow, None),
            Read("b", fails(ValueError("first"), 3)),
            Read("c", slow),
            Read("d", fails(OSError())),
            parallel=parallel,
        )
    assert ended == ["slow", "slow"]


async def test_parallel_reads_run_side_by_side() -> None:
    meet = asyncio.Barrier(3)

    async def read() -> bool:
        await meet.wait()
        return True

    async with asyncio.timeout(30):
        assert await together(Read("a", read), Read("b", read), Read("c", read)) == (True, True, True)


async def test_reads_in_turn_never_overlap() -> None:
    running, most = 0, 0

    async def read() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await together(Read("a", read), Read("b", read), Read("c", read), parallel=False)
    assert most == 1


@both
async def test_cancelling_cancels_every_read(parallel: bool) -> None:
    cancelled = []

    def hangs(name: str) -> Callable[[], Awaitable[None]]:
        async def read() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(name)
                raise

        return read

    task = asyncio.create_task(together(Read("a", hangs("a"), None), Read("b", hangs("b"), None), parallel=parallel))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == (["a", "b"] if parallel else ["a"])


reads = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([REQUIRED, None, "default"])), min_size=1, max_size=5
)


@calm
@given(reads)
def test_in_turn_and_side_by_side_are_the_same(plan: list[tuple[bool, bool, Any]]) -> None:
    def build() -> list[Read[Any]]:
        return [
            Read(str(n), fails(ValueError(n)) if broken else gives(n), default, when=wanted or default is REQUIRED)
            for n, (broken, wanted, default) in enumerate(plan)
        ]

    def told(parallel: bool) -> tuple[Any, list[Any]]:
        capture = LogCapture()
        before, module.log = module.log, structlog.wrap_logger(None, processors=[capture])
        try:
            outcome: Any = asyncio.run(together(*build(), parallel=parallel))
        except ValueError as error:
            outcome = repr(error)
        finally:
            module.log = before
        return outcome, capture.entries

    assert told(True) == told(False)
