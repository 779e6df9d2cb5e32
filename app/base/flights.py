"""Flights: of equal calls that would run at the same time one is made, and everybody who asked awaits it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """The calls of one process that are under way, by what they are for."""

    def __init__(self) -> None:
        self.flying: dict[K, asyncio.Task[T]] = {}

    async def join(self, key: K, call: Callable[[], Awaitable[T]]) -> T:
        """What the call for this key gives, begun now or by an earlier caller; one that is cancelled leaves it flying.

        Raises: what the call raises, for everybody who joined.
        """
        task = self.flying.get(key)
        if task is None:
            task = self.flying[key] = asyncio.create_task(_made(call))
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Nothing flies any more: those who wanted it have gone."""
        for task in tuple(self.flying.values()):
            task.cancel()
        await asyncio.gather(*self.flying.values(), return_exceptions=True)

    def _landed(self, key: K, task: "asyncio.Task[T]") -> None:
        del self.flying[key]
        if not task.cancelled():
            task.exception()  # heard, also when every caller has left


async def _made(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
