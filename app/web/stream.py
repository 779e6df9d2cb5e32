"""Server-sent events on the bare ASGI messages: who leaves, stalls or vanishes is noticed, and leaves nothing.

Litestar's own stream would wait for its generator, which need not hear that the client has gone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from app.web.server import ABORT

STALL_S = 10.0  # a client that reads nothing for so long, with its buffers full, is dropped
END_S = 1.0  # what the last word may take
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Source(Protocol):
    """What a stream sends."""

    cut: Callable[[], None]  # a send that is under way ends soon

    async def next(self) -> bytes:
        """What to send next; empty: the stream has ended."""
        ...

    def end(self, why: str) -> None:
        """It sends no more."""
        ...


class Stream(ASGIResponse):
    """An answer that goes on until its source or its client ends it."""

    _should_set_content_length = False

    def __init__(self) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")

    async def pour(
        self, scope: Scope, receive: Receive, send: Send, source: Source, begin: Callable[[], Awaitable[bytes]]
    ) -> bool:
        """What `begin` gives goes out, and all that comes after it. False: the client does not take it.

        Before `begin` has given something nothing is sent, so what it raises is answered as anywhere; empty: the client
        has gone.
        """
        watching = asyncio.create_task(_watch(receive, source))
        try:
            first = await begin()
            if not first:
                return True
            await self.start_response(send)
            if await _pump(source, send, first):
                return True
            await _abort(scope, watching)
            return False
        finally:
            watching.cancel()


async def _watch(receive: Receive, source: Source) -> None:
    """The source hears that its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    source.end("client gone")


async def _pump(source: Source, send: Send, chunk: bytes) -> bool:
    """All goes out, to the end of the stream. False: the client does not take it."""
    now_s = asyncio.get_running_loop().time
    uncut = source.cut
    try:
        async with asyncio.timeout(None) as patience:
            source.cut = lambda: patience.reschedule(now_s() + END_S) if patience.when() else None
            while chunk:
                patience.reschedule(now_s() + STALL_S)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                patience.reschedule(None)
                chunk = await source.next()
            patience.reschedule(now_s() + END_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        return False
    finally:
        source.cut = uncut
    return True


async def _abort(scope: Scope, watching: asyncio.Task[None]) -> None:
    """What the client did not take is thrown away; otherwise its connection would stay until it is read."""
    if abort := cast(dict[str, Any], scope.get("extensions") or {}).get(ABORT):
        abort["now"]()
        await asyncio.wait([watching], timeout=END_S)
