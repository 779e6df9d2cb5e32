"""The flash sale of issue 3: more buyers than units, and everything beneath the shop dies in the middle of it.

The units come in four lots, so that at each disaster there is something to fight for. TORG_FLASH_BUYERS changes the
size of the crowd.
"""

import asyncio
import os
import time

from tests.e2e.flash import Sale
from tests.e2e.traps import Zygote, until

BUYERS = int(os.environ.get("TORG_FLASH_BUYERS", "1500"))
FIRST, LOT, LOTS = 40, 20, 3  # units
UNITS = FIRST + LOT * LOTS
FOUGHT = 3  # orders of a lot that are placed when disaster strikes
STUCK_S = 60.0  # no unit may be stuck for longer
MOST_S = 300.0

ORDERS = "SELECT status, count(*)::int FROM orders GROUP BY status"
ITEMS = "SELECT count(*)::int, count(DISTINCT stock_item_id)::int FROM order_items WHERE state = 'delivered'"
STATES = "SELECT state, count(*)::int FROM stock_items GROUP BY state"


async def test_a_flash_sale_sells_each_unit_once_whatever_dies(zygote: Zygote) -> None:
    async with Sale.opened(zygote) as sale:
        began_s = time.monotonic()
        await sale.shelve(FIRST)
        async with asyncio.timeout(MOST_S), asyncio.TaskGroup() as both:
            both.create_task(sale.crowd(BUYERS))
            both.create_task(disasters(sale))
        served_s = time.monotonic() - began_s
        late = await sale.latecomers(UNITS, within_s=STUCK_S)  # for units that a disaster has made wait
        await asyncio.gather(*sale.paying)

        async def all_is_well() -> bool:
            return (
                await sale.rows(ORDERS) == [("delivered", UNITS)]
                and await sale.rows("SELECT 1 FROM outbox WHERE state <> 'done'") == []
                and await sale.counters() in (({}, 0), ({sale.product_id: 0}, 0))
            )

        await until(all_is_well, "every unit is delivered, nothing is held", sale.log, within_s=STUCK_S)
        settled_s = time.monotonic() - began_s - served_s
        print(f"\n{BUYERS}+{late} buyers in {served_s:.1f} s, settled {settled_s:.1f} s later; {dict(sale.answers)}")
        assert (sale.answered, len(sale.placed)) == (BUYERS + late, UNITS)
        assert len({placed["order"]["id"] for _, placed in sale.placed}) == UNITS
        assert await sale.rows(ITEMS) == [(UNITS, UNITS)]
        assert await sale.rows(STATES) == [("sold", UNITS)]
        assert await sale.goods() == {f"KEY-{n}" for n in range(UNITS)}
        assert sale.crashes() == []


async def disasters(sale: Sale) -> None:
    """Each strikes at its share of the crowd, when new units have come and the fight for them has begun."""
    for share, strike in ((0.2, sale.flush), (0.45, sale.kill_redis), (0.7, sale.restart_postgres)):
        await sale.when(answered=share * BUYERS)
        before = len(sale.placed)
        await sale.shelve(LOT)
        await sale.when(placed=before + FOUGHT)
        await strike()
