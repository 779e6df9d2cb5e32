"""The main job, step by step, over the public HTTP surface."""

import asyncio

from tests.world import World, invoice_of


async def test_a_paid_order_becomes_goods_and_the_buyer_is_told(world: World) -> None:
    product = await world.product("KEY-1", "KEY-2")
    ann = await world.buyer()
    placed = (await ann.order((product, 1), (product, 1))).json()
    assert placed["order"]["status"] == "pending"
    assert placed["order"]["total_minor"] == 20_000
    assert placed["order"]["lines"] == [
        {"product_id": product, "title": "Key", "kind": "unit", "quantity": 2, "total_minor": 20_000}
    ]

    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()

    assert await ann.status(placed["order"]["id"]) == "delivered"
    assert sorted(await ann.goods(placed["order"]["id"])) == ["KEY-1", "KEY-2"]
    (told,) = world.telegram.sent_to(ann.telegram_id)
    assert "KEY-1" in told["text"]


async def test_a_hundred_buyers_for_ten_keys(world: World) -> None:
    product = await world.product(*(f"KEY-{n}" for n in range(10)))
    buyers = [await world.buyer(2000 + n) for n in range(100)]
    answers = await asyncio.gather(*(buyer.order((product, 1)) for buyer in buyers))

    sold = [answer.json() for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert (len(sold), len(refused)) == (10, 90), {answer.status_code for answer in answers}
    assert all(a.json()["type"] == "/problems/out-of-stock" and a.json()["left"] == {str(product): 0} for a in refused)

    await asyncio.gather(*(world.crystalpay.pay(invoice_of(placed)) for placed in sold))
    await world.drain()
    assert await world.scalar("SELECT count(*) FROM orders WHERE status = 'delivered'") == 10
    assert await world.scalar("SELECT count(DISTINCT stock_item_id) FROM order_items WHERE state = 'delivered'") == 10
