"""Admin, Telegram and other parties: messages to everybody, and which circuits are open."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Response, get, patch, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from app.domain import broadcasts, circuits
from app.errors import Forbidden
from app.flows import broadcast
from app.shop import Shop
from app.web.admin import acting
from app.web.bodies import Line, exact
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, Cursor

Said = Annotated[Line, Meta(max_length=4096)]  # characters; Telegram's own count is checked with them
BroadcastId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """By language; who reads Ukrainian gets the English text where there is none."""

    en: Said
    ru: Said
    uk: Said | None = None


class NewBroadcast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plain text, no markup, to all users or to those who have paid something."""

    texts: Texts
    audience: Literal["all", "buyers"] = "all"


class BroadcastMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["running", "paused", "cancelled"]


class Broadcast(msgspec.Struct, frozen=True):
    """How far it is: users who had it, who had stopped the bot, to whom it could not be sent."""

    id: int
    texts: dict[str, str]
    audience: str
    state: str
    sent: int
    blocked: int
    failed: int
    created_by: int
    created_at: datetime
    ended_at: datetime | None


class BroadcastList(msgspec.Struct, frozen=True):
    broadcasts: list[Broadcast]
    next_cursor: str | None


class CircuitList(msgspec.Struct, frozen=True):
    circuits: list[circuits.State]


@post("/api/admin/broadcasts", status_code=201, limits=("address", "admin"))
async def create_broadcast(request: Req, data: JSONBody[NewBroadcast], shop: TheShop) -> Response[Broadcast]:
    """A message to everybody is under way."""
    user_id = _admin(request, shop)
    body = await exact(request, NewBroadcast)
    said: dict[str, str] = msgspec.to_builtins(body.texts)
    return Response(_shown(await broadcast.create(shop, user_id, said, body.audience)), status_code=201)


@get("/api/admin/broadcasts", limits=("address", "admin"))
async def list_broadcasts(
    request: Req,
    shop: TheShop,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=broadcast.MAX_PAGE)] = 50,
) -> BroadcastList:
    """All broadcasts, the newest first."""
    user_id = _admin(request, shop)
    found = await broadcasts.page(shop.deps.pg, user_id, before=int(cursor or broadcasts.NEWEST), size=limit + 1)
    more = len(found) > limit
    return BroadcastList([_shown(one) for one in found[:limit]], str(found[limit - 1].id) if more else None)


@patch("/api/admin/broadcasts/{broadcast_id:int}", limits=("address", "admin"))
async def move_broadcast(
    request: Req, broadcast_id: BroadcastId, data: JSONBody[BroadcastMove], shop: TheShop
) -> Broadcast:
    """It pauses, goes on where it was, or ends. At most one message that is on its way still arrives."""
    user_id = _admin(request, shop)
    body = await exact(request, BroadcastMove)
    return _shown(await broadcast.move(shop, user_id, broadcast_id, body.state))


@get("/api/admin/circuits", limits=("address", "admin"))
async def list_circuits(request: Req, shop: TheShop) -> CircuitList:
    """Which outside parties are called, and which are left alone until when."""
    _admin(request, shop)
    return CircuitList([*await shop.circuits.list()])


def _shown(found: broadcasts.Broadcast) -> Broadcast:
    fields = msgspec.structs.asdict(found)
    return Broadcast(**fields | {"texts": msgspec.json.decode(found.texts)})


def _admin(request: Req, shop: Shop) -> int:
    """The admin who calls. Raises: BadToken, Forbidden."""
    session = acting(request, shop)
    if session.role != "admin":
        raise Forbidden("only admins may do this")
    return session.user_id
