"""The source's payment handler as far as the paid order, on our schema: its 12 queries in a row, each a transaction.

`bench/settle.py` serves it in as many processes as `torg web`, and exactly as that is served. Crypto Pay's signature is
proven over the raw body before anything is believed, like Torg does. Spared, each to its advantage: goods (2 queries
of the 14 in `baseline.py`, which tells what else is), the inbox, the audit line, rate limits and the log. What the
source called its balance transaction is our posting, so that one ledger checks both.
"""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from litestar import Litestar, Response, get, post
from litestar.exceptions import HTTPException

from app.sandbox.cryptopay_wire import SIGNATURE, sign
from app.settings import Settings
from bench.baseline import (
    CHECK_STOCK,
    FIND_ORDER,
    NOBODY,
    NOTHING,
    READ_ADMINS,
    READ_FOR_NOTICE,
    READ_ITEMS,
    READ_NAMES,
    READ_REFERRAL,
    READ_USER,
    SET_STATUS,
    Desk,
    Queries,
    Req,
    check,
    serve,
    units,
)

CONNECTIONS = 8  # as many as one `torg web` has

FIND_PAYMENT = "SELECT order_id FROM payments WHERE provider = 'cryptopay' AND invoice_id = $1"
SET_PAYMENT = """
WITH paid AS (
    UPDATE payments SET status = 'paid', received_minor = amount_minor, paid_at = now(), poll_at = NULL
     WHERE provider = 'cryptopay' AND invoice_id = $2)
UPDATE orders SET paid_by = 'cryptopay:' || $2 WHERE id = $1"""
BOOK = """
INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id)
SELECT 'sale:' || o.id, 'gateway:cryptopay', 'sales:' || o.seller_id, o.total_minor, o.currency, 'sale', o.id
  FROM orders o WHERE o.id = $1"""

WARM_UP: Queries = (
    (FIND_PAYMENT, (NOTHING,)), (FIND_ORDER, (NOBODY,)), (READ_ITEMS, (NOBODY,)), (CHECK_STOCK, ([NOBODY],)),
    (SET_PAYMENT, (NOBODY, NOTHING)), (SET_STATUS, (NOBODY,)), (READ_FOR_NOTICE, (NOBODY,)), (READ_NAMES, (NOBODY,)),
    (READ_USER, (0,)), (READ_ADMINS, ()), (BOOK, (NOBODY,)), (READ_REFERRAL, (0,)),
)  # fmt: skip


class Invoice(msgspec.Struct, frozen=True):
    """What the handler reads of Crypto Pay's invoice; `payload` begins with our order's id."""

    invoice_id: int
    status: str
    payload: str


class Update(msgspec.Struct, frozen=True):
    update_type: str
    payload: Invoice


async def settle(db: Any, told: Invoice) -> None:
    """The order is paid, one query after another."""
    invoice_id = str(told.invoice_id)
    found = await db.fetch(FIND_PAYMENT, invoice_id)
    (order,) = await db.fetch(FIND_ORDER, found[0]["order_id"] if found else UUID(told.payload[:36]))
    if order["status"] != "pending":
        return  # all that this design has against repeats
    order_id, user_id = order["id"], order["user_id"]
    check(await db.fetch(CHECK_STOCK, units(await db.fetch(READ_ITEMS, order_id))))
    await db.fetch(SET_PAYMENT, order_id, invoice_id)
    await db.fetch(SET_STATUS, order_id)
    await db.fetch(READ_FOR_NOTICE, order_id)
    await db.fetch(READ_NAMES, order_id)
    await db.fetch(READ_USER, user_id)
    await db.fetch(READ_ADMINS)
    await db.fetch(BOOK, order_id)
    await db.fetch(READ_REFERRAL, user_id)


def create_app(settings: Settings) -> Litestar:
    """The handler; `/answer` proves a callback and does nothing; `/ready` answers once every connection is warm."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Desk.opened(settings.database_url, CONNECTIONS, WARM_UP) as desk:
            app.state.desk = desk
            yield

    async def proven(request: Req) -> bytes:
        body = await request.body()
        given = request.headers.get(SIGNATURE, "")
        if not hmac.compare_digest(given, sign(body, settings.gateways["cryptopay"]["token"])):
            raise HTTPException(status_code=401)
        return body

    @post("/answer", status_code=200)
    async def answer(request: Req) -> Response[bytes]:
        await proven(request)
        return Response(b'{"ok":true}', media_type="application/json")

    @post("/settle", status_code=200)
    async def paid(request: Req) -> Response[bytes]:
        update = msgspec.json.decode(await proven(request), type=Update)
        if (update.update_type, update.payload.status) != ("invoice_paid", "paid"):
            raise HTTPException(status_code=422)  # the bench sends no others
        async with request.app.state.desk.held(1) as (db,):
            await settle(db, update.payload)
        return Response(b'{"ok":true}', media_type="application/json")

    @get("/ready")
    async def ready() -> None:
        return None

    return Litestar([paid, answer, ready], lifespan=[lifespan], openapi_config=None, logging_config=None, debug=False)


if __name__ == "__main__":
    serve(create_app)
