"""Admin: promo codes, for sellers (their own) and admins (all)."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from app.domain import promos
from app.errors import Malformed, NotFound
from app.flows import curate, promote
from app.web.admin import acting, seen
from app.web.bodies import Id, exact
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, Cursor

# The bounds that the database checks (sql/migrations/0007_growth.sql).
Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{2,40}$(?!\n)")]
Share = Annotated[int, Meta(ge=1, le=10_000)]
Uses = Annotated[int, Meta(ge=1, le=1_000_000_000)]
PerUser = Annotated[int, Meta(ge=1, le=100)]
Moment = Annotated[datetime, Meta(tz=True)]

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


class NewPromo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code for a seller's goods, or one product, or (admins) all. Code, seller and product are final."""

    code: Code
    discount_bp: Share
    most_uses: Uses
    per_user: PerUser = 1
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    active: bool = True
    seller_id: Id | None = None
    product_id: Id | None = None


class PromoEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change: fields that are left out stay. `version` (or `If-Match`) is the one that you have seen."""

    version: Annotated[int, Meta(ge=1, le=MAX_ID)] | UnsetType = UNSET
    discount_bp: Share | UnsetType = UNSET
    most_uses: Uses | UnsetType = UNSET
    per_user: PerUser | UnsetType = UNSET
    starts_at: Moment | UnsetType = UNSET
    ends_at: Moment | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET


class PromoList(msgspec.Struct, frozen=True):
    promos: list[promos.Promo]
    next_cursor: str | None


@get("/api/admin/promos", limits=("address", "admin"))
async def list_promos(
    request: Req,
    shop: TheShop,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=promote.MAX_PAGE)] = 50,
) -> PromoList:
    """Your promo codes, ended ones too, with their uses."""
    session = acting(request, shop)
    found = await promos.page(shop.deps.pg, session.user_id, after=int(cursor or 0), size=limit + 1)
    if not found:
        await curate.require_staff(shop, session.user_id)
    more = len(found) > limit
    return PromoList(found[:limit], str(found[limit - 1].id) if more else None)


@post("/api/admin/promos", limits=("address", "admin"), status_code=201)
async def create_promo(request: Req, data: JSONBody[NewPromo], shop: TheShop) -> Response[promos.Promo]:
    """A new promo code."""
    session = acting(request, shop)
    body = await exact(request, NewPromo)
    fields = msgspec.structs.asdict(body) | {"code": promos.spelt(body.code)}
    _check(fields)
    if body.starts_at and body.ends_at and body.ends_at <= body.starts_at:
        raise Malformed("ends_at: after starts_at")
    return _answer(await promote.create(shop, session.user_id, fields), status=201)


@patch("/api/admin/promos/{code:str}", limits=("address", "admin"))
async def change_promo(
    request: Req, code: FromPath[str], data: JSONBody[PromoEdit], shop: TheShop
) -> Response[promos.Promo]:
    """The fields that you send are changed, unless somebody changed the code after the version that you name."""
    session = acting(request, shop)
    body = await exact(request, PromoEdit)
    fields = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    fields.pop("version", None)
    _check(fields)
    version = seen(request, body.version)
    if "\0" in code:
        raise NotFound("no such code")
    return _answer(await promote.change(shop, session.user_id, promos.spelt(code), version, fields))


def _check(fields: dict[str, Any]) -> None:
    """Raises: Malformed for a moment that is a slip of the pen."""
    for name in ("starts_at", "ends_at"):
        at = fields.get(name)
        if at is not None and not EARLIEST <= at <= LATEST:
            raise Malformed(f"{name}: absurdly far away")


def _answer(promo: promos.Promo, status: int = 200) -> Response[promos.Promo]:
    return Response(promo, status_code=status, headers={"ETag": f'"{promo.version}"'})
