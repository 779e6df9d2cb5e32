"""The shop's front: sign in, look around."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import MediaType, get, post
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody, QueryParameter
from litestar.response.base import ASGIResponse
from msgspec import Meta

from app.base.money import MINOR_DIGITS
from app.domain import catalog, ledger
from app.errors import Malformed
from app.flows import browse, confirm, present, sign_in
from app.flows.present import Product, Shelf
from app.web.again import ENTRY, Again
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.params import ProductId


class Enter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the Mini App got from Telegram, unchanged."""

    init_data: Annotated[str, Meta(min_length=1, max_length=8192)]


class User(msgspec.Struct, frozen=True):
    id: int
    name: str
    role: str


class Entered(msgspec.Struct, frozen=True):
    """A bearer token and its end."""

    token: str
    expires_at: datetime
    user: User


class Way(msgspec.Struct, frozen=True):
    """A way to pay here, and the currencies that it takes; `balance` is the buyer's own money."""

    provider: str
    currencies: list[str]


class Me(msgspec.Struct, frozen=True):
    """What the token proves, how its owner can pay, and where news go by mail; `email_asked` waits to be confirmed."""

    user_id: int
    role: str
    expires_s: int
    pay_with: list[Way]
    email: str | None
    email_asked: str | None


@post("/api/session", status_code=200, limits=("address", "session"))
async def open_session(data: JSONBody[Enter], shop: TheShop) -> Entered:
    """Telegram initData for a short session token."""
    entered = await sign_in.sign_in(shop, data.init_data)
    user = User(entered.user.id, entered.user.name, entered.user.role)
    return Entered(entered.token, entered.expires_at, user)


@get("/api/me", limits=("browse",))
async def me(request: Req, shop: TheShop) -> Me:
    """Who the token says you are, the ways to pay, and where news go by mail."""
    session = signed_in(request, shop)
    known = await confirm.known(shop, session.user_id)
    ways = [Way(name, sorted(gateway.traits.currencies)) for name, gateway in shop.gateways.items()]
    ways.append(Way(ledger.BALANCE, sorted(MINOR_DIGITS)))
    return Me(session.user_id, session.role, session.expires_s, ways, known.email, known.email_asked)


@get(
    "/api/catalog",
    limits=("search",),
    middleware=[Again],
    responses={200: ResponseSpec(Shelf, generate_examples=False)},
)
async def list_products(
    request: Req,
    shop: TheShop,
    text: Annotated[str, QueryParameter(name="query", max_length=100)] = "",
    category: Annotated[str, QueryParameter(max_length=60)] = "",
    cursor: Annotated[str, QueryParameter(max_length=30)] = browse.START,
    limit: Annotated[int, QueryParameter(ge=1, le=browse.MAX_PAGE)] = 24,
) -> ASGIResponse:
    """The shelf page by page: all of it by id, or what has every word of `query`, the best fit first."""
    if "\0" in text or "\0" in category:
        raise Malformed("query: holds NUL")
    ask = browse.Ask(text.strip(), category, cursor, limit)
    request.scope["state"][ENTRY] = browse.entry_of(ask)
    return _as_it_is(await browse.browse(shop, ask, present.shelf))


@get(
    "/api/products/{product_id:int}",
    limits=("browse",),
    middleware=[Again],
    responses={200: ResponseSpec(Product, generate_examples=False)},
)
async def show_product(request: Req, product_id: ProductId, shop: TheShop) -> ASGIResponse:
    """One product; what is left and its price as of a few seconds ago."""
    request.scope["state"][ENTRY] = catalog.product_entry(product_id)
    return _as_it_is(await browse.look(shop, product_id, present.card))


def _as_it_is(body: bytes) -> ASGIResponse:
    """Encoded JSON as Litestar sends it in the end; its Response would be copied and converted to this first."""
    return ASGIResponse(body=body, media_type=MediaType.JSON)
