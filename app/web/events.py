"""Events as they happen: `GET /api/events`, server-sent events for whoever the session says."""

import random
from typing import Annotated

import msgspec
import structlog
from litestar import get, post
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from app.domain import events
from app.errors import BadToken
from app.flows.follow import Streams
from app.infra.secrets import Session
from app.shop import Shop
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.stream import Stream

log = structlog.get_logger(__name__)

RETRY_MS = 2000


class Ticket(msgspec.Struct, frozen=True):
    """Opens one stream, for `EventSource`, which cannot send headers."""

    ticket: str
    expires_in_s: int


class EventStream(Stream):
    """The caller's events."""

    def __init__(self, streams: Streams, session: Session, last_id: bytes) -> None:
        super().__init__()
        self.streams, self.session, self.last_id = streams, session, last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.streams.joined(self.session) as reader:

            async def begin() -> bytes:
                first = await reader.begin(self.last_id)
                retry_ms = RETRY_MS + random.randrange(RETRY_MS // 2)  # noqa: S311  (so that not all come back at once)
                return b"retry: %d\n\n%b" % (retry_ms, first)

            if not await self.pour(scope, receive, send, reader, begin):
                log.info("a client does not take its events", user_id=self.session.user_id)


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
