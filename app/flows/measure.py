"""Measure: what this process counted, and what Postgres and Redis know, whichever of the two answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from app.base import tally
from app.base.flights import Flights
from app.base.tally import Metric, Reading
from app.base.together import Read, together
from app.domain import circuits, figures
from app.domain.figures import Figure
from app.infra.metrics import Page
from app.shop import Shop

WAIT_S = 0.7  # for each part, side by side: who scrapes a broken shop still has its answer within a second
GOODBYE_S = 0.2

# By figure: the metric, what one of its units is worth, and what stands after the figure's own label.
METRICS: dict[str, tuple[Metric, float, tuple[str, ...]]] = {
    "owed": (tally.OUTBOX, 1, ()),
    "oldest": (tally.OUTBOX_AGE, 0.001, ()),
    "dead": (tally.DEAD, 1, ()),
    "undelivered": (tally.UNDELIVERED, 1, ()),
    "undelivered_oldest": (tally.UNDELIVERED_AGE, 0.001, ()),
    "to_poll": (tally.TO_POLL, 1, ()),
    "to_poll_oldest": (tally.TO_POLL_AGE, 0.001, ()),
    "review": (tally.REVIEW, 1, ()),
    "took": (tally.LATELY, 1, ()),
    "took_half": (tally.LAG, 0.001, ("0.5",)),
    "took_most": (tally.LAG, 0.001, ("0.95",)),
}

T = TypeVar("T")


class Measures:
    """The page of one process; what several ask for at once is read once."""

    def __init__(self, shop: Shop, process: str) -> None:
        self.shop, self.page = shop, Page(process)
        self._flights: Flights[str, Any] = Flights()

    async def own(self) -> bytes:
        """Of this process alone."""
        return await self.page.text(self._own())

    async def all(self, *more: Reading) -> bytes:
        """Of this process, with what it adds, and of the whole shop; a part that does not answer is told as down."""
        pg, redis = self.shop.deps.pg, self.shop.deps.redis
        found, pong, states = await together(
            Read("figures", lambda: self._soon("figures", lambda: figures.read(pg)), None),
            Read("ping", lambda: self._soon("ping", lambda: redis.command("PING")), None),
            Read("circuits", lambda: self._soon("circuits", self.shop.circuits.list), None),
        )
        up = [
            tally.UP.reading(found is not None, "postgres"),
            tally.UP.reading(pong is not None, "redis"),
        ]
        return await self.page.text([*self._own(), *more, *up, *of_figures(found or ()), *of_circuits(states or ())])

    async def aclose(self) -> None:
        with suppress(TimeoutError):  # what hangs is cut with its connection
            async with asyncio.timeout(GOODBYE_S):
                await self._flights.finish()

    async def _soon(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Whoever waits too long leaves it to the next, so that a Postgres that hangs takes one connection from us."""
        async with asyncio.timeout(WAIT_S):
            given: T = await self._flights.join(name, call)
            return given

    def _own(self) -> Iterator[Reading]:
        errands = self.shop.errands
        yield tally.INFO.reading(1, *self.page.info)
        for outcome in ("done", "failed", "refused"):
            yield tally.ERRANDS.reading(getattr(errands, outcome), outcome)
        yield tally.ERRANDS_RUNNING.reading(len(errands.running))


def of_figures(found: Sequence[Figure]) -> Iterator[Reading]:
    for figure in found:
        metric, worth, after = METRICS[figure.figure]
        yield metric.reading(figure.value * worth, *((figure.of,) if figure.of else ()), *after)


def of_circuits(states: Sequence[circuits.State]) -> Iterator[Reading]:
    for circuit in states:
        for state in circuits.WORDS:
            yield tally.CIRCUIT.reading(circuit.state == state, circuit.name, state)
