"""Money, as its buyer sees it: pay an order (again), read the balance."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from app.domain import ledger
from app.errors import Conflict
from app.flows import pay
from app.web.bodies import exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.once import Done, Reply, once_only
from app.web.orders import owned, view
from app.web.params import MAX_ID, QueryId


class NewPayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to pay: a gateway of this shop, or `balance`."""

    provider: Annotated[str, Meta(min_length=1, max_length=32)]


class Posted(msgspec.Struct, frozen=True):
    """One line of a statement: what came is positive, what went negative."""

    id: int
    at: datetime
    reason: str
    currency: str
    amount_minor: int
    order_id: UUID | None
    order_number: int | None


class Funds(msgspec.Struct, frozen=True):
    """What you have, and how it came about: the newest lines first, ask on with `before` = the last one's id."""

    balances: list[ledger.Balance]
    entries: list[Posted]


@post("/api/orders/{order_id:str}/payments", status_code=200, limits=("address", "orders"))
async def pay_order(
    request: Req, order_id: FromPath[str], data: JSONBody[NewPayment], shop: TheShop
) -> Response[bytes]:
    """Your unpaid order with a link to pay what it lacks, or paid from your balance.

    A repeat with the same `Idempotency-Key` answers with the same bytes. Paying twice is never possible: money that
    comes on top is on your balance.
    """
    session = signed_in(request, shop)
    order = await owned(shop, order_id, session.user_id)
    body = await exact(request, NewPayment)

    async def work(key: str, print: bytes) -> Done:
        paid = await pay.pay(shop, order.id, session.user_id, body.provider)
        if paid is None:
            now = await owned(shop, order_id, session.user_id)
            raise Conflict(f"the order is {now.status}, or its time is nearly up", order_status=now.status)
        return Done(Reply(200, "", msgspec.json.encode(view(paid))), repeated=False)

    return await once_only(request, shop, session.user_id, work)


@get("/api/balance", limits=("browse",))
async def show_balance(
    request: Req,
    shop: TheShop,
    before: QueryId = MAX_ID,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
) -> Funds:
    """Your balance in each currency and its statement."""
    session = signed_in(request, shop)
    balances = await ledger.balances(shop.deps.pg, session.user_id)
    entries = await ledger.statement(shop.deps.pg, session.user_id, before=before, size=limit)
    return Funds(balances, [Posted(*msgspec.structs.astuple(entry)) for entry in entries])
