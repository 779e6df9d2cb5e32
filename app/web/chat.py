"""The Mini App's chat: what the shop answers is streamed while it is being written.

A message has an id of its client's making. Under one id there is one answer: a repeat gets what is stored, and whoever
left before the end gets it with the next call. What comes over the wire is in docs/chat.md.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid5

import msgspec
import structlog
from litestar import get, post
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Meta

from app.base import clock
from app.base.heard import Heard
from app.domain import conversations, once
from app.domain.once import Mismatch, Running
from app.errors import InProgress, KeyReused, NotFound, RedisDown
from app.flows import converse
from app.infra.secrets import Session
from app.shop import Shop
from app.web.bodies import Line, exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.reply import Chats, Writing
from app.web.stream import Stream

log = structlog.get_logger(__name__)

TURNS = UUID("6f1d9d4e-2f5c-5d0e-9c55-0a9f7c1f6b0a")  # a turn's id: made of this, its conversation and the client's id
CHANNEL: tuple[Literal["app"], str] = ("app", "app")
LATEST = 50  # messages that the page begins with
CLAIM_MARGIN_MS = 10_000  # how much longer than the model's time an id is kept for one call


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the buyer says. `id` is the client's own: the same one again is the same message, with the same answer."""

    text: Annotated[Line, Meta(max_length=2000)]
    id: UUID
    language: Annotated[str, Meta(pattern=r"^([A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})?)?$")] = ""


class Said(msgspec.Struct, frozen=True):
    """A message: by the user, the assistant, an agent (a human of the shop) or the system."""

    id: int
    role: str
    text: str
    at: datetime


class Chat(msgspec.Struct, frozen=True):
    """The latest messages, the oldest first; while it is escalated a human answers."""

    messages: list[Said]
    escalated: bool


class ChatStream(Stream):
    """The answer to one message."""

    def __init__(self, chats: Chats, shop: Shop, session: Session, asked: Asked) -> None:
        super().__init__()
        self.chats, self.shop, self.session, self.asked = chats, shop, session, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.chats.joined(self.session.user_id) as reply:
            reply.write(self._talk)
            if not await self.pour(scope, receive, send, reply, reply.begin):
                log.info("a client does not take its answer", user_id=self.session.user_id)

    async def _talk(self, writing: Writing) -> None:
        async with alone(self.shop, self.session.user_id, self.asked):
            opened = await self._opened()
            asked = self.asked
            turn_id = uuid5(TURNS, f"{opened.id} {asked.id}")  # another's id opens nothing
            heard = Heard(str(asked.id), clock.unix_s(), language=asked.language, text=asked.text)
            told = await converse.talk(self.shop, opened, converse.Turn(turn_id, [heard]), writing.show)
            writing.tell(turn_id, told)
            if told.mine and told.text:  # a repeat may have it again, with the offers that hold by then
                await conversations.release(self.shop.deps.pg, turn_id)

    async def _opened(self) -> conversations.Opened:
        """Raises: NotFound when the channel is switched off."""
        pg, chats = self.shop.deps.pg, self.chats
        chats.channel_id = chats.channel_id or (await conversations.register(pg, *CHANNEL)).id
        peer, language = str(self.session.user_id), self.asked.language
        opened = await conversations.open(pg, chats.channel_id, peer, name="", username="", language=language)
        if opened is None:
            raise NotFound("nobody can chat here: the channel is switched off")
        return opened


@asynccontextmanager
async def alone(shop: Shop, user_id: int, asked: Asked) -> AsyncIterator[None]:
    """Nobody else answers this message meanwhile. Raises: InProgress, KeyReused."""
    ticket = once.ticket(user_id, f"chat:{asked.id}", "POST /api/chat", asked.text.encode())
    lease_ms = shop.deps.settings.model_timeout_ms + CLAIM_MARGIN_MS
    try:
        claim = await once.claim(shop.deps.redis, ticket, lease_ms=lease_ms)
    except RedisDown as error:
        log.warning("message not claimed, Postgres decides", error=str(error))
        yield
        return
    if isinstance(claim, Running):
        raise InProgress("the answer to this message is being written", retry_after_s=1)
    if isinstance(claim, Mismatch):
        raise KeyReused("this id belongs to another message")
    try:
        yield
    finally:
        try:
            await once.abandon(shop.deps.redis, ticket)  # what was answered is in Postgres
        except RedisDown as error:
            log.warning("message not freed, its lease ends", error=str(error))


@post(
    "/api/chat",
    status_code=200,
    limits=("address", "chat"),
    responses={200: ResponseSpec(None, media_type="text/event-stream")},
)
async def chat(request: Req, data: JSONBody[Asked], shop: TheShop) -> ASGIResponse:
    """Say something; the answer is streamed as server-sent events while it is written: `chunk`, `replace`, `offer`,
    `done` or `error`. The same `id` again is answered from what is stored; 409 while the first is being answered."""
    session = signed_in(request, shop)
    return ChatStream(request.app.state.chats, shop, session, await exact(request, Asked))


@get("/api/chat", limits=("browse",))
async def show_chat(request: Req, shop: TheShop) -> Chat:
    """What was said lately. Offers of the past are not in it: they may not hold any more."""
    session = signed_in(request, shop)
    found = await conversations.latest(shop.deps.pg, *CHANNEL, str(session.user_id), size=LATEST)
    if found is None:
        return Chat([], escalated=False)
    lines = zip(found.ids, found.roles, found.texts, found.ats, strict=True)
    return Chat([Said(*line) for line in lines], found.escalated)
