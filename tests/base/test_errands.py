"""Errands: every one is settled, a failed one is named and counted, and none of them harms another."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog
from structlog.testing import LogCapture

from app.base import errands
from app.base.errands import Errands


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(errands, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


async def settled(sent: Errands) -> None:
    while sent.running:
        await asyncio.wait(sent.running)


def five(done: list[int], failing: int, error: BaseException) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    """Five tasks of different length, one of which fails half-way."""

    async def task(n: int) -> None:
        await asyncio.sleep(0.001 * (6 - n))
        if n == failing:
            raise error
        done.append(n)

    return [(f"name-{n}", lambda n=n: task(n)) for n in range(1, 6)]  # type: ignore[misc]


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
async def test_each_of_five_failing_in_turn_leaves_the_other_four_done(logged: LogCapture, failing: int) -> None:
    sent, done = Errands(), list[int]()
    sent.send_all("order-status-update:7", five(done, failing, ValueError("no")), order_id="7", status="shipped")
    await settled(sent)
    assert sorted(done) == [n for n in range(1, 6) if n != failing]
    assert logged.entries == [
        {
            "event": f"task {failing}/5 of order-status-update:7 failed", "log_level": "warning",
            "task": f"name-{failing}", "error": "ValueError('no')", "order_id": "7", "status": "shipped",
        }
    ]  # fmt: skip
    assert (sent.done, sent.failed, sent.refused) == (4, 1, 0)


async def test_a_task_that_fails_before_it_awaits_anything_harms_no_other(logged: LogCapture) -> None:
    def broken() -> Awaitable[object]:
        raise TypeError("not even a coroutine")

    sent, done = Errands(), list[int]()
    sent.send_all("x:1", [("broken", broken), *five(done, 0, ValueError())])
    await settled(sent)
    assert sorted(done) == [1, 2, 3, 4, 5]
    assert [line["event"] for line in logged.entries] == ["task 1/6 of x:1 failed"]


async def test_a_task_that_is_cancelled_from_within_harms_no_other(logged: LogCapture) -> None:
    sent, done = Errands(), list[int]()
    sent.send_all("x:1", five(done, 2, asyncio.CancelledError()))
    await settled(sent)
    assert sorted(done) == [1, 3, 4, 5]
    assert [line["event"] for line in logged.entries] == ["task 2/5 of x:1 cut"]
    assert (sent.done, sent.failed) == (4, 1)


async def test_beyond_the_bound_errands_are_refused_and_counted(logged: LogCapture) -> None:
    sent, gate, ran = Errands(most=3), asyncio.Event(), list[int]()

    async def errand(n: int) -> None:
        await gate.wait()
        ran.append(n)

    sent.send_all("x:1", [("a", lambda: errand(1)), ("b", lambda: errand(2))])
    assert sent.send(errand(3))
    assert not sent.send(errand(4))
    sent.send_all("y:2", [("c", lambda: errand(5))])
    assert [line["event"] for line in logged.entries] == [
        "test_beyond_the_bound_errands_are_refused_and_counted.<locals>.errand refused", "task 1/1 of y:2 refused",
    ]  # fmt: skip
    gate.set()
    await settled(sent)
    assert (sorted(ran), sent.done, sent.failed, sent.refused) == ([1, 2, 3], 3, 0, 2)
    assert sent.send(errand(6))  # there is room again
    await settled(sent)
    assert sorted(ran) == [1, 2, 3, 6]


async def test_the_failure_of_a_single_errand_is_logged_and_counted(logged: LogCapture) -> None:
    async def errand() -> None:
        raise ValueError("no")

    sent = Errands()
    sent.send(errand())
    await settled(sent)
    assert (sent.done, sent.failed) == (0, 1)
    assert logged.entries[0]["error"] == "ValueError('no')"


async def test_at_the_end_what_is_quick_is_done_and_what_hangs_is_cut(
    logged: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "GOODBYE_S", 0.2)
    sent, done = Errands(), list[str]()

    async def quick() -> None:
        await asyncio.sleep(0.01)
        done.append("quick")

    sent.send_all("x:1", [("hangs", asyncio.Event().wait), ("quick", quick)])
    await sent.finish()
    assert (done, sent.done, sent.failed, sent.running) == (["quick"], 1, 1, set())
    assert [line["event"] for line in logged.entries] == ["task 1/2 of x:1 cut"]
