"""What a review found: money and goods at the seams between two statements, two gateways, two people."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from app.base.money import Money
from app.flows.poll import poll
from app.flows.refund import overdue
from app.gateways.base import Refunded, RefundRefused
from app.infra.embedded import Servers
from tests.flows.scripted import PRICE, Scripted, Sold, hear, sell
from tests.flows.test_money import balance, lapse, ordered, someone, told
from tests.flows.test_refunds import bought, railed, refund
from tests.web.test_hooks import later
from tests.web.test_shop import in_module, own_world
from tests.world import World, invoice_of
from workers import jobs

ADMIN = 778


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "races", 7, gateway_timeout_ms=2000, admins=str(ADMIN)) as opened:
        yield opened


@asynccontextmanager
async def locked(world: World, query: str, key: object) -> AsyncIterator[None]:
    """Somebody else has these rows until the block ends, and changes nothing."""
    async with world.pg.pool.acquire() as connection, connection.transaction():
        await connection.fetch(f"{query} FOR UPDATE", key)
        yield


async def refuse(invoice_id: str, money: Money, key: str) -> Refunded:
    raise RefundRefused("nothing left")


async def worked(world: World, sold: Sold, word: str) -> str:
    """The event is heard (again) and worked on at once; what its job came to."""
    job = await hear(world, sold, word, "refunded" if word.startswith("refunded") else "paid")
    await world.pg.fetch("UPDATE outbox SET run_at = now() WHERE id = $1", (job,))
    await jobs.run(world.shop, job)
    return str(await world.scalar("SELECT state FROM outbox WHERE id = $1", job))


@in_module
@pytest.mark.parametrize(
    ("elsewhere", "balance_minor", "refunded_minor"), [(4000, None, 4000), (3000, 4000, 7000), (0, 4000, 4000)]
)
async def test_a_refused_refund_gives_back_only_what_did_not_go_back(
    shared: World, monkeypatch: pytest.MonkeyPatch, elsewhere: int, balance_minor: int | None, refunded_minor: int
) -> None:
    """Somebody made it, or another one, in the gateway's cabinet while ours was on its way."""
    gateway, _, (sold,) = await sell(shared, 1)
    await railed(shared, gateway, sold)  # 40.00 over the rail
    gateway.say(sold.invoice, "paid", came=PRICE, back=elsewhere)
    assert await worked(shared, sold, "refunded") == "done"
    monkeypatch.setattr(gateway, "refund", refuse)
    await later(shared)
    await poll(shared.shop)
    await later(shared)
    found = await shared.pg.fetch("SELECT balance_minor FROM balances WHERE user_id = $1", (sold.user_id,))
    assert [row[0] for row in found] == ([] if balance_minor is None else [balance_minor])
    assert await shared.scalar("SELECT refunded_minor FROM orders WHERE id = $1", sold.order_id) == refunded_minor


