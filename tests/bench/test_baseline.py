"""The baselines of bench/webhook.py: they end where the product ends, in the steps that they claim."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from app.sandbox import crystalpay_wire as wire
from app.sandbox.serve import running
from bench import baseline
from tests.world import World, invoice_of, order_id_of

END = """
SELECT o.status, o.paid_by = 'crystalpay:' || p.invoice_id AS paid_by, o.paid_at IS NOT NULL AS paid_at,
       o.delivered_at IS NOT NULL AS delivered_at, p.status AS payment, p.paid_at IS NOT NULL AS payment_at,
       (SELECT array_agg((i.position, i.state, i.delivered_at IS NOT NULL, s.state)::text ORDER BY i.position)
          FROM order_items i JOIN stock_items s ON s.id = i.stock_item_id WHERE i.order_id = o.id) AS items,
       (SELECT array_agg(concat_ws(' ', e.from_status, e.to_status, e.role) ORDER BY e.id)
          FROM order_events e WHERE e.order_id = o.id) AS events,
       (SELECT e.note = o.paid_by FROM order_events e WHERE e.order_id = o.id AND e.to_status = 'paid') AS note
  FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.id = $1"""


class Counted:
    """A connection that counts queries, and steps: a query that starts while none is under way begins one."""

    def __init__(self, connection: Any, seen: dict[str, int]) -> None:
        self.connection, self.seen = connection, seen

    async def fetch(self, text: str, *args: object) -> Any:
        self.seen["steps"] += not self.seen["under way"]
        self.seen["queries"] += 1
        self.seen["under way"] += 1
        try:
            return await self.connection.fetch(text, *args)
        finally:
            self.seen["under way"] -= 1


async def paid_order(world: World) -> tuple[UUID, dict[str, Any]]:
    """An order for two keys whose invoice is paid, and its callback, which nobody has sent yet."""
    product = await world.product(*(f"KEY-{n}-{world.seller_id}" for n in range(2)))
    ann = await world.buyer()
    placed = (await ann.order((product, 2))).json()
    await world.crystalpay.pay(invoice_of(placed), wire.Payment(edit={"callback_url": None}))
    invoice = world.crystalpay.invoice(invoice_of(placed))
    return order_id_of(placed), wire.callback_body(invoice, wire.Callbacks(), world.crystalpay.salt)


async def end(world: World, order_id: UUID) -> dict[str, Any]:
    (row,) = await world.pg.fetch(END, (order_id,))
    return dict(row)


@pytest.mark.parametrize("variant", ["sequential", "gathered"])
async def test_a_baseline_ends_where_torg_ends(world: World, variant: str) -> None:
    world.keeps_books = False
    ours, callback = await paid_order(world)
    assert (await world.callback(callback)).status_code == 200
    await world.drain()
    expected = await end(world, ours)
    assert expected["status"] == "delivered"

    theirs, callback = await paid_order(world)
    async with running(baseline.create_app(world.shop.deps.settings)) as url:
        forged = callback | {"signature": wire.sign(callback["id"], "another salt")}
        assert (await world.callback(forged, f"{url}/{variant}")).status_code == 401
        assert (await end(world, theirs))["status"] == "pending"
        for _ in range(2):  # a repeat that comes later changes nothing
            assert (await world.callback(callback, f"{url}/{variant}")).status_code == 200
            assert await end(world, theirs) == expected


@pytest.mark.parametrize(("variant", "steps"), [("sequential", 14), ("gathered", 9)])
async def test_fourteen_queries_in_the_steps_of_the_source(world: World, pg_url: str, variant: str, steps: int) -> None:
    world.keeps_books = False
    order_id, callback = await paid_order(world)
    seen = {"steps": 0, "queries": 0, "under way": 0}
    connections = await asyncio.gather(*(asyncpg.connect(pg_url) for _ in range(baseline.WIDEST)))
    try:
        await asyncio.gather(*(baseline.warm(connection) for connection in connections))
        dbs = [Counted(connection, seen) for connection in connections]
        told = msgspec.convert(callback, baseline.Callback)
        await (baseline.sequential(dbs[0], told) if variant == "sequential" else baseline.gathered(dbs, told))
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
    assert (seen["queries"], seen["steps"]) == (len(baseline.WARM_UP), steps) == (14, steps)
    assert (await end(world, order_id))["status"] == "delivered"
