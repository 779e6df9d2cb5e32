"""Admin: products and the trail of changes, for sellers (their own) and admins (all)."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, patch, post, put
from litestar.params import JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from app.base.money import MINOR_DIGITS
from app.domain import changes, products
from app.errors import Forbidden, Malformed
from app.flows import curate
from app.infra.secrets import Session
from app.shop import Shop
from app.web.bodies import Id, Line, Text, exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.params import MAX_ID, Cursor, OptionalId, ProductId

STAFF = frozenset({"seller", "admin"})

# The bounds that the database checks (sql/migrations/0001_spine.sql).
Title = Annotated[Line, Meta(max_length=200)]
Description = Annotated[Text, Meta(max_length=4000)]
Category = Annotated[Line, Meta(max_length=60)]
Price = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
Discount = Annotated[int, Meta(ge=0, le=10_000)]
Span = Annotated[int, Meta(ge=1, le=100_000)]


class NewProduct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product to sell. `seller_id` may be left out by sellers; kind, currency and seller are final."""

    title: Title
    category: Category
    kind: Literal["unit", "shared", "made", "shipped"]
    currency: Annotated[str, Meta(max_length=3)]
    list_price_minor: Price
    seller_id: Id | None = None
    description: Description = ""
    discount_bp: Discount = 0
    duration_days: Span | None = None
    lead_time_h: Span | None = None
    active: bool = True


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change: fields that are left out stay. `version` (or `If-Match`) is the one that you have seen."""

    version: Annotated[int, Meta(ge=1, le=MAX_ID)] | UnsetType = UNSET
    title: Title | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    category: Category | UnsetType = UNSET
    list_price_minor: Price | UnsetType = UNSET
    discount_bp: Discount | UnsetType = UNSET
    duration_days: Span | UnsetType | None = UNSET
    lead_time_h: Span | UnsetType | None = UNSET
    active: bool | UnsetType = UNSET


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every buyer of a shared product gets; it is sealed at once, and no answer shows it again."""

    content: Annotated[Line, Meta(max_length=100_000)]


class UnitCounts(msgspec.Struct, frozen=True):
    """Units by state; `expired` were for sale once and are past their date."""

    available: int
    expired: int
    held: int
    sold: int
    withdrawn: int


class Product(msgspec.Struct, frozen=True):
    """A product as its staff see it."""

    id: int
    version: int
    seller_id: int
    seller_name: str
    title: str
    description: str
    category: str
    kind: str
    currency: str
    list_price_minor: int
    discount_bp: int
    duration_days: int | None
    lead_time_h: int | None
    active: bool
    created_at: datetime
    has_content: bool
    units: UnitCounts


class ProductList(msgspec.Struct, frozen=True):
    products: list[Product]
    next_cursor: str | None


class Change(msgspec.Struct, frozen=True):
    """Who changed what, and when; `what` has each field, old and new."""

    id: int
    at: datetime
    user_id: int | None
    user_name: str | None
    role: str
    noun: str
    product_id: int | None
    promo: str | None  # the code
    webhook_id: UUID | None
    channel_id: int | None
    what: dict[str, Any]


class ChangeList(msgspec.Struct, frozen=True):
    """The newest changes first."""

    changes: list[Change]
    next_cursor: str | None


@get("/api/admin/products", limits=("address", "admin"))
async def list_admin_products(
    request: Req,
    shop: TheShop,
    q: Annotated[str, QueryParameter(max_length=100, pattern=r"^[^\x00]*$")] = "",
    seller: OptionalId = None,
    active: Annotated[bool | None, QueryParameter()] = None,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=curate.MAX_PAGE)] = 50,
) -> ProductList:
    """Your products, active or not, with their units by state."""
    session = acting(request, shop)
    wanted = products.Filter(q.strip(), seller, active)
    found = await products.page(shop.deps.pg, session.user_id, wanted, after=int(cursor or 0), size=limit + 1)
    if not found:
        await curate.require_staff(shop, session.user_id)
    more = len(found) > limit
    return ProductList([_product(card) for card in found[:limit]], str(found[limit - 1].id) if more else None)


