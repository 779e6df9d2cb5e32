"""What a process remembers of bytes from elsewhere: bounded in age, number and size, fetched once at a time."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

import msgspec


class Got(msgspec.Struct, frozen=True):
    """Bytes, and the moment by which they were known to be current; both fit `Copies.clock`."""

    body: bytes
    born_s: float


MOST_FLIGHTS = 3  # of one key at a time

Fetch = Callable[[], Awaitable[Got]]


class Copies:
    """Bytes by key, each served for `age_s` from its birth; callers who miss the same key share one fetch.

    Nobody gets bytes that were born more than `age_s` before the question, nor from before the last `forget`.
    """

    def __init__(
        self, *, age_s: float, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.age_s, self.most, self.most_bytes, self.clock = age_s, most, most_bytes, clock
        self._kept: OrderedDict[str, Got] = OrderedDict()  # the least recently used first
        self._bytes = 0
        self._flights: dict[str, tuple[asyncio.Task[bytes], float]] = {}  # the youngest of each key
        self._in_the_air: Counter[str] = Counter()
        self._forgotten_s = float("-inf")

    def get(self, key: str) -> bytes | None:
        """The copy, if it is young enough."""
        got = self._kept.get(key)
        if got is None:
            return None
        if not self._fresh(got.born_s):
            self._remove(key)
            return None
        self._kept.move_to_end(key)
        return got.body

    async def read(self, key: str, fetch: Fetch) -> bytes:
        """The copy, else what the one fetch for this key gets. A caller that gives up does not end the others' fetch.

        Raises: what `fetch` raises, for everybody who waited for it.
        """
        body = self.get(key)
        if body is not None:
            return body
        # A fetch that began too long ago may have read before a change that this caller must see. When fetches take so
        # long that several are under way, one more would only make all of them slower.
        flight = self._flights.get(key)
        if flight is None or (not self._fresh(flight[1]) and self._in_the_air[key] < MOST_FLIGHTS):
            self._in_the_air[key] += 1
            flight = asyncio.create_task(self._fly(key, fetch)), self.clock()
            self._flights[key] = flight
            flight[0].add_done_callback(lambda task: self._landed(key, task))
        return await asyncio.shield(flight[0])

    def forget(self) -> None:
        """Everything, also what is on its way."""
        self._forgotten_s = self.clock()
        self._kept.clear()
        self._bytes = 0

    async def _fly(self, key: str, fetch: Fetch) -> bytes:
        got = await fetch()
        self.put(key, got)
        return got.body

    def _landed(self, key: str, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            task.exception()  # heard, also when every caller has gone
        self._in_the_air[key] -= 1
        if not self._in_the_air[key]:
            del self._in_the_air[key]
        flight = self._flights.get(key)
        if flight and flight[0] is task:
            del self._flights[key]

    def put(self, key: str, got: Got) -> None:
        """The copy is kept if it is young enough, and newer than the one that is there."""
        there = self._kept.get(key)
        if not self._fresh(got.born_s) or (there and there.born_s >= got.born_s):
            return
        self._remove(key)
        self._kept[key] = got
        self._bytes += len(got.body)
        while len(self._kept) > self.most or self._bytes > self.most_bytes:
            self._remove(next(iter(self._kept)))

    def _fresh(self, born_s: float) -> bool:
        return born_s > self._forgotten_s and self.clock() - born_s <= self.age_s

    def _remove(self, key: str) -> None:
        got = self._kept.pop(key, None)
        if got:
            self._bytes -= len(got.body)
