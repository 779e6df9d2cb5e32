"""Events as they happen: `GET /api/events`, server-sent events for whoever the session says."""

import asyncio
import random
from typing import Annotated, Any, cast

import msgspec
import structlog
from litestar import get, post
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from app.domain import events
from app.errors import BadToken
from app.flows.follow import Reader, Streams, uncut
from app.infra.secrets import Session
from app.shop import Shop
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.server import ABORT

log = structlog.get_logger(__name__)

RETRY_MS = 2000
STALL_S = 10.0  # a client that reads nothing for so long, with its buffers full, is dropped
END_S = 1.0  # what the last word may take
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Ticket(msgspec.Struct, frozen=True):
    """Opens one stream, for `EventSource`, which cannot send headers."""

    ticket: str
    expires_in_s: int


class EventStream(ASGIResponse):
    """The stream itself. Litestar's own would wait for its generator, which need not hear that the client has gone."""

    _should_set_content_length = False

    def __init__(self, streams: Streams, session: Session, last_id: bytes) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")
        self.streams, self.session, self.last_id = streams, session, last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.streams.joined(self.session) as reader:
            first = await reader.begin(self.last_id)
            watching = asyncio.create_task(_watch(receive, reader))
            try:
                await self.start_response(send)
                retry_ms = RETRY_MS + random.randrange(RETRY_MS // 2)  # noqa: S311  (so that not all come back at once)
                if not await _pump(reader, send, b"retry: %d\n\n%b" % (retry_ms, first)):
                    log.info("a client does not take its events", user_id=self.session.user_id)
                    await _abort(scope, watching)
            finally:
                watching.cancel()


@post("/api/events/ticket", limits=("browse",))
async def open_ticket(request: Req, shop: TheShop) -> Ticket:
    """A ticket for `GET /api/events?ticket=…`: once, within half a minute."""
    ticket = await events.grant(shop.deps.redis, signed_in(request, shop))
    return Ticket(ticket, events.TICKET_MS // 1000)


@get("/api/events", limits=("address",), responses={200: ResponseSpec(None, media_type="text/event-stream")})
async def stream_events(
    request: Req,
    shop: TheShop,
    ticket: Annotated[str, QueryParameter()] = "",
    last_event_id: Annotated[str, QueryParameter()] = "",
) -> ASGIResponse:
    """Your events as they happen. With the id of the last one that you have (or `Last-Event-ID`) those that you
    missed come first, or a `reset` when that is not known: load your state again. Without one: `ready`, from now on."""
    session = await _session(request, shop, ticket)
    last_id = request.headers.get("last-event-id", last_event_id)  # a browser that reconnects sends the old URL
    streams: Streams = request.app.state.streams
    return EventStream(streams, session, last_id.encode())


async def _session(request: Req, shop: Shop, ticket: str) -> Session:
    if not ticket:
        return signed_in(request, shop)
    session = await events.redeem(shop.deps.redis, ticket)
    if session is None:
        raise BadToken("the ticket is used, expired or none; get a new one from POST /api/events/ticket")
    return session


async def _watch(receive: Receive, reader: Reader) -> None:
    """The reader hears that its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.end("client gone")


async def _pump(reader: Reader, send: Send, chunk: bytes) -> bool:
    """All goes out, to the end of the stream. False: the client does not take it."""
    now_s = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(None) as patience:
            reader.cut = lambda: patience.reschedule(now_s() + END_S) if patience.when() else None
            while chunk:
                patience.reschedule(now_s() + STALL_S)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                patience.reschedule(None)
                chunk = await reader.next()
            patience.reschedule(now_s() + END_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        return False
    finally:
        reader.cut = uncut
    return True


async def _abort(scope: Scope, watching: asyncio.Task[None]) -> None:
    """What the client did not take is thrown away; otherwise its connection would stay until it is read."""
    if abort := cast(dict[str, Any], scope.get("extensions") or {}).get(ABORT):
        abort["now"]()
        await asyncio.wait([watching], timeout=END_S)
