"""Batches: calls that come while one is under way are done together by the next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[list[T]], Awaitable[list[R]]]


class Batches(Generic[T, R]):
    """Runs `work` on what has gathered: at once when nothing runs, else with the others when that is done.

    Where `work` is far away that could be long, so nobody waits for longer than `patience_s` while fewer than `at_once`
    batches run side by side. At most `most` items make a batch.

    A batch that fails with anything but one of `shared` is done again one by one, so that one bad item is alone with
    its failure.
    """

    def __init__(
        self, work: Work[T, R], *, most: int, at_once: int, patience_s: float, shared: type[Exception]
    ) -> None:
        self.work, self.most, self.at_once, self.patience_s, self.shared = work, most, at_once, patience_s, shared
        self.impatience: asyncio.TimerHandle | None = None
        self.waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self.running: set[asyncio.Task[None]] = set()

    async def do(self, item: T) -> R:
        """What `work` answers for this item. Raises: what it raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self.waiting.append((item, answer))
        if not self.running:
            self._start()
        elif self.impatience is None:
            self.impatience = loop.call_later(self.patience_s, self._start)
        return await answer

    async def finish(self) -> None:
        """Everything that was begun is answered."""
        while self.running:
            await asyncio.gather(*self.running)

    def _start(self) -> None:
        self.impatience = None
        if self.waiting and len(self.running) < self.at_once:
            task = asyncio.create_task(self._run())
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _run(self) -> None:
        while self.waiting:
            batch = [self.waiting.popleft() for _ in range(min(self.most, len(self.waiting)))]
            try:
                answers = await self.work([item for item, _ in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(answers)} answers for {len(batch)} items")
            except Exception as error:
                if len(batch) == 1 or isinstance(error, self.shared):
                    _refuse(batch, error)
                else:
                    await asyncio.gather(*(self._alone(item, answer) for item, answer in batch))
                continue
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():  # its caller may be gone
                    answer.set_result(found)

    async def _alone(self, item: T, answer: "asyncio.Future[R]") -> None:
        try:
            (found,) = await self.work([item])
        except Exception as error:
            _refuse([(item, answer)], error)
            return
        if not answer.done():
            answer.set_result(found)


def _refuse(batch: "list[tuple[T, asyncio.Future[R]]]", error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
