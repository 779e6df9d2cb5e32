"""A step that may end although its caller is cut: half done, it would be done again, or be lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

GOODBYE_S, LAST_S = 1.0, 0.3  # that it gets when a worker stops, which waits longer for what it has cut; to clean up

T = TypeVar("T")


async def to_the_end(step: Coroutine[Any, Any, T]) -> T:
    """What the step gives. Who is cancelled meanwhile is so when the step has ended, or was cut at `GOODBYE_S`."""
    task = asyncio.create_task(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=GOODBYE_S)
        task.cancel()
        await asyncio.wait({task}, timeout=LAST_S)
        raise
