"""Money that came is never lost to timing: late workers, late repeats, dead letters, links that come too late."""

from typing import Any
from uuid import UUID

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import inbox, orders, outbox, payments
from app.flows.expire import expire
from app.sandbox.crystalpay_wire import sign
from tests.world import SALT, Buyer, World, invoice_of

PASSED = "UPDATE orders SET expires_at = now() - interval '1 hour' WHERE id = $1 RETURNING 1"


async def ordered(world: World, ann: Buyer, product: int) -> dict[str, Any]:
    answer = await ann.order((product, 1))
    assert answer.status_code == 201, answer.text
    placed: dict[str, Any] = answer.json()
    return placed


def payed(invoice_id: str) -> dict[str, Any]:
    return {"id": invoice_id, "state": "payed", "signature": sign(invoice_id, SALT)}


async def test_an_order_does_not_expire_while_its_payment_waits_to_be_judged(world: World) -> None:
    product = await world.product("KEY-1", "KEY-2")
    ann = await world.buyer()
    paid, forgotten = await ordered(world, ann, product), await ordered(world, ann, product)
    await world.crystalpay.pay(invoice_of(paid))  # stored and answered; no worker is there
    for placed in (paid, forgotten):
        await world.scalar(PASSED, UUID(placed["order"]["id"]))

    assert await expire(world.shop) == 1
    assert await ann.status(forgotten["order"]["id"]) == "expired"
    await world.drain()
    assert await ann.status(paid["order"]["id"]) == "delivered"


async def test_a_repeat_while_the_gateway_is_asked_is_not_taken_for_the_past(world: World) -> None:
    product = await world.product("KEY-1")
    invoice = invoice_of(await ordered(world, await world.buyer(), product))
    assert (await world.callback(payed(invoice))).status_code == 200
    outbox_id, inbox_id = await world.scalar("SELECT id FROM outbox"), await world.scalar("SELECT id FROM inbox")
    lease = Lease(outbox_id, new_id(), 30)
    assert await outbox.claim(world.pg, lease)

    assert (await world.callback(payed(invoice))).status_code == 200  # it comes while the attempt has its old answer
    assert not await inbox.ignore(world.pg, lease, inbox_id, "notpayed", asked_ms=0)
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "owed"


async def test_what_was_ignored_or_buried_is_owed_again_by_a_repeat(world: World) -> None:
    product = await world.product("KEY-1")
    invoice = invoice_of(await ordered(world, await world.buyer(), product))
    assert (await world.callback(payed(invoice))).status_code == 200
    outbox_id, inbox_id = await world.scalar("SELECT id FROM outbox"), await world.scalar("SELECT id FROM inbox")
    lease = Lease(outbox_id, new_id(), 30)
    assert await outbox.claim(world.pg, lease)
    assert await inbox.ignore(world.pg, lease, inbox_id, "notpayed", asked_ms=0)
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "done"

    assert (await world.callback(payed(invoice))).status_code == 200
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "owed"

    await world.scalar("UPDATE outbox SET state = 'dead' WHERE id = $1 RETURNING 1", outbox_id)
    assert (await world.callback(payed(invoice))).status_code == 200
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "owed"


async def test_no_link_is_stored_for_an_order_that_expired_meanwhile(world: World) -> None:
    product = await world.product("KEY-1")
    placed = await ordered(world, await world.buyer(), product)
    order_id = UUID(placed["order"]["id"])
    opened_at = await world.scalar("UPDATE payments SET status = 'opening', invoice_id = NULL RETURNING opened_at")
    await world.scalar(PASSED, order_id)
    assert await expire(world.shop) == 1
    assert await orders.link(world.pg, order_id, "crystalpay", "1_a", "http://x", opened_at) is None


async def test_only_whose_turn_it_is_may_fail_or_link_a_payment(world: World) -> None:
    product = await world.product("KEY-1")
    placed = await ordered(world, await world.buyer(), product)
    order_id = UUID(placed["order"]["id"])
    first = await world.scalar("UPDATE payments SET status = 'opening', invoice_id = NULL RETURNING opened_at")
    user_id = await world.scalar("SELECT user_id FROM orders")
    taken = await payments.open_(world.pg, order_id, user_id, "crystalpay", 0)
    assert taken is not None
    assert taken.turn == "ours"
    again = await payments.open_(world.pg, order_id, user_id, "crystalpay", 60)
    assert again is not None
    assert again.turn == "busy"
    await payments.fail(world.pg, order_id, "crystalpay", first)
    assert await orders.link(world.pg, order_id, "crystalpay", "1_a", "http://x", first) is None
    linked = await orders.link(world.pg, order_id, "crystalpay", "1_a", "http://x", taken.opened_at)
    assert linked is not None
    assert linked.payment_url == "http://x"


async def test_a_strange_host_header_is_no_defect_of_ours(world: World) -> None:
    for host in ("a:b:c", "x:99999999", ""):
        for path in ("/", "/api/nope"):
            answer = await world.http.get(path, headers={"Host": host})
            assert answer.status_code < 500, (host, path, answer.text)
