"""Errands: what nobody waits for and nobody misses when it is lost, kept alive until it is done."""

import asyncio
from collections.abc import Coroutine
from typing import Any

GOODBYE_S = 2.0


class Errands:
    """Tasks of one process that run beside its work; the event loop alone would let them be collected."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()

    def send(self, errand: Coroutine[Any, Any, None]) -> None:
        """The errand runs from now on; it must handle its own failures."""
        task = asyncio.create_task(errand)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def finish(self) -> None:
        """What still runs had `GOODBYE_S` to end, and is cancelled otherwise."""
        if self.running:
            _, late = await asyncio.wait(self.running, timeout=GOODBYE_S)
            for task in late:
                task.cancel()
