"""Money back: whole or in part, to the balance or over the rail, once; and what was not made in time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from app.base.money import Money
from app.errors import ProviderDown
from app.flows.refund import overdue
from app.gateways.base import Refunded, RefundRefused
from app.infra.embedded import Servers
from tests.flows.scripted import PRICE, Scripted, Sold, hear, sell
from tests.flows.test_money import balance, entries, someone, told
from tests.web.test_hooks import later
from tests.web.test_shop import in_module, own_world
from tests.world import Buyer, World, invoice_of
from workers import jobs

ADMIN = 778


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "refunds", 5, gateway_timeout_ms=2000, admins=str(ADMIN)) as opened:
        yield opened


async def bought(world: World, **product: Any) -> tuple[Buyer, str]:
    """A delivered (or preordered) order over 100.00 RUB."""
    product_id = await world.product(*([] if product else [f"KEY-{uuid4()}"]), **product)
    buyer = await someone(world)
    placed = (await buyer.order((product_id, 1))).json()
    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()
    return buyer, placed["order"]["id"]


async def refund(
    world: World, order: str, target: str = "balance", amount: int | None = None, key: str = "", by: int = ADMIN
) -> httpx.Response:
    admin = await world.buyer(by)
    body = {"target": target, "note": "broken"} | ({"amount_minor": amount} if amount else {})
    headers = admin.headers | {"Idempotency-Key": key or str(uuid4())}
    return await world.http.post(f"/api/admin/orders/{order}/refunds", json=body, headers=headers)


@in_module
async def test_a_whole_refund_is_on_the_balance_once(shared: World) -> None:
    buyer, order = await bought(shared)
    first = await refund(shared, order, key="k")
    again = await refund(shared, order, key="k")
    assert (first.status_code, first.json()["amount_minor"], first.json()["state"]) == (201, 10_000, "done")
    assert again.json() == first.json()
    await shared.shop.deps.redis.command("FLUSHDB")
    assert (await refund(shared, order, key="k")).json() == first.json()  # Postgres knows it too
    assert (await refund(shared, order)).status_code == 409
    await shared.drain()
    assert (await balance(buyer), await buyer.status(order)) == (10_000, "refunded")
    assert await entries(buyer) == [("refund", 10_000)]
    assert "100.00 RUB refunded in all" in told(shared, buyer)[-1]
    history = "SELECT role, note FROM order_events WHERE order_id = $1 ORDER BY id DESC LIMIT 1"
    (row,) = await shared.pg.fetch(history, (UUID(order),))
    assert tuple(row) == ("admin", "refund of 10000 to balance: broken")


@in_module
async def test_parts_add_up_to_the_price_and_no_further_however_many_ask_at_once(shared: World) -> None:
    buyer, order = await bought(shared)
    answers = await asyncio.gather(*(refund(shared, order, amount=3000) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert (await balance(buyer), await buyer.status(order)) == (9000, "partially_refunded")
    assert (await refund(shared, order, amount=1001)).status_code == 409
    assert (await refund(shared, order)).json()["amount_minor"] == 1000  # what is left
    listed = await shared.http.get(f"/api/admin/orders/{order}/refunds", headers=(await shared.buyer(ADMIN)).headers)
    assert sum(r["amount_minor"] for r in listed.json()["refunds"]) == 10_000


@in_module
async def test_goods_that_were_not_delivered_are_for_sale_again(shared: World) -> None:
    product = await shared.product(kind="shipped", pieces=1)
    buyer = await someone(shared)
    placed = (await buyer.order((product, 1))).json()
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    await refund(shared, placed["order"]["id"], amount=1)
    await shared.drain()
    unit = "SELECT state FROM stock_items WHERE product_id = $1"
    assert await shared.scalar(unit, product) == "sold"
    await refund(shared, placed["order"]["id"])
    await shared.drain()
    assert await shared.scalar(unit, product) == "available"
    assert (await (await someone(shared)).order((product, 1))).status_code == 201


@in_module
async def test_only_admins_refund_and_only_what_was_paid(shared: World) -> None:
    buyer, order = await bought(shared)
    assert (await refund(shared, order, by=buyer.telegram_id)).status_code == 403
    unpaid = (await buyer.order((await shared.product("K"), 1))).json()["order"]["id"]
    assert (await refund(shared, unpaid)).status_code == 409
    assert (await refund(shared, str(uuid4()))).status_code == 409
    assert (await refund(shared, "x")).status_code == 404
    assert (await refund(shared, order, target="rail")).status_code == 409  # CrystalPay sends nothing back
    assert await balance(buyer) == 0


@in_module
async def test_who_is_no_admin_any_more_refunds_nothing(shared: World) -> None:
    """The token says so for an hour; Postgres is asked again."""
    buyer, order = await bought(shared)
    headers = (await shared.buyer(ADMIN)).headers | {"Idempotency-Key": "k2"}
    role = "UPDATE users SET role = $2 WHERE telegram_id = $1"
    await shared.pg.fetch(role, (ADMIN, "buyer"))
    path = f"/api/admin/orders/{order}/refunds"
    assert (await shared.http.post(path, json={"target": "balance"}, headers=headers)).status_code == 409
    await shared.pg.fetch(role, (ADMIN, "admin"))
    assert await balance(buyer) == 0


@in_module
async def test_money_that_came_and_went_before_we_heard_of_it_brings_no_goods(shared: World) -> None:
    gateway, _, (sold,) = await sell(shared, 1)
    gateway.say(sold.invoice, "refunded", came=PRICE, back=PRICE)
    await jobs.run(shared.shop, await hear(shared, sold, "refunded", "refunded"))
    assert await shared.scalar("SELECT status FROM orders WHERE id = $1", sold.order_id) == "refunded"
    assert (
        await shared.scalar("SELECT count(*) FROM outbox WHERE kind = 'deliver' AND key = $1", str(sold.order_id)) == 0
    )
    await shared.drain()
    unit = "SELECT s.state FROM stock_items s JOIN order_items i ON i.stock_item_id = s.id WHERE i.order_id = $1"
    assert await shared.scalar(unit, sold.order_id) == "available"


async def railed(world: World, gateway: Scripted, sold: Sold) -> str:
    """An order that was paid by the scripted gateway and refunded over it; the job of the call is due."""
    gateway.say(sold.invoice, "paid", came=PRICE)
    await jobs.run(world.shop, await hear(world, sold, "paid", "paid"))
    world.app.state.shop.gateways["scripted"] = gateway
    made = await refund(world, str(sold.order_id), target="rail", amount=4000)
    assert (made.status_code, made.json()["state"]) == (201, "owed"), made.text
    return str(made.json()["id"])


@in_module
async def test_the_rail_is_told_with_one_key_until_it_answers(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, _, (sold,) = await sell(shared, 1)
    refund_id, told_, down = await railed(shared, gateway, sold), [], [True, True]

    async def answer(invoice_id: str, money: Money, key: str) -> Refunded:
        told_.append((invoice_id, money, key))
        if down:
            down.pop()
            raise ProviderDown("no answer")
        return Refunded("r-1")

    monkeypatch.setattr(gateway, "refund", answer)
    for _ in range(4):
        await later(shared)
    assert told_ == [(sold.invoice, Money(4000, "RUB"), refund_id)] * 3
    state = "SELECT state || ' ' || gateway_id FROM refunds WHERE id = $1"
    assert await shared.scalar(state, UUID(refund_id)) == "done r-1"
    # The gateway tells of the refund that we made: nothing more goes back.
    gateway.say(sold.invoice, "paid", came=PRICE, back=4000)
    await jobs.run(shared.shop, await hear(shared, sold, "refunded", "refunded"))
    assert await shared.scalar("SELECT refunded_minor FROM orders WHERE id = $1", sold.order_id) == 4000


@in_module
async def test_what_the_rail_refuses_is_on_the_balance(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, _, (sold,) = await sell(shared, 1)
    refund_id = await railed(shared, gateway, sold)

    async def refuse(invoice_id: str, money: Money, key: str) -> Refunded:
        raise RefundRefused("too old")

    monkeypatch.setattr(gateway, "refund", refuse)
    await later(shared)
    assert await shared.scalar("SELECT state FROM refunds WHERE id = $1", UUID(refund_id)) == "refused"
    assert await shared.scalar("SELECT balance_minor FROM balances WHERE user_id = $1", sold.user_id) == 4000
    assert "refused to refund 40.00 RUB" in str(shared.telegram.sent_to(ADMIN)[-1]["text"])


@in_module
async def test_what_is_made_to_order_is_handed_over_sealed_and_told(shared: World) -> None:
    buyer, order = await bought(shared, kind="made")
    assert await buyer.status(order) == "preorder"
    admin = await shared.buyer(ADMIN)
    path, made = f"/api/admin/orders/{order}/goods", {"position": 1, "content": "the painting"}
    assert (await shared.http.post(path, json=made, headers=buyer.headers)).status_code == 403
    handed = await shared.http.post(path, json=made, headers=admin.headers)
    assert (handed.status_code, handed.json()["status"]) == (200, "delivered")
    assert (await shared.http.post(path, json=made, headers=admin.headers)).status_code == 409
    await shared.drain()
    assert await buyer.goods(order) == ["the painting"]
    assert "the painting" in told(shared, buyer)[-1]
    sealed = await shared.scalar("SELECT sealed FROM made_goods WHERE order_id = $1", UUID(order))
    assert b"painting" not in sealed


@in_module
async def test_what_is_not_made_by_its_deadline_is_refunded_line_by_line(shared: World) -> None:
    made = [await shared.product(kind="made", price_minor=price) for price in (7000, 500)]
    key, buyer = await shared.product("KEY", price_minor=3000), await someone(shared)
    placed = (await buyer.order((made[0], 1), (made[1], 1), (key, 1))).json()
    order = placed["order"]["id"]
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    assert (await buyer.status(order), await buyer.goods(order)) == ("preorder", ["KEY"])
    assert await overdue(shared.shop) == 0
    passed = "UPDATE order_items SET due_at = now() - interval '1 second' WHERE order_id = $1 AND product_id = $2"
    await shared.pg.fetch(passed, (UUID(order), made[0]))
    assert await overdue(shared.shop) == 1
    assert await overdue(shared.shop) == 0
    await shared.drain()
    assert (await balance(buyer), await buyer.status(order)) == (7000, "partially_refunded")
    assert await buyer.goods(order) == ["KEY"]
    assert "not ready by its deadline" in told(shared, buyer)[-1]
    admin, path = (await shared.buyer(ADMIN)).headers, f"/api/admin/orders/{order}/goods"
    answers = [
        (await shared.http.post(path, json={"position": n, "content": f"made {n}"}, headers=admin)).status_code
        for n in (1, 2, 3)
    ]
    assert answers == [409, 200, 409]  # too late, in time, not made to order
    assert sorted(await buyer.goods(order)) == ["KEY", "made 2"]


@in_module
async def test_sellers_and_admins_hear_of_a_sale(shared: World) -> None:
    seller = await shared.buyer(4242, language="ru")
    await shared.product("x")  # there is a seller
    await shared.pg.fetch(
        "UPDATE users SET role = 'seller', seller_id = $1 WHERE telegram_id = 4242", (shared.seller_id,)
    )
    _, order = await bought(shared, kind="made", title="Картина")
    number = await shared.scalar("SELECT number FROM orders WHERE id = $1", UUID(order))
    assert "1 x Картина, до " in told(shared, seller)[-1]
    assert f"Order {number} is paid" in str(shared.telegram.sent_to(ADMIN)[-1]["text"])
