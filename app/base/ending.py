"""A step that may end although its caller is cut: half done, it would be done again, or be lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

# What the step gets to end, and then to clean up: together less than a worker waits for what it has cut.
GOODBYE_S, LAST_S = 0.6, 0.2

T = TypeVar("T")


async def to_the_end(step: Coroutine[Any, Any, T]) -> T:
    """What the step gives. Who is cancelled meanwhile is so when the step has ended, or was cut at `GOODBYE_S`.

    Who is cancelled again is so at once, and the step with it.
    """
    task = asyncio.create_task(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({task}, timeout=GOODBYE_S)
        finally:
            task.cancel()
        await asyncio.wait({task}, timeout=LAST_S)
        if task.done() and not task.cancelled() and (error := task.exception()):
            log.warning("what was cut has failed", error=repr(error))
        raise
