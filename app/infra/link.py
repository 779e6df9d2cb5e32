"""One live connection to Redis: what was sent, in its order, and the replies that come back in the same."""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Protocol, Self

import hiredis
import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection

log = structlog.get_logger(__name__)

NOTHING = object()


class Refusal(Exception):
    """An error reply, as hiredis hands it over; never leaves this module."""

    def code(self) -> str:
        return str(self).partition(" ")[0]


class Call(msgspec.Struct):
    """One command on its way; a failure is its result, for the caller to raise, so a cancelled one is never unheard."""

    packed: bytes
    result: asyncio.Future[object]
    born_s: float


class Owner(Protocol):
    """Who is told what happens to the connection."""

    def flush(self) -> None: ...
    def heard(self) -> None: ...
    def lost(self, link: "Link") -> None: ...
    def give_up(self, link: "Link", why: str) -> None: ...


class Link(asyncio.Protocol):
    """One live connection: bytes out, replies to the calls in the order in which these were sent."""

    def __init__(self, owner: Owner, writer: asyncio.StreamWriter) -> None:
        self.sent: deque[Call] = deque()
        self.gone = asyncio.Event()
        self._owner = owner
        self._replies = hiredis.Reader(replyError=Refusal, notEnoughData=NOTHING)
        self._writer = writer  # kept alive: its destructor would close the transport
        self._paused = False
        self.heard_s = monotonic()  # the last sign of life, or the moment since which one is due

    @classmethod
    async def open(cls, owner: Owner, connection: AbstractConnection) -> Self:
        """A connection that is logged in, on the right database, and ours alone.

        Raises: redis' errors and OSError.
        """
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            reader, writer = connection._reader, connection._writer
            if reader is None or writer is None or reader.at_eof() or writer.transport.is_closing():
                raise ConnectionError("closed during set-up")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        connection._reader = connection._writer = None  # or its destructor would complain
        link = cls(owner, writer)
        writer.transport.set_protocol(link)
        return link

    def writable(self) -> bool:
        return not self._paused and not self._writer.transport.is_closing()

    def send(self, calls: Sequence[Call]) -> None:
        if not self.sent:
            self.heard_s = monotonic()
        self.sent.extend(calls)
        self._writer.write(b"".join([call.packed for call in calls]))

    def abort(self) -> None:
        self._writer.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard_s = monotonic()
        self._owner.heard()
        demoted = False
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not NOTHING:
                call = self.sent.popleft()
                if not call.result.done():
                    call.result.set_result(reply)
                demoted |= isinstance(reply, Refusal) and reply.code() == "READONLY"
        except (hiredis.ProtocolError, IndexError) as error:
            log.error("redis reply does not parse, or nobody asked for it", error=repr(error))
            self._owner.give_up(self, "Redis answered out of turn")
        if demoted:  # after a failover the same address may lead to the new primary
            self._owner.give_up(self, "Redis became read-only")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._owner.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._owner.lost(self)