@in_module
async def test_a_chargeback_after_a_refused_refund_is_booked(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, _, (sold,) = await sell(shared, 1)
    await railed(shared, gateway, sold)
    gateway.say(sold.invoice, "paid", came=PRICE, back=6000)
    assert await worked(shared, sold, "refunded first") == "done"
    gateway.say(sold.invoice, "paid", came=PRICE, back=2000)
    monkeypatch.setattr(gateway, "refund", refuse)
    await later(shared)
    gateway.say(sold.invoice, "paid", came=PRICE, back=6000)
    assert await worked(shared, sold, "refunded again") == "done"


@in_module
async def test_what_is_refunded_is_not_handed_over(shared: World) -> None:
    buyer, order = await bought(shared, kind="made")
    await refund(shared, order)
    assert (await give(shared, order, 1)).status_code == 409
    assert await balance(buyer) == 10_000


async def give(world: World, order: str, position: int) -> httpx.Response:
    admin = await world.buyer(ADMIN)
    made = {"position": position, "content": "made"}
    return await world.http.post(f"/api/admin/orders/{order}/goods", json=made, headers=admin.headers)


@in_module
async def test_two_hand_overs_at_once_end_the_wait(shared: World) -> None:
    product, buyer = await shared.product(kind="made"), await someone(shared)
    placed = (await buyer.order((product, 2))).json()
    order = placed["order"]["id"]
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    async with locked(shared, "SELECT FROM orders WHERE id = $1", UUID(order)):
        both = [asyncio.create_task(give(shared, order, position)) for position in (1, 2)]
        await asyncio.sleep(0.3)
    assert [(await one).status_code for one in both] == [200, 200]
    assert await buyer.status(order) == "delivered"


@in_module
async def test_what_an_admin_gave_back_is_not_given_back_again_at_the_deadline(shared: World) -> None:
    made, key = await shared.product(kind="made", price_minor=5000), await shared.product("KEY", price_minor=5000)
    buyer = await someone(shared)
    placed = (await buyer.order((made, 1), (key, 1))).json()
    order = placed["order"]["id"]
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    assert (await refund(shared, order, amount=5000)).status_code == 201
    passed = "UPDATE order_items SET due_at = now() - interval '1 second' WHERE order_id = $1 AND kind = 'made'"
    await shared.pg.fetch(passed, (UUID(order),))
    await overdue(shared.shop)
    await shared.drain()
    assert (await balance(buyer), await buyer.goods(order)) == (5000, ["KEY"])


@in_module
async def test_the_link_is_of_the_gateway_that_was_asked(shared: World) -> None:
    gateway = Scripted()
    shared.app.state.shop.gateways["scripted"] = gateway
    buyer, order, invoice, _ = await ordered(shared)
    async with locked(shared, "SELECT FROM orders WHERE id = $1", UUID(order)):
        clicks = [asyncio.create_task(buyer.pay(order, provider="scripted")) for _ in range(2)]
        await asyncio.sleep(0.3)
    answers = [await click for click in clicks]
    assert sorted(answer.status_code for answer in answers) in ([200, 200], [200, 409])
    assert not [a for a in answers if a.status_code == 409 and a.json()["type"] != "/problems/in-progress"]
    again = (await buyer.pay(order)).json()["payment"]
    assert (again["provider"], again["url"].endswith(invoice)) == ("crystalpay", True)


@in_module
async def test_a_part_payment_is_listened_to_until_it_is_whole(shared: World) -> None:
    gateway, _, (sold,) = await sell(shared, 1)
    for came in (4000, 4000, 5000, PRICE):
        gateway.say(sold.invoice, "paid", came=came)
        await worked(shared, sold, "paid")
    received = "SELECT received_minor FROM payments WHERE invoice_id = $1"
    assert await shared.scalar(received, sold.invoice) == PRICE
    assert await shared.scalar("SELECT status FROM orders WHERE id = $1", sold.order_id) == "paid"
    news = "SELECT count(*) FROM outbox WHERE kind = 'tell' AND payload ->> 'order_id' = $1"
    assert await shared.scalar(news, str(sold.order_id)) == 2  # each part, but not the one that completes the price


@in_module
async def test_a_late_payment_waits_for_goods_that_are_in_somebodys_hands(shared: World) -> None:
    buyer, order, invoice, product = await ordered(shared)
    await lapse(shared, order)
    async with locked(shared, "SELECT FROM stock_items WHERE product_id = $1", product):
        await shared.crystalpay.pay(invoice)
        await shared.drain()
    assert (await buyer.status(order), await balance(buyer)) == ("expired", 0)
    await later(shared)
    assert (await buyer.status(order), len(await buyer.goods(order)), await balance(buyer)) == ("delivered", 1, 0)


@in_module
async def test_too_little_too_late_is_told_as_what_it_is(shared: World) -> None:
    for close, word in ((lapse, "had expired"), (None, "was cancelled")):
        buyer, order, invoice, _ = await ordered(shared)
        if close:
            await close(shared, order)
        else:
            await buyer.cancel(order)
        shared.crystalpay.invoice(invoice).amount = "60"
        await shared.crystalpay.pay(invoice)
        await later(shared)
        assert await balance(buyer) == 6000
        assert word in told(shared, buyer)[-1]
