"""One order is one statement: every unit claimed at the price that was shown, or nothing at all."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.domain import catalog, customers, orders
from tests.sql.shelf import SHARE, Shelf

LINES = "SELECT position, product_id, stock_item_id, list_price_minor, price_minor FROM order_items ORDER BY position"
STATES = "SELECT state, count(*) FROM stock_items GROUP BY state ORDER BY state"


async def orders_made(shelf: Shelf) -> int:
    ((made,),) = await shelf.rows("SELECT count(*) FROM orders")
    return int(made)


async def test_the_price_of_an_order_is_a_snapshot(shelf: Shelf) -> None:
    product = await shelf.product(discount_bp=1000)
    unit = await shelf.unit(product)
    new = shelf.cart((product, 1))
    created = await orders.create(shelf.pg, new)
    assert created is not None
    assert (created.total_minor, created.currency) == (9000, "RUB")
    await shelf.pg.fetch("UPDATE products SET list_price_minor = 99000, discount_bp = 0, title = 'Dear key'", ())
    order = await orders.get(shelf.pg, new.order_id, shelf.user_id)
    assert order is not None
    assert orders.lines(order.lines) == [orders.Line(product, "Key", "unit", 1, 9000)]
    assert order.total_minor == 9000
    assert await shelf.rows(LINES) == [(1, product, unit, 10_000, 9000)]
    assert await shelf.rows("SELECT amount_minor, currency, status FROM payments") == [(9000, "RUB", "opening")]
    assert await shelf.rows("SELECT from_status, to_status, role FROM order_events") == [(None, "pending", "buyer")]


async def test_units_are_claimed_at_the_price_that_the_shelf_shows(shelf: Shelf) -> None:
    product = await shelf.product(discount_bp=100, duration_days=100)
    for discount_bp, idle_days in [(0, 0), (500, 1), (0, 30), (500, 3), (0, 18), (2500, 0), (0, 2), (0, 2)]:
        await shelf.unit(product, discount_bp=discount_bp, idle_min=idle_days * 24 * 60)
    await shelf.unit(product, discount_bp=9000, left_s=-1)
    await shelf.unit(product, discount_bp=9000, secret=False)
    shown, paid = [], []
    for _ in range(8):
        shown.append(await shelf.price(product))
        created = await shelf.buy((product, 1))
        assert created is not None
        paid.append(created.total_minor)
    assert paid == shown == [7500, 9500, 9500, 8500, 9100, 9900, 9900, 9900]
    assert await shelf.buy((product, 1)) is None


async def test_several_units_cost_the_sum_of_their_own_prices(shelf: Shelf) -> None:
    product, other = await shelf.product(), await shelf.product(list_price_minor=333, discount_bp=5000)
    made = await shelf.product(kind="made", lead_time_h=2, list_price_minor=5)
    shared = await shelf.product(kind="shared", list_price_minor=7)
    await shelf.pg.fetch(SHARE, (shared,))
    await shelf.unit(product, discount_bp=1000)
    await shelf.units(product, 2)
    await shelf.units(other, 2)
    created = await shelf.buy((made, 3), (product, 2), (shared, 1), (other, 2))
    assert created is not None
    assert created.total_minor == 9000 + 10_000 + 2 * 167 + 3 * 5 + 7
    assert [line[0] for line in await shelf.rows(LINES)] == list(range(1, 9))
    assert await shelf.rows(STATES) == [("available", 1), ("held", 4)]


async def test_an_order_is_all_or_nothing(shelf: Shelf) -> None:
    full, scarce = await shelf.product(), await shelf.product()
    await shelf.units(full, 5)
    await shelf.unit(scarce)
    assert await shelf.buy((full, 5), (scarce, 2)) is None
    assert await shelf.rows(STATES) == [("available", 6)]
    assert await orders_made(shelf) == 0
    assert await shelf.buy((full, 5), (scarce, 1)) is not None
    assert await shelf.rows(STATES) == [("held", 6)]


async def test_what_cannot_be_bought_together_is_not_bought(shelf: Shelf) -> None:
    unit = await shelf.product()
    await shelf.units(unit, 3)
    dollars = await shelf.product(currency="USD", kind="made", lead_time_h=1)
    foreign = await shelf.product(seller_id=await catalog.add_seller(shelf.pg, "Other"), kind="made", lead_time_h=1)
    gone = await shelf.product(kind="made", lead_time_h=1)
    await shelf.pg.fetch("UPDATE products SET active = false WHERE id = $1", (gone,))
    empty = await shelf.product(kind="shared")
    for cart in [[(unit, 1), (other, 1)] for other in (dollars, foreign, gone, empty, 999)] + [
        [(foreign, 1)],
    ]:
        assert await shelf.buy(*cart) is None, cart
    assert await shelf.rows(STATES) == [("available", 3)]
    assert await orders_made(shelf) == 0


async def test_a_unit_without_a_secret_does_not_stand_in_the_line(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.unit(product, secret=False, idle_min=9)
    good = await shelf.unit(product)
    assert await shelf.buy((product, 1)) is not None
    assert [line[2] for line in await shelf.rows(LINES)] == [good]


async def test_expired_units_are_not_claimed(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.unit(product, left_s=-1, idle_min=9)
    assert await shelf.buy((product, 1)) is None
    good = await shelf.unit(product, left_s=60)
    assert await shelf.buy((product, 1)) is not None
    assert [line[2] for line in await shelf.rows(LINES)] == [good]


# ---- one unit, one order


async def test_postgres_refuses_a_unit_in_two_orders(shelf: Shelf) -> None:
    product = await shelf.product()
    unit = await shelf.unit(product)
    other = await shelf.product(kind="made", lead_time_h=1)
    first, second = shelf.cart((product, 1)), shelf.cart((other, 1))
    await orders.create(shelf.pg, first)
    await orders.create(shelf.pg, second)
    again = """
        INSERT INTO order_items
            (order_id, position, product_id, title, kind, stock_item_id, list_price_minor, price_minor)
        VALUES ($1, 9, $2, 'Key', 'unit', $3, 1, 1)"""
    with pytest.raises(asyncpg.UniqueViolationError, match="order_items_item_once"):
        await shelf.pg.fetch(again, (second.order_id, product, unit))
    await shelf.pg.fetch("UPDATE order_items SET state = 'released' WHERE order_id = $1", (first.order_id,))
    await shelf.pg.fetch(again, (second.order_id, product, unit))  # what one has let go, another may have


async def test_a_crowd_never_shares_a_unit(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 20)
    crowd = await asyncio.gather(*(shelf.buy((product, 1 + n % 2)) for n in range(30)))
    made = [one for one in crowd if one]
    while last := await shelf.buy((product, 1)):  # a crowd may leave units that each of it saw in another's hands
        made.append(last)
    assert len(made) == await orders_made(shelf)
    assert sum(one.total_minor for one in made) == 20 * 10_000
    assert await shelf.rows("SELECT count(*), count(DISTINCT stock_item_id) FROM order_items") == [(20, 20)]
    assert await shelf.rows(STATES) == [("held", 20)]


async def test_an_order_is_made_while_another_holds_the_head_of_the_line(shelf: Shelf, pg_url: str) -> None:
    product = await shelf.product()
    head, behind = await shelf.unit(product, idle_min=9), await shelf.unit(product)
    slow = await asyncpg.connect(pg_url)
    async with slow.transaction():
        await slow.execute("SELECT FROM stock_items WHERE id = $1 FOR UPDATE", head)
        assert await asyncio.wait_for(shelf.buy((product, 1)), 5) is not None
    await slow.close()
    assert [line[2] for line in await shelf.rows(LINES)] == [behind]


# ---- one key, one order


async def test_a_key_makes_one_order(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 3)
    new = shelf.cart((product, 1), key="once")
    assert await orders.create(shelf.pg, new) is not None
    assert await shelf.buy((product, 1), key="once") is None
    assert await shelf.buy((product, 2), key="once") is None
    assert await shelf.rows(STATES) == [("available", 2), ("held", 1)]
    repeat = await orders.find_repeat(shelf.pg, shelf.user_id, "once")
    assert repeat == orders.Repeat(new.order_id, new.request_hash)
    assert await orders.find_repeat(shelf.pg, shelf.user_id, "never") is None


async def test_a_key_entered_ten_times_at_once_makes_one_order(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 30)
    made = await asyncio.gather(*(shelf.buy((product, 1), key="once") for _ in range(10)))
    assert len([one for one in made if one]) == await orders_made(shelf) == 1
    assert await shelf.rows(STATES) == [("available", 29), ("held", 1)]


async def test_a_key_is_its_users_own(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 2)
    bob = await customers.enter(shelf.pg, telegram_id=7, name="Bob", username=None, language="en", is_admin=False)
    assert await shelf.buy((product, 1), key="once") is not None
    assert await shelf.buy((product, 1), key="once", user_id=bob.id) is not None
    repeat = await orders.find_repeat(shelf.pg, shelf.user_id, "once")
    assert repeat is not None
    assert await orders.get(shelf.pg, repeat.order_id, bob.id) is None


# ---- unpaid orders


async def test_a_buyer_has_only_so_many_slots(shelf: Shelf) -> None:
    made = await shelf.product(kind="made", lead_time_h=1)
    for _ in range(3):
        assert await shelf.buy((made, 1), most_pending=3) is not None
    assert await shelf.buy((made, 1), most_pending=3) is None
    assert sorted(await shelf.rows("SELECT slot FROM orders")) == [(1,), (2,), (3,)]
    assert await orders.pending(shelf.pg, shelf.user_id, 3) == 3
    bob = await customers.enter(shelf.pg, telegram_id=7, name="Bob", username=None, language="en", is_admin=False)
    assert await orders.pending(shelf.pg, bob.id, 3) == 0
    assert await shelf.buy((made, 1), most_pending=3, user_id=bob.id) is not None
    assert await shelf.buy((made, 1), most_pending=4) is not None  # a setting that grew


@pytest.mark.parametrize("became", ["paid", "expired", "cancelled"])
async def test_an_order_that_is_no_longer_unpaid_leaves_its_slot(shelf: Shelf, became: str) -> None:
    made = await shelf.product(kind="made", lead_time_h=1)
    for _ in range(3):
        assert await shelf.buy((made, 1), most_pending=1) is not None
        assert await shelf.buy((made, 1), most_pending=1) is None
        await shelf.pg.fetch("UPDATE orders SET status = $1", (became,))
        assert await orders.pending(shelf.pg, shelf.user_id, 1) == 0


async def test_a_buyer_who_orders_a_hundred_times_at_once_gets_no_more(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 30)
    made = await asyncio.gather(*(shelf.buy((product, 1), most_pending=5) for _ in range(100)))
    while last := await shelf.buy((product, 1), most_pending=5):  # a crowd may get fewer: two took the same slot
        made.append(last)
    assert len([one for one in made if one]) == await orders_made(shelf) == 5
    assert await shelf.rows(STATES) == [("available", 25), ("held", 5)]


async def test_orders_from_before_there_were_slots_have_none(shelf: Shelf) -> None:
    made = await shelf.product(kind="made", lead_time_h=1)
    for _ in range(2):
        assert await shelf.buy((made, 1)) is not None
    await shelf.pg.fetch("UPDATE orders SET slot = NULL", ())
    assert await orders.pending(shelf.pg, shelf.user_id, 1) == 0
    assert await shelf.buy((made, 1), most_pending=1) is not None


# ---- expire


async def test_an_expired_order_gives_its_units_back(shelf: Shelf) -> None:
    product = await shelf.product()
    unit = await shelf.unit(product)
    made = await shelf.product(kind="made", lead_time_h=1)
    late = shelf.cart((product, 1), (made, 1), window_s=-5)
    in_time = shelf.cart((made, 1))
    paid = shelf.cart((made, 2), window_s=-5)
    for new in (late, in_time, paid):
        assert await orders.create(shelf.pg, new) is not None
    await shelf.pg.fetch("UPDATE orders SET status = 'paid' WHERE id = $1", (paid.order_id,))
    assert await orders.expire(shelf.pg, grace_s=60, size=10) == []
    (expired,) = await orders.expire(shelf.pg, grace_s=0, size=10)
    assert (expired.order_id, expired.seller_id) == (late.order_id, shelf.seller_id)
    assert sorted(expired.product_ids) == sorted([product, made])
    assert await orders.expire(shelf.pg, grace_s=0, size=10) == []
    again = shelf.cart((product, 1))
    assert await orders.create(shelf.pg, again) is not None
    held: list[tuple[Any, ...]] = await shelf.rows(
        "SELECT order_id FROM order_items WHERE stock_item_id = $1 AND state = 'held'", unit
    )
    assert held == [(again.order_id,)]


async def test_late_orders_are_expired_in_batches_the_oldest_first(shelf: Shelf) -> None:
    made = await shelf.product(kind="made", lead_time_h=1)
    carts = [shelf.cart((made, 1), window_s=-n) for n in (10, 30, 20)]
    for new in carts:
        await orders.create(shelf.pg, new)
    first = await orders.expire(shelf.pg, grace_s=0, size=2)
    assert {one.order_id for one in first} == {carts[1].order_id, carts[2].order_id}
    assert len(await orders.expire(shelf.pg, grace_s=0, size=2)) == 1


async def test_two_sweeps_expire_an_order_once(shelf: Shelf) -> None:
    made = await shelf.product(kind="made", lead_time_h=1)
    for _ in range(20):
        await shelf.buy((made, 1), window_s=-5)
    batches = await asyncio.gather(*(orders.expire(shelf.pg, grace_s=0, size=20) for _ in range(4)))
    assert len([one for batch in batches for one in batch]) == 20
    assert await shelf.rows("SELECT count(*) FROM order_events WHERE to_status = 'expired'") == [(20,)]
