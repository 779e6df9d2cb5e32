"""Admin, conversations: what was said, and whose turn it is. Admins only: buyers wrote it to the house."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from app.domain import agents, staff
from app.errors import Conflict, Forbidden, NotFound
from app.flows import attend, converse
from app.shop import Shop
from app.web.admin import acting
from app.web.bodies import Line, exact
from app.web.handler import Req, TheShop
from app.web.once import Done, Reply, once_only
from app.web.params import MAX_ID, Cursor

MAX_PAGE = 100
MOST_WORDS = 4000  # characters: one message of every channel

ConversationId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]
Place = Annotated[str, QueryParameter(pattern=r"^([0-9]{1,16}_)?[0-9]{0,18}$(?!\n)")]


class Conversation(msgspec.Struct, frozen=True):
    """A conversation; `escalated_at`: since when it is an agent's, for the reason `escalation`."""

    id: int
    channel_id: int
    channel: str  # telegram, whatsapp, app
    peer: str  # chat, phone or user there
    user_id: int
    name: str
    heard_at: datetime
    escalated_at: datetime | None
    escalation: str | None


class ConversationList(msgspec.Struct, frozen=True):
    """The newest first; those of agents: the latest handed over first."""

    conversations: list[Conversation]
    next_cursor: str | None


class Message(msgspec.Struct, frozen=True):
    """`role`: user, assistant (the machine), agent (`user_id`). `sent_at` of what we said: when, if that is known."""

    id: int
    turn_id: UUID
    role: str
    user_id: int | None
    text: str
    at: datetime
    sent_at: datetime | None


class Thread(msgspec.Struct, frozen=True):
    """A conversation with a page of its messages, the newest first."""

    conversation: Conversation
    messages: list[Message]
    next_cursor: str | None


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What you say."""

    text: Annotated[Line, Meta(max_length=MOST_WORDS)]


class Spoken(msgspec.Struct, frozen=True):
    """It is stored, and on its way."""

    message_id: int
    at: datetime


@get("/api/admin/conversations", limits=("address", "admin"))
async def list_conversations(
    request: Req,
    shop: TheShop,
    escalated: Annotated[bool, QueryParameter()] = False,
    cursor: Place = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> ConversationList:
    """Conversations; `escalated=true`: those that wait for an agent."""
    await admin(request, shop)
    place, _, last = cursor.rpartition("_")
    before, size = int(last or MAX_ID), limit + 1
    if escalated:
        at_us = int(place) if place else 10**16 - 1
        found = await agents.escalated(shop.deps.pg, before_us=at_us, before=before, size=size)
    else:
        found = await agents.newest(shop.deps.pg, before=before, size=size)
    following = None
    if len(found) > limit:
        end = found[limit - 1]
        following = f"{end.at_us}_{end.id}" if escalated else str(end.id)
    return ConversationList([_card(one) for one in found[:limit]], following)


@get("/api/admin/conversations/{conversation_id:int}", limits=("address", "admin"))
async def show_conversation(
    request: Req,
    conversation_id: ConversationId,
    shop: TheShop,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> Thread:
    """One conversation with what was said in it."""
    await admin(request, shop)
    card = await agents.get(shop.deps.pg, conversation_id)
    if card is None:
        raise NotFound("no such conversation")
    found = await agents.messages(shop.deps.pg, conversation_id, before=int(cursor or 0), size=limit + 1)
    lines = [Message(*msgspec.structs.astuple(one)) for one in found[:limit]]
    return Thread(_card(card), lines, str(lines[-1].id) if len(found) > limit else None)


@post("/api/admin/conversations/{conversation_id:int}/messages", status_code=202, limits=("address", "admin"))
async def say_words(
    request: Req, conversation_id: ConversationId, data: JSONBody[Words], shop: TheShop
) -> Response[bytes]:
    """Your words go out by the conversation's channel, once per `Idempotency-Key`. The machine is silent only while the
    conversation is escalated."""
    user_id = await admin(request, shop)
    body = await exact(request, Words)

    async def work(key: str, print: bytes) -> Done:
        spoken = await attend.say(shop, user_id, conversation_id, key, body.text)
        assert spoken.message_id
        assert spoken.at
        return Done(
            Reply(202, "", msgspec.json.encode(Spoken(spoken.message_id, spoken.at))), spoken.word == "repeated"
        )

    return await once_only(request, shop, user_id, work)


@post("/api/admin/conversations/{conversation_id:int}/hand-back", status_code=204, limits=("address", "admin"))
async def hand_back(request: Req, conversation_id: ConversationId, shop: TheShop) -> None:
    """The machine answers there again; 409 when it does already."""
    user_id = await admin(request, shop)
    if not await converse.hand_back(shop, user_id, conversation_id):
        if await agents.get(shop.deps.pg, conversation_id) is None:
            raise NotFound("no such conversation")
        raise Conflict("the machine has this conversation")


async def admin(request: Req, shop: Shop) -> int:
    """The admin who calls, as Postgres says at this moment. Raises: BadToken, Forbidden."""
    session = acting(request, shop)
    now = await staff.find(shop.deps.pg, session.user_id)
    if session.role != "admin" or now is None or now.role != "admin":
        raise Forbidden(attend.NO_ADMIN)
    return session.user_id


def _card(found: agents.Card) -> Conversation:
    *fields, _ = msgspec.structs.astuple(found)
    return Conversation(*fields)