@post("/api/admin/products", limits=("address", "admin"), status_code=201)
async def create_product(request: Req, data: JSONBody[NewProduct], shop: TheShop) -> Response[Product]:
    """A new product."""
    session = acting(request, shop)
    body = await exact(request, NewProduct)
    if body.currency not in MINOR_DIGITS:
        raise Malformed(f"currency: one of {', '.join(MINOR_DIGITS)}")
    if (body.kind == "made") != (body.lead_time_h is not None):
        raise Malformed("lead_time_h: what is made to order has one, and nothing else has")
    fields = msgspec.structs.asdict(body)
    card = await curate.create(shop, session.user_id, fields.pop("seller_id"), fields)
    return _answer(card, status=201)


@get("/api/admin/products/{product_id:int}", limits=("address", "admin"))
async def show_admin_product(request: Req, product_id: ProductId, shop: TheShop) -> Response[Product]:
    """One of your products; its `ETag` is its version."""
    session = acting(request, shop)
    return _answer(await curate.find(shop, session.user_id, product_id))


@patch("/api/admin/products/{product_id:int}", limits=("address", "admin"))
async def change_product(request: Req, product_id: ProductId, data: JSONBody[Edit], shop: TheShop) -> Response[Product]:
    """The fields that you send are changed, unless somebody changed the product after the version that you name."""
    session = acting(request, shop)
    body = await exact(request, Edit)
    version = seen(request, body.version)
    fields = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    fields.pop("version", None)
    return _answer(await curate.change(shop, session.user_id, product_id, version, fields))


@put("/api/admin/products/{product_id:int}/content", limits=("address", "admin"))
async def share_content(
    request: Req, product_id: ProductId, data: JSONBody[Content], shop: TheShop
) -> Response[Product]:
    """What every buyer of this shared product gets, those of earlier orders too."""
    session = acting(request, shop)
    body = await exact(request, Content)
    return _answer(await curate.share(shop, session.user_id, product_id, body.content))


@get("/api/admin/changes", limits=("address", "admin"))
async def list_changes(
    request: Req,
    shop: TheShop,
    product_id: OptionalId = None,
    cursor: Cursor = "",
    limit: Annotated[int, QueryParameter(ge=1, le=curate.MAX_PAGE)] = 50,
) -> ChangeList:
    """What was changed about your products, their stock, your promo codes and webhooks."""
    session = acting(request, shop)
    before = int(cursor or MAX_ID)
    found = await changes.newest(shop.deps.pg, session.user_id, product_id=product_id, before=before, size=limit + 1)
    if not found:
        await curate.require_staff(shop, session.user_id)
    more = len(found) > limit
    return ChangeList([_change(one) for one in found[:limit]], str(found[limit - 1].id) if more else None)


def acting(request: Req, shop: Shop) -> Session:
    """The session of who was staff when it began; the statements ask Postgres again. Raises: BadToken, Forbidden."""
    session = signed_in(request, shop)
    if session.role not in STAFF:
        raise Forbidden(curate.NO_STAFF)
    return session


def seen(request: Req, version: int | UnsetType) -> int:
    """The version that the caller has seen, by header or as the body names it. Raises: Malformed."""
    header = request.headers.get("if-match", "").strip().removeprefix("W/").strip('"')
    if header and not (header.isascii() and header.isdigit() and 0 < len(header) < 19):
        raise Malformed("If-Match: the ETag as you have read it")
    named = {int(header)} if header else set()
    if version is not UNSET:
        named.add(version)
    if len(named) != 1:
        raise Malformed("send the version that you have seen, as If-Match or as `version`")
    return named.pop()


def _answer(card: products.Card, status: int = 200) -> Response[Product]:
    headers = {"ETag": f'"{card.version}"'}
    if status == 201:
        headers["Location"] = f"/api/admin/products/{card.id}"
    return Response(_product(card), status_code=status, headers=headers)


def _product(card: products.Card) -> Product:
    fields = {name: getattr(card, name) for name in Product.__struct_fields__ if name != "units"}
    units = UnitCounts(*(getattr(card, name) for name in UnitCounts.__struct_fields__))
    return Product(**fields, units=units)


def _change(one: changes.Change) -> Change:
    what = msgspec.json.decode(one.what, type=dict[str, Any])
    return Change(
        one.id, one.at, one.user_id, one.user_name, one.role, one.noun, one.noun_id, one.promo, one.webhook_id,
        one.channel_id, what
    )  # fmt: skip
