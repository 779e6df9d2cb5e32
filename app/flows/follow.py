"""Follow: a user's events go to every stream that is open here, as they happen, without a gap or a repeat.

A reader stands at an entry. A newer one that names it as the entry before is handed on at once; anything else means
that something was missed, and the reader goes on from Redis until it has caught up. So what is told here may be late,
doubled or lost on its way, and a connection to Redis may break at any moment.
"""

import asyncio
import resource
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from app.base import clock, keys
from app.domain import events
from app.domain.events import Reset, Rest
from app.errors import Busy, RedisDown
from app.infra.listener import Listener
from app.infra.lua import Redis
from app.infra.secrets import Session

PAGE = 100  # events that are read from Redis at a time
MOST_WAITING = 256  # events that wait here for one reader; those beyond are read from Redis when their turn comes
MOST_OF_USER = 6  # streams in one process
MOST = 5000
BUSY_S = 10
HEARTBEAT_S = 15.0
RETRY_S = 1.0  # between looks at a Redis that is out
HEARTBEAT = b":\n\n"


def framed(name: bytes, event: bytes) -> bytes:
    """An event as it goes over the wire; JSON has no line breaks."""
    return b"id: %b\ndata: %b\n\n" % (name, event)


def uncut() -> None:
    """Nothing is under way."""


class Reader:
    """One open stream: where it stands, and what waits here to be sent."""

    def __init__(self, redis: Redis, session: Session) -> None:
        self.ended = ""  # why
        self.cut: Callable[[], None] = uncut  # a send that is under way ends soon
        self._redis, self._session = redis, session
        self._name = b""  # of the last entry that was sent or waits
        self._waiting: deque[bytes] = deque()
        self._behind = True  # what comes next is in Redis, not here
        self._missed = False  # something, since Redis was last asked
        self._wake = asyncio.Event()

    async def begin(self, last_id: bytes) -> bytes:
        """What a client gets first: what it missed since `last_id`, or from where it goes on. Raises: RedisDown."""
        if not last_id:
            return await self._from_now(b"ready")
        self._name = last_id
        return await self._catch_up()

    async def next(self) -> bytes:
        """What to send next; empty: the stream has ended."""
        while not self.ended:
            left_s = self._session.expires_s - clock.unix_s()
            if left_s <= 0:
                self.ended = "session expired"
            elif self._waiting:
                chunk = b"".join(self._waiting)
                self._waiting.clear()
                return chunk
            elif self._behind:
                if chunk := await self._tried():
                    return chunk
            elif not await self._woken(min(left_s, HEARTBEAT_S)):
                return HEARTBEAT
        return b""

    def offer(self, name: bytes, before: bytes, frame: bytes) -> None:
        """The user's newest event, which came after `before`."""
        if self._behind:
            self._missed = True
        elif before == self._name and len(self._waiting) < MOST_WAITING:
            self._waiting.append(frame)
            self._name = name
            self._wake.set()
        else:
            self.fall_behind()

    def fall_behind(self) -> None:
        """Something may have been missed: Redis knows."""
        self._behind = self._missed = True
        self._wake.set()

    def end(self, why: str) -> None:
        """It sends no more."""
        self.ended = self.ended or why
        self._wake.set()
        self.cut()

    async def _woken(self, within_s: float) -> bool:
        """Something changed; False when it is time for a sign of life."""
        self._wake.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _tried(self) -> bytes:
        """What was missed; while Redis is out a sign of life now and then."""
        try:
            return await self._catch_up()
        except RedisDown:
            return b"" if await self._woken(RETRY_S) else HEARTBEAT

    async def _catch_up(self) -> bytes:
        self._missed = False
        match await events.since(self._redis, self._session.user_id, self._name, most=PAGE):
            case Rest(entries=entries):
                names = entries[::2]
                self._name = names[-1] if names else self._name
                self._behind = self._missed or len(names) == PAGE
                return b"".join(map(framed, names, entries[1::2]))
            case Reset():
                return await self._from_now(b"reset")

    async def _from_now(self, kind: bytes) -> bytes:
        self._missed = False
        self._name = await events.newest(self._redis, self._session.user_id)
        self._behind = self._missed
        return b"event: %b\n%b" % (kind, framed(self._name, msgspec.json.encode({"at": clock.now()})))


class Streams:
    """Every open stream of this process, and the one connection that listens for all of them."""

    def __init__(self, redis: Redis, url: str, *, most: int = MOST) -> None:
        self.open = 0
        self._redis = redis
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = most if files == resource.RLIM_INFINITY else min(most, files // 2)
        self._readers: dict[bytes, set[Reader]] = {}  # by channel
        self._closed = False
        self._listener = Listener(url, on_message=self._heard, on_back=self._back)

    @asynccontextmanager
    async def joined(self, session: Session) -> AsyncIterator[Reader]:
        """A reader of this user's events, until the block ends. Raises: Busy, RedisDown."""
        channel = keys.events(session.user_id)
        readers = self._readers.setdefault(channel.encode(), set())
        reader = Reader(self._redis, session)
        try:
            if self._closed or self.open >= self._most or len(readers) >= MOST_OF_USER:
                raise Busy("too many streams of events are open", retry_after_s=BUSY_S)
            readers.add(reader)
            self.open += 1
            await self._listener.listen(channel)
            yield reader
        finally:
            if reader in readers:
                readers.remove(reader)
                self.open -= 1
            if not readers:
                del self._readers[channel.encode()]
                self._listener.leave(channel)

    def close(self) -> None:
        """Every stream ends now, and none begins."""
        self._closed = True
        for readers in self._readers.values():
            for reader in readers:
                reader.end("closing")

    async def aclose(self) -> None:
        self.close()
        await self._listener.aclose()

    def _heard(self, channel: bytes, message: bytes) -> None:
        if readers := self._readers.get(channel):
            name, before, event = message.split(b" ", 2)
            frame = framed(name, event)
            for reader in readers:
                reader.offer(name, before, frame)

    def _back(self) -> None:
        """Nobody knows what was said while nobody listened."""
        for readers in self._readers.values():
            for reader in readers:
                reader.fall_behind()
