"""Errands: what nobody waits for and nobody misses when it is lost, kept alive until it is done.

The best-effort tier. What must happen is a row of the outbox instead (docs/jobs.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

log = structlog.get_logger(__name__)

GOODBYE_S = 2.0
MOST = 1000  # at a time, in one process; what a crowd sends beyond that is not worth the memory

Task = tuple[str, Callable[[], Awaitable[object]]]


class Errands:
    """Tasks of one process that run beside its work; the event loop alone would let them be collected."""

    def __init__(self, most: int = MOST) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self.done = self.failed = self.refused = 0  # since the start
        self._most = most

    def send(self, errand: Coroutine[Any, Any, None]) -> bool:
        """The errand runs from now on; False: too many do already. A failure that it lets pass is logged."""
        taken = self._start(getattr(errand, "__qualname__", "errand"), lambda: errand)
        if not taken:
            errand.close()
        return taken

    def send_all(self, name: str, tasks: Sequence[Task], **facts: object) -> None:
        """Every task runs from now on, beside the others and whatever becomes of them.

        A failure is logged as `task 2/5 of <name>`, with the task's own name and the facts. Nothing is raised.
        """
        for n, (task, call) in enumerate(tasks, 1):
            self._start(f"task {n}/{len(tasks)} of {name}", call, task=task, **facts)

    async def settle_all(self, name: str, tasks: Sequence[Task], **facts: object) -> list[Exception]:
        """The same, waited for: every task has ended; what failed, in the order of the tasks."""
        ended = await asyncio.gather(*(
            self._settle(f"task {n}/{len(tasks)} of {name}", call, {"task": task, **facts})
            for n, (task, call) in enumerate(tasks, 1)
        ))  # fmt: skip
        return [error for error in ended if error is not None]

    async def finish(self) -> None:
        """What still runs had `GOODBYE_S` to end, and is cancelled otherwise."""
        if self.running:
            _, late = await asyncio.wait(self.running, timeout=GOODBYE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=GOODBYE_S / 10)

    def _start(self, what: str, call: Callable[[], Awaitable[object]], **facts: object) -> bool:
        if len(self.running) >= self._most:
            self.refused += 1
            log.warning(f"{what} refused", running=len(self.running), **facts)
            return False
        task = asyncio.create_task(self._settled(what, call, facts))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return True

    async def _settled(self, what: str, call: Callable[[], Awaitable[object]], facts: dict[str, object]) -> None:
        await self._settle(what, call, facts)

    async def _settle(
        self, what: str, call: Callable[[], Awaitable[object]], facts: dict[str, object]
    ) -> Exception | None:
        try:
            await call()
        except asyncio.CancelledError:
            self.failed += 1
            log.warning(f"{what} cut", **facts)
            raise
        except Exception as error:  # every failure is settled here, by design
            self.failed += 1
            log.warning(f"{what} failed", error=repr(error), **facts)
            return error
        self.done += 1
        return None
