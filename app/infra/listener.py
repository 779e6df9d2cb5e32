"""One Redis connection that only listens: messages of every channel that somebody here wants, handed on as they come.

A message is a hint and may be lost with the connection: after every loss `on_back` says so, and whoever listens looks
into Redis for what it missed. Joining and leaving cost a word each, however many others there are; a blocking XREAD
would name every stream again after each event (decision 0015).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import ConnectionPool

from app.errors import RedisDown
from app.infra.link import NOTHING, Link
from app.infra.pipe import FIRST_BACKOFF_S, LAST_BACKOFF_S, SETUP_S

log = structlog.get_logger(__name__)

PATIENCE_S = 1.0  # what joining may take
PING_S = 2.5
MOST_SILENT = 2  # pings in a row: our own loop may have stood still while the first reply lay there unread


def _nothing() -> None: ...


class Ear(Link):
    """A connection on which replies answer nobody's call: acknowledgements in their order, and messages."""

    def __init__(self, owner: "Listener", writer: asyncio.StreamWriter) -> None:
        super().__init__(owner, writer)
        self.listener = owner
        self.asked: deque[Callable[[], None]] = deque()

    def say(self, word: str, *channels: str, then: Sequence[Callable[[], None]]) -> None:
        """Each of `then` is called at its own acknowledgement: an earlier question's cannot pass for a later one's."""
        self.asked.extend(then)
        self._writer.write(hiredis.pack_command(cast(Any, (word, *channels))))  # the stub has one-item tuples only

    def data_received(self, data: bytes) -> None:
        self.heard_s = monotonic()
        try:
            self._replies.feed(data)
            # What comes after a refusal answers another question than it seems.
            while not self._writer.transport.is_closing() and (reply := self._replies.gets()) is not NOTHING:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.listener.give_up(self, repr(error))

    def _take(self, reply: object) -> None:
        match reply:
            case [b"message", bytes(channel), bytes(message)]:
                self.listener.on_message(channel, message)
            case [b"subscribe" | b"unsubscribe" | b"pong", *_] | b"PONG":
                self.asked.popleft()()
            case _:  # it will not let us listen, or is no Redis
                self.listener.give_up(self, f"Redis answered {reply!r:.80}")


class Listener:
    """Connects when the first channel is wanted, and again after each loss while any is. Once out, until it is back.

    `on_message(channel, message)` and `on_back()` are called from the event loop and must not block or raise.
    """

    def __init__(self, url: str, *, on_message: Callable[[bytes, bytes], None], on_back: Callable[[], None]) -> None:
        self._pool = ConnectionPool.from_url(url)  # reads the URL; it never holds a connection
        self._pool.connection_kwargs["protocol"] = 2
        self.on_message, self._on_back = on_message, on_back
        self._wanted: dict[str, asyncio.Event] = {}  # by channel; set once Redis has sent us its messages
        self._ear: Ear | None = None
        self._ears: set[Link] = set()  # also those given up and not yet closed
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff_s = 0.0
        self._out = False  # until a connection has answered
        self._closed = False

    async def listen(self, channel: str) -> None:
        """From now on each message to this channel comes to `on_message`, or a loss to `on_back`. Raises: RedisDown."""
        if self._closed or self._out:
            raise RedisDown("nobody can listen: Redis is out")
        heard = self._wanted.get(channel)
        if heard is None:
            heard = self._wanted[channel] = asyncio.Event()
            if self._ear:
                self._subscribe(self._ear, channel)
        self._connect()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await heard.wait()
        except TimeoutError:
            raise RedisDown(f"Redis did not let us listen in {PATIENCE_S:.0f} s") from None

    def leave(self, channel: str) -> None:
        """Nobody wants this channel any more."""
        if self._wanted.pop(channel, None) and self._ear:
            self._ear.say("UNSUBSCRIBE", channel, then=[_nothing])

    async def aclose(self) -> None:
        """No task, timer or connection is left."""
        self._closed = True
        self._wanted.clear()
        if self._connecting:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for ear in tuple(self._ears):
            self.give_up(ear, "closed")
        await asyncio.gather(*(ear.gone.wait() for ear in tuple(self._ears)))

    def _connect(self) -> None:
        if (self._wanted or self._out) and not self._ear and not self._closed:
            self._connecting = self._connecting or asyncio.get_running_loop().create_task(self._reach())

    async def _reach(self) -> None:
        while not self._ear:
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(max(FIRST_BACKOFF_S, 2 * self._backoff_s), LAST_BACKOFF_S)
            try:
                async with asyncio.timeout(SETUP_S):
                    self._ear = await Ear.open(self, self._pool.make_connection())  # type: ignore[no-untyped-call]
            except Exception as error:
                self._tell_out(repr(error))
        self._ears.add(self._ear)
        self._connecting = None
        self._subscribe(self._ear, *self._wanted)
        self._watch(self._ear, 0, self._answered)  # by then everything is subscribed

    def _answered(self) -> None:
        self._out, self._backoff_s = False, 0.0
        self._on_back()

    def _tell_out(self, why: str) -> None:
        if not self._out:
            log.warning("nobody can listen to redis", why=why)
        self._out = True

    def _subscribe(self, ear: Ear, *channels: str) -> None:
        if channels:
            ear.say("SUBSCRIBE", *channels, then=[self._wanted[channel].set for channel in channels])

    def _watch(self, ear: Ear, silent: int, answered: Callable[[], None] = _nothing) -> None:
        """Pings, until the connection is lost or silent for too long."""
        asked_s = monotonic()

        def look() -> None:
            unheard = 0 if ear.heard_s >= asked_s else silent + 1
            if unheard >= MOST_SILENT:
                self.give_up(ear, "Redis is silent")
            elif self._ear is ear:
                self._watch(ear, unheard)

        ear.say("PING", then=[answered])
        self._timer = asyncio.get_running_loop().call_later(PING_S, look)

    def flush(self) -> None: ...

    def heard(self) -> None: ...

    def lost(self, link: Link) -> None:
        self._ears.discard(link)
        self.give_up(link, "Redis closed the connection")

    def give_up(self, link: Link, why: str) -> None:
        """What this connection brought is all that it will; a new one is on its way if anybody listens."""
        link.abort()
        if self._ear is not link:
            return
        self._ear = None
        if self._timer:
            self._timer.cancel()
        if self._backoff_s:  # it never answered
            self._tell_out(why)
        elif not self._closed:
            log.warning("redis is not heard", why=why)
        self._connect()
