"""One Redis connection for every caller: the calls of one event-loop turn leave together, replies come in their order.

redis-py parses the URL and sets the connection up (TLS, password, database); then `Link` takes its transport over and
answers callers straight from `data_received`. Measured with 64 callers on 2 cores: a call costs this process 7 us of
CPU so, 8.7 us through a task that drives redis-py's `read_response`, 91 us through its pool; the first two are then as
fast as the server, and without a task there is nothing to cancel and one place that hears of a loss (`bench/lua.py`).
A call that would block (BLPOP), MULTI/WATCH and pub/sub do not belong here: one of them would hold up everybody.
"""

import asyncio
import math
from collections import deque
from collections.abc import MutableSequence, Sequence
from time import monotonic
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import ConnectionPool

from app.errors import RedisDown
from app.infra.link import Call, Link, Refusal
from app.infra.lua import CommandFailed, Part, Script, ScriptFailed

log = structlog.get_logger(__name__)

MOST_CALLS = 10_000  # waiting or in flight; beyond that Redis is not keeping up and one more would only wait
WRITE_CALLS = 32  # a turn with more leaves in pieces: the server starts while the rest is packed (1.3 times at 64)
FIRST_BACKOFF_S = 0.01
LAST_BACKOFF_S = 0.25  # after a restart calls are refused for at most this long
SETUP_S = 1.0  # what TLS, login and a far server may take; callers wait no longer than for any call
SLOW_S = 1.0  # the longest that anybody waits for a Redis that is not silent; a silent connection lives as long
LATE_S = 0.05  # a timer later than this means that our own loop stood still, and replies may lie unread
UNAVAILABLE = {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"}


class Pipe:
    """The connection that every caller shares; it connects at the first call and again after each loss.

    A call in flight when the connection is lost fails and is never repeated: whether it ran is unknown. A call not
    yet written goes out on the next connection, if that comes at the first attempt. When it does not, or when Redis is
    silent for too long, the breaker is open: calls fail at once, until Redis is heard again. A Redis that answers
    slowly, because it or this process is busy, is not silent.

    Units:  timeout_ms of silence while calls are in flight, or of waiting for a connection.
    Raises: errors.RedisDown from every call that got no answer, after timeout_ms; at the latest after SLOW_S.
    """

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._timeout_s = timeout_ms / 1000
        self._pool = ConnectionPool.from_url(url)  # reads the URL; it never holds a connection
        self._pool.connection_kwargs["protocol"] = 2  # whatever the URL says: a push of RESP3 would pass for a reply
        self._queue: deque[Call] = deque()
        self._turn_ends = False  # the end of this turn is scheduled
        self._link: Link | None = None
        self._links: set[Link] = set()  # also those given up and not yet closed
        self._connecting: asyncio.Task[None] | None = None
        self._open = False  # the breaker
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = math.inf
        self._closed = False

    async def evalsha(self, script: Script[Any], keys: Sequence[Part], args: Sequence[Part]) -> object:
        """The script's reply. A server that has lost the script gets its text: NOSCRIPT means that it did not run.

        Raises: ScriptFailed; RedisDown.
        """
        reply = await self._put("EVALSHA", script.sha, len(keys), *keys, *args)
        if isinstance(reply, Refusal) and reply.code() == "NOSCRIPT":
            reply = await self._put("EVAL", script.body, len(keys), *keys, *args)
        if isinstance(reply, Exception):
            raise _failure(reply, ScriptFailed, f"{script.name}: {reply}")
        return reply

    async def command(self, *parts: Part) -> object:
        """The reply to one command that does not block.

        Raises: CommandFailed; RedisDown.
        """
        reply = await self._put(*parts)
        if isinstance(reply, Exception):
            raise _failure(reply, CommandFailed, f"{parts[0]!r}: {reply}")
        return reply

    async def aclose(self) -> None:
        """Nothing is left: every call has failed with RedisDown, no task, timer or transport remains."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._connecting:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        _fail(self._queue, "Redis connection is closed")
        for link in tuple(self._links):
            self.give_up(link, "Redis connection is closed")
        await asyncio.gather(*(link.gone.wait() for link in tuple(self._links)))

    def _put(self, *parts: Part) -> asyncio.Future[object]:
        waiting = len(self._queue) + (len(self._link.sent) if self._link else 0)
        if self._closed or waiting >= MOST_CALLS:
            raise RedisDown("Redis connection is closed" if self._closed else f"{waiting} calls wait for Redis")
        loop = asyncio.get_running_loop()
        # The stub has one-item tuples only.
        call = Call(hiredis.pack_command(cast(Any, parts)), loop.create_future(), monotonic())
        self._queue.append(call)
        if not self._turn_ends:
            self._turn_ends = True
            loop.call_soon(self._end_turn)
        elif len(self._queue) == WRITE_CALLS:
            self.flush()
        if not self._timer:
            self._watch(call.born_s + self._timeout_s)
        return call.result

    def _end_turn(self) -> None:
        self._turn_ends = False
        self.flush()

    def flush(self) -> None:
        """Every waiting call is written, or the connection is on its way."""
        if not self._queue or self._closed:
            return
        if self._link is None:
            self._connect()
        if self._open:
            # A turn later than asked: a caller that tries again and again must not own the loop.
            _fail(self._queue, "Redis is out")
        elif self._link and self._link.writable():
            # A call cancelled while it waited is not sent: nobody wants its effect any more.
            calls = [call for call in self._queue if not call.result.done()]
            self._queue.clear()
            self._link.send(calls)

    def _connect(self) -> None:
        self._connecting = self._connecting or asyncio.get_running_loop().create_task(self._reach())

    async def _reach(self) -> None:
        """A connection, whenever that may be; from the first failure on nobody waits for it."""
        backoff_s = FIRST_BACKOFF_S
        while not self._link:
            try:
                async with asyncio.timeout(max(self._timeout_s, SETUP_S)):
                    self._link = await Link.open(self, self._pool.make_connection())  # type: ignore[no-untyped-call]
            except Exception as error:
                self._trip("Redis cannot be reached", error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
        self._links.add(self._link)
        self._connecting = None
        self.heard()
        self.flush()

    def _trip(self, why: str, cause: Exception | None = None) -> None:
        """The breaker is open: nobody waits any more."""
        if not self._open:
            log.warning("redis is out", why=why, error=repr(cause) if cause else None)
        self._open = True
        _fail(self._queue, why, cause)

    def _watch(self, due_s: float) -> None:
        """The one timer stands where silence would be too long."""
        self._due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(0, due_s - monotonic()), self._expire)

    def _expire(self) -> None:
        now, link = monotonic(), self._link
        if now - self._due_s > LATE_S:
            self._due_s = math.inf  # once: the next look decides
            self._timer = asyncio.get_running_loop().call_later(LATE_S, self._expire)
            return
        self._timer = None
        silence = f"Redis did not answer in {self._timeout_s * 1000:.0f} ms"
        if link and link.sent:
            silent_s = now - link.heard_s
            if silent_s >= self._timeout_s:
                self._trip(silence)
            # Late replies to calls that have failed are still read, and dropped: they show that Redis is back.
            _fail([call for call in link.sent if self._open or now - call.born_s >= SLOW_S], silence)
            if silent_s >= max(self._timeout_s, SLOW_S):
                self.give_up(link, silence)
                self._connect()
            else:
                self._watch(link.heard_s + (SLOW_S if self._open else self._timeout_s))
        elif self._queue and not link:
            if now - self._queue[0].born_s >= self._timeout_s:
                self._trip(silence)  # the attempt to connect goes on
            else:
                self._watch(self._queue[0].born_s + self._timeout_s)

    def heard(self) -> None:
        """Redis answers: whoever calls from now on is served."""
        if self._open:
            log.info("redis answers again")
            self._open = False
            if self._timer:  # it stands too far off for the calls to come
                self._timer.cancel()
                self._timer = None

    def lost(self, link: "Link") -> None:
        """What was in flight has failed; what waits goes out on a new connection."""
        self._links.discard(link)
        self.give_up(link, "Redis closed the connection")
        self.flush()

    def give_up(self, link: "Link", why: str) -> None:
        """Nothing more is sent to or expected from this connection."""
        if self._link is link:
            self._link = None
            if not self._closed:
                log.warning("redis connection given up", why=why, in_flight=len(link.sent))
        _fail(link.sent, why)
        link.abort()


def _fail(calls: MutableSequence[Call], why: str, cause: Exception | None = None) -> None:
    """Each call has failed with an exception of its own: a shared one would collect everybody's traceback."""
    for call in calls:
        if not call.result.done():
            down = RedisDown(why)
            down.__cause__ = cause
            call.result.set_result(down)
    calls.clear()


def _failure(reply: Exception, kind: type[CommandFailed], text: str) -> Exception:
    if not isinstance(reply, Refusal):
        return reply
    return RedisDown(f"Redis answered {reply.code()}") if reply.code() in UNAVAILABLE else kind(text)
