"""Admin, stock: units in, units out, and what is there; a secret goes in and is never shown again."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from app.base.ids import parse_id
from app.domain import units
from app.errors import Duplicates, Malformed
from app.flows import curate, shelve
from app.shop import Shop
from app.web.admin import acting
from app.web.bodies import Id, Line, exact
from app.web.handler import Req, TheShop
from app.web.once import Done, Reply, answer, once_only
from app.web.params import QueryId

NEWEST = UUID(int=2**128 - 1)

Secret = Annotated[Line, Meta(max_length=units.MAX_SECRET)]
Discount = Annotated[int, Meta(ge=0, le=10_000)]
Moment = Annotated[datetime, Meta(tz=True)]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret with a discount or an end of its own."""

    secret: Secret
    discount_bp: Discount | None = None
    expires_at: Moment | None = None


class NewStock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either `secrets` (blanks around them are not part of them) or `pieces` without any; the rest is for all."""

    product_id: Id
    secrets: Annotated[list[Secret | Item], Meta(min_length=1, max_length=shelve.MAX_SECRETS)] | None = None
    pieces: Annotated[int, Meta(ge=1, le=shelve.MAX_PIECES)] | None = None
    discount_bp: Discount = 0
    expires_at: Moment | None = None
    skip_duplicates: bool = False


class Shelved(msgspec.Struct, frozen=True):
    """So many units are new; `skipped` were there before."""

    product_id: int
    added: int
    skipped: list[shelve.Twice]


class StockList(msgspec.Struct, frozen=True):
    """The newest units first."""

    units: list[units.Row]
    next_cursor: str | None


class Recall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units to take off the shelf."""

    product_id: Id
    ids: Annotated[list[UUID], Meta(min_length=1, max_length=shelve.MAX_SECRETS)]


class Withdrawn(msgspec.Struct, frozen=True):
    """`withdrawn` are off the shelf; `kept` were not for sale: held, sold, withdrawn before, or unknown."""

    withdrawn: list[UUID]
    kept: list[UUID]


@post(
    "/api/admin/stock",
    limits=("address", "admin"),
    status_code=201,
    responses={201: ResponseSpec(Shelved, generate_examples=False)},
)
async def add_stock(request: Req, data: JSONBody[NewStock], shop: TheShop) -> Response[bytes]:
    """New units: all of them, or none when one is there already (unless `skip_duplicates`).

    Pieces are alike, so only an `Idempotency-Key` tells a repeat from more of them.
    """
    session = acting(request, shop)
    body = await exact(request, NewStock)
    if (body.secrets is None) == (body.pieces is None):
        raise Malformed("send either secrets or pieces")

    async def work(key: str, print: bytes) -> Done:
        actor = units.Actor(session.user_id, request=units.Request(key, print) if key else None)
        added = await _shelved(shop, actor, body)
        shown = msgspec.json.encode(Shelved(body.product_id, added.units, added.duplicates))
        return Done(Reply(201 if added.units else 200, "", shown), added.repeated)

    if "idempotency-key" in request.headers:
        return await once_only(request, shop, session.user_id, work)
    return answer((await work("", b"")).reply, replayed=False)


async def _shelved(shop: Shop, actor: units.Actor, body: NewStock) -> shelve.Added:
    if body.secrets is None:
        pieces = body.pieces or 0
        return await shelve.shelve_pieces(shop, actor, body.product_id, pieces, body.discount_bp, body.expires_at)
    given = [_unit(line, one, body) for line, one in enumerate(body.secrets, 1)]
    added = await shelve.shelve(shop, actor, body.product_id, given, skip_duplicates=body.skip_duplicates)
    if isinstance(added, shelve.Clash):
        twice = added.duplicates
        raise Duplicates(f"{len(twice)} of {len(given)} were there; nothing is added", duplicates=twice)
    return added


@get("/api/admin/stock", limits=("address", "admin"))
async def list_stock(
    request: Req,
    shop: TheShop,
    product_id: QueryId,
    only: Annotated[Literal["", "available", "held", "sold", "withdrawn"], QueryParameter(name="state")] = "",
    cursor: Annotated[str, QueryParameter(max_length=36)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=shelve.MAX_PAGE)] = 50,
) -> StockList:
    """A product's units, without their secrets."""
    session = acting(request, shop)
    before = parse_id(cursor) if cursor else NEWEST
    if before is None:
        raise Malformed("cursor: not one of ours")
    found = await units.newest(shop.deps.pg, session.user_id, product_id, state=only, before=before, size=limit + 1)
    if found is None:
        await curate.refuse(shop, session.user_id, product_id)
    more = len(found) > limit
    return StockList(found[:limit], str(found[limit - 1].id) if more else None)


@post("/api/admin/stock/withdraw", limits=("address", "admin"), status_code=200)
async def withdraw_stock(request: Req, data: JSONBody[Recall], shop: TheShop) -> Withdrawn:
    """These units are no longer for sale, except those that somebody holds or has bought."""
    session = acting(request, shop)
    body = await exact(request, Recall)
    gone = await shelve.withdraw(shop, session.user_id, body.product_id, body.ids)
    kept = [item for item in dict.fromkeys(body.ids) if item not in set(gone)]
    return Withdrawn(gone, kept)


def _unit(line: int, one: str | Item, body: NewStock) -> units.Unit:
    item = Item(one) if isinstance(one, str) else one
    discount_bp = body.discount_bp if item.discount_bp is None else item.discount_bp
    return units.Unit(line, item.secret.strip(), discount_bp, item.expires_at or body.expires_at)
