"""A step gets a moment to end when its caller is cut, and never outlives it by more."""

import asyncio

import pytest
from structlog.testing import capture_logs

from app.base import ending
from app.base.ending import to_the_end
from workers.main import CUT_S

TIMES_S = ending.GOODBYE_S + ending.LAST_S

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GOODBYE_S", 10)
    monkeypatch.setattr(ending, "LAST_S", 10)


class Step:
    """Begins, waits to be let go, and ends or fails."""

    def __init__(self, error: Exception | None = None, cleanup: bool = False) -> None:
        self.error, self.cleanup = error, cleanup
        self.began, self.go, self.cleaned = asyncio.Event(), asyncio.Event(), False
        self.ended = "not yet"

    async def __call__(self) -> str:
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended = "cut"
            if self.cleanup:
                await asyncio.sleep(0.01)
                self.cleaned = True
            raise
        self.ended = "ended"
        if self.error:
            raise self.error
        return "done"


async def begun(step: Step) -> "asyncio.Task[str]":
    task = asyncio.create_task(to_the_end(step()))
    await step.began.wait()
    return task


async def test_it_gives_and_raises_what_the_step_does() -> None:
    for error in (None, ValueError("no")):
        step = Step(error)
        task = await begun(step)
        step.go.set()
        if error:
            with pytest.raises(ValueError, match="no"):
                await task
        else:
            assert await task == "done"


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_a_cut_caller_waits_for_the_step_whose_failure_is_told(error: Exception | None) -> None:
    step = Step(error)
    task = await begun(step)
    with capture_logs() as logs:
        task.cancel()
        await asyncio.sleep(0)
        step.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert step.ended == "ended"
    assert [entry["error"] for entry in logs] == ([repr(error)] if error else [])


async def test_a_step_that_does_not_end_is_cut_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GOODBYE_S", 0.01)
    step = Step(cleanup=True)
    task = await begun(step)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (step.ended, step.cleaned) == ("cut", True)


async def test_who_is_cut_again_leaves_no_step_behind() -> None:
    step = Step()
    task = await begun(step)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert step.ended == "cut"


def test_it_is_over_before_a_worker_stops_waiting() -> None:
    assert TIMES_S < CUT_S
