"""Money and goods of orders that people move: paid late, in parts, back in part, with a code, or moved at once."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest_asyncio

from app.infra.embedded import Servers
from app.infra.sql import queries
from app.sandbox.crystalpay_wire import Payment
from tests.flows.test_money import balance, lapse, ordered, someone
from tests.flows.test_moves import events_of, patch, shipped
from tests.web.test_admin import acting, call
from tests.web.test_shop import in_module, own_world
from tests.world import Buyer, World, invoice_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "moves_money", 9) as opened:
        yield opened


async def rated(buyer: Buyer, product: int) -> int:
    body = {"rating": 5, "text": "well"}
    return (await buyer.http.put(f"/api/products/{product}/review", json=body, headers=buyer.headers)).status_code


async def with_code(buyer: Buyer, *products: int) -> httpx.Response:
    lines = [{"product_id": product, "quantity": 1} for product in products]
    body = {"lines": lines, "provider": "crystalpay", "promo": "ONCE-ONLY"}
    headers = buyer.headers | {"Idempotency-Key": str(uuid4())}
    return await buyer.http.post("/api/orders", json=body, headers=headers)


@in_module
async def test_an_order_moved_on_unpaid_is_paid_later_and_announced_as_paid(shared: World) -> None:
    buyer, seller, order = await shipped(shared, pay=False)
    for status in ("confirmed", "in_delivery", "delivered"):
        assert (await patch(seller, order, status)).status_code == 200
    await shared.drain()
    product = await shared.scalar("SELECT product_id FROM order_items WHERE order_id = $1", UUID(order))
    assert await rated(buyer, product) == 403
    assert (await buyer.pay(order, provider="balance")).status_code == 409  # there is nothing on it
    again = (await buyer.pay(order)).json()
    await shared.crystalpay.pay(invoice_of(again))
    await shared.drain()
    card = (await buyer.get(f"/api/orders/{order}")).json()
    assert (card["order"]["status"], bool(card["order"]["paid_at"])) == ("delivered", True)
    assert [step["to"] for step in card["history"]][-2:] == ["paid", "delivered"]
    assert "paid" in await events_of(shared, buyer, order)
    kinds = "SELECT count(*) FROM outbox WHERE key = $1 AND kind IN ('alert', 'supply', 'reward', 'rank', 'announce')"
    assert await shared.scalar(kinds, order) == 5
    assert await rated(buyer, product) == 201


@in_module
async def test_part_payments_of_an_order_moved_on_unpaid_add_up(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    seller = await acting(shared, "seller", shared.seller_id)
    assert (await patch(seller, order, "confirmed")).status_code == 200
    for minor in (6_000, 10_000):
        await shared.crystalpay.pay(invoice, Payment(amount=f"{minor / 100:.2f}"))
        await shared.drain()
    assert await balance(buyer) == 0
    assert await shared.scalar("SELECT paid_at IS NOT NULL FROM orders WHERE id = $1", UUID(order))


@in_module
async def test_a_partial_refund_does_not_stop_an_order_in_progress(shared: World) -> None:
    buyer, seller, order = await shipped(shared)
    admin = await acting(shared, "admin")
    assert (await patch(seller, order, "confirmed")).status_code == 200
    body = {"target": "balance", "amount_minor": 100, "note": "watch him"}
    headers = admin.headers | {"Idempotency-Key": "part"}
    made = await shared.http.post(f"/api/admin/orders/{order}/refunds", json=body, headers=headers)
    assert made.status_code == 201, made.text
    for status in ("in_delivery", "delivered"):
        assert (await patch(seller, order, status)).status_code == 200
    await shared.drain()
    card = await buyer.get(f"/api/orders/{order}")
    assert (card.json()["order"]["refunded_minor"], "watch him" in card.text) == (100, False)
    assert await events_of(shared, buyer, order) == ["paid", "confirmed", "in_delivery", "delivered"]


@in_module
async def test_a_cancelled_paid_order_has_used_its_promo_code(shared: World) -> None:
    admin = await acting(shared, "admin")
    code = await call(
        admin, "POST", "promos", {"code": "ONCE-ONLY", "discount_bp": 1000, "most_uses": 9, "per_user": 1}
    )
    assert code.status_code == 201, code.text
    key, thing = await shared.product("K-1", "K-2"), await shared.product(kind="shipped", pieces=2)
    buyer = await someone(shared)
    placed = (await with_code(buyer, key, thing)).json()
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    order = placed["order"]["id"]
    for who, status in ((admin, "confirmed"), (buyer, "cancelled")):
        assert (await patch(who, order, status)).status_code == 200
    await shared.drain()
    assert (await with_code(buyer, key)).status_code == 409
    headers = admin.headers | {"Idempotency-Key": "rest"}
    rest = await shared.http.post(f"/api/admin/orders/{order}/refunds", json={"target": "balance"}, headers=headers)
    assert rest.status_code == 201, rest.text
    await shared.drain()
    assert await buyer.status(order) == "cancelled"


@in_module
async def test_a_move_that_waited_for_another_sees_the_goods_that_there_are_then(shared: World) -> None:
    """An expired order is revived while its buyer's cancel waits for it: the units that it has now are free again."""
    buyer, order, _, product = await ordered(shared)
    await lapse(shared, order)
    async with shared.pg.pool.acquire() as connection, connection.transaction():
        revived = await connection.fetch(queries("orders")["revive_order"].text, UUID(order), 600)
        assert revived
        cancel = asyncio.create_task(patch(buyer, order, "cancelled"))
        await asyncio.sleep(0.3)
        assert not cancel.done()
    answer = await cancel
    assert (answer.status_code, answer.json()["order"]["status"]) == (200, "cancelled")
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"
