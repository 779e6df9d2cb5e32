"""A reply while it is being written: what of it waits to be sent, and how it ends when reader or writer leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from app.channels.line import Offer
from app.errors import Busy
from app.flows import converse
from app.flows.follow import HEARTBEAT, HEARTBEAT_S, uncut
from app.web.problems import encode, judged

BEGIN_S = 2.0  # after which an answer begins without its first word: a refusal comes sooner
STARTED = b": ok\n\n"
MOST_WAITING = 65_536  # characters that wait here for one client; the writer waits beyond that
MOST_OF_USER = 3  # replies that are being written in one process
MOST = 500
BUSY_S = 5
LEAVE_S = 5.0  # what a reply that is being written gets after SIGTERM

Talk = Callable[["Writing"], Coroutine[Any, Any, None]]


class Piece(msgspec.Struct, frozen=True):
    text: str


class Done(msgspec.Struct, frozen=True):
    """The end of a reply. `state`: answered, escalated, silent (a human has it), duplicate (said a moment ago)."""

    turn: UUID
    state: str
    by: str  # model, search, texts; empty when nothing is said
    escalated: bool


class Writing:
    """One reply that is being written: what of it waits to be sent. A `stream.Source`."""

    def __init__(self) -> None:
        self.cut = uncut
        self._problem: Exception | None = None
        self._shown: list[str] = []  # all of it
        self._pieces: list[str] = []  # of it, not yet sent
        self._last = b""  # what comes after them
        self._begun = False  # something goes out: what fails now is told in the stream
        self._told = self._over = self._gone = False  # the end of it is there; nothing more is written; nobody reads
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def write(self, talk: Talk) -> None:
        """From now on `talk` writes it, and may have something to do after it has told the end."""
        self._writing = asyncio.create_task(self._write(talk))

    async def begin(self) -> bytes:
        """The first that there is. Raises: what came instead, before anything did."""
        woken = await self._woken(BEGIN_S)
        if self._problem and not self._begun:
            raise self._problem
        self._begun = True
        return await self.next() if woken else STARTED

    async def next(self) -> bytes:
        while not self._gone:
            if chunk := self._taken():
                return chunk
            if self._over:
                await self.finish()  # who has read to the end finds the id free
                return b""
            self._wake.clear()
            if not await self._woken(HEARTBEAT_S):
                return HEARTBEAT
        return b""

    def end(self, why: str) -> None:
        """Nobody reads it any more, so nobody needs to write it."""
        self._gone = True
        self._stop()
        self.cut()

    def leave(self) -> None:
        """The process is leaving: what was not said by now, another one says."""
        if not self._over:
            self._fail(Busy("this process is leaving; send the same id again", retry_after_s=1))
            self._stop()

    async def finish(self) -> None:
        """Nobody writes it."""
        self._stop()
        if self._writing:
            await asyncio.wait([self._writing])

    async def show(self, piece: str) -> None:
        while sum(map(len, self._pieces)) > MOST_WAITING:
            self._room.clear()
            await self._room.wait()
        if piece and not self._over:
            piece = _whole(piece)
            self._begun = True
            self._shown.append(piece)
            self._pieces.append(piece)
            self._wake.set()

    def tell(self, turn_id: UUID, told: converse.Reply) -> None:
        """The end of it; what was shown and does not stand is replaced."""
        if self._over:
            return
        shown, text = "".join(self._shown), _whole(told.text)
        if text.startswith(shown):
            self._pieces.append(text[len(shown) :])
        else:
            self._pieces.clear()
            self._last += _framed(b"replace", Piece(text))
        for offer in told.offers:
            self._last += _framed(b"offer", offer)
        escalated = told.state in ("escalated", "silent")
        self._last += _framed(b"done", Done(turn_id, told.state, told.by, escalated))
        self._told = self._over = True
        self._wake.set()

    async def _write(self, talk: Talk) -> None:
        try:
            await talk(self)
        except Exception as error:
            self._fail(error)
        finally:
            self._over = True
            self._wake.set()

    def _fail(self, error: Exception) -> None:
        if self._told:
            judged(error, "/api/chat")  # of cleaning up: nobody waits for that
        elif self._over:
            return
        elif self._begun:
            self._last += b"event: error\ndata: %b\n\n" % encode(judged(error, "/api/chat"))
        else:
            self._problem = error

    def _stop(self) -> None:
        self._over = True
        self._wake.set()
        self._room.set()
        if self._writing and not self._told:
            self._writing.cancel()

    def _taken(self) -> bytes:
        text, last = "".join(self._pieces), self._last
        self._pieces.clear()
        self._last = b""
        self._room.set()
        return (_framed(b"chunk", Piece(text)) if text else b"") + last

    async def _woken(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True


class Chats:
    """Every reply of this process that is being written."""

    def __init__(self) -> None:
        self.open: list[tuple[int, Writing]] = []  # by whose message
        self.closed = False
        self.channel_id = 0  # the Mini App's, once it is known

    @asynccontextmanager
    async def joined(self, user_id: int) -> AsyncIterator[Writing]:
        """A reply, until the block ends. Raises: Busy."""
        mine = sum(user_id == other for other, _ in self.open)
        if self.closed or len(self.open) >= MOST or mine >= MOST_OF_USER:
            raise Busy("too many replies are being written", retry_after_s=BUSY_S)
        reply = Writing()
        self.open.append((user_id, reply))
        try:
            yield reply
        finally:
            self.open.remove((user_id, reply))
            await reply.finish()

    def close(self) -> None:
        """None begins any more, and those that are being written come to an end soon."""
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_later(LEAVE_S, self._leave)

    async def aclose(self) -> None:
        self.closed = True
        self._leave()

    def _leave(self) -> None:
        for _, reply in self.open:
            reply.leave()


def _framed(kind: bytes, what: Piece | Offer | Done) -> bytes:
    """An event as it goes over the wire; JSON has no line breaks."""
    return b"event: %b\ndata: %b\n\n" % (kind, msgspec.json.encode(what))


def _whole(text: str) -> str:
    """The text without halves of characters, which cannot be sent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
