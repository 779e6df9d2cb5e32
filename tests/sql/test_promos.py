"""A promo code is used as often as it says and not once more, and the highest discount counts, never a sum."""

import asyncio
import random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.domain import moves, orders, promos
from tests.sql.shelf import SHARE, Shelf

MAKE = """
INSERT INTO promos (code, discount_bp, most_uses, per_user, seller_id, product_id, active, starts_at, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8::int * interval '1 second', now() + $9::int * interval '1 second')
RETURNING id"""
USERS = "INSERT INTO users (telegram_id, name) SELECT n, 'Buyer' FROM generate_series(1, $1::int) n RETURNING id"
# The counter, and the orders that it counts.
USES = """
SELECT p.uses::int, (SELECT count(*)::int FROM orders o WHERE o.promo_id = p.id AND o.promo_slot IS NOT NULL
                        AND (o.status NOT IN ('expired', 'cancelled') OR o.paid_at IS NOT NULL))
  FROM promos p WHERE p.code = $1"""
LATE = "UPDATE orders SET expires_at = now() - interval '1 hour' WHERE status = 'pending'"


async def code(shelf: Shelf, name: str = "SALE", **changes: Any) -> str:
    """A code of 10 % for everything."""
    given = {"discount_bp": 1000, "most_uses": 50, "per_user": 1, "seller_id": None, "product_id": None,
             "active": True, "starts_s": -60, "ends_s": 3600} | changes  # fmt: skip
    await shelf.pg.fetch(MAKE, (name, *given.values()))
    return name


async def made(shelf: Shelf, **changes: Any) -> int:
    """A product that never runs out."""
    return await shelf.product(**{"kind": "made", "lead_time_h": 1} | changes)


async def uses(shelf: Shelf, name: str = "SALE") -> int:
    """The counter, after checking that it counts what there is."""
    ((kept, counted),) = await shelf.rows(USES, name)
    assert kept == counted
    return int(kept)


async def why_not(shelf: Shelf, name: str, product_id: int, **who: int) -> str:
    judged = {"user_id": shelf.user_id, "seller_id": shelf.seller_id} | who
    return await promos.judge(shelf.pg, name, judged["user_id"], judged["seller_id"], [product_id])


async def cancel(shelf: Shelf, new: orders.New) -> None:
    await cancel_order(shelf, new.order_id, new.user_id)


async def cancel_order(shelf: Shelf, order_id: UUID, user_id: int) -> None:
    moved = await moves.move(shelf.pg, order_id, user_id, "cancelled", expected="pending", note="", buyer_news=[])
    assert moved is not None
    assert moved.word == "moved"


# ---- how often


async def test_a_crowd_uses_a_code_exactly_as_often_as_it_says(shelf: Shelf) -> None:
    product, name = await made(shelf), await code(shelf)
    buyers = [row[0] for row in await shelf.pg.fetch(USERS, (200,))]
    placed = await asyncio.gather(*(shelf.buy((product, 1), user_id=buyer, promo=name) for buyer in buyers))
    assert [order.total_minor for order in placed if order] == [9000] * 50
    assert await uses(shelf) == 50
    assert await shelf.rows("SELECT count(*) FROM orders") == [(50,)]  # nothing was ordered without the code instead
    assert await why_not(shelf, name, product) == "exhausted"


async def test_a_crowd_with_a_code_and_little_stock_wastes_neither(shelf: Shelf) -> None:
    product, name = await shelf.product(), await code(shelf, most_uses=7)
    await shelf.units(product, 10)
    buyers = [row[0] for row in await shelf.pg.fetch(USERS, (30,))]
    carts = [(buyer, name if place % 2 else "") for place, buyer in enumerate(buyers)]
    for _ in range(3):  # others' claims may be in the way for an instant: the flow tries again too
        await asyncio.gather(*(shelf.buy((product, 1), user_id=buyer, promo=promo, key="k") for buyer, promo in carts))
    sold = await shelf.rows("SELECT promo_id IS NOT NULL, total_minor, count(*) FROM orders GROUP BY 1, 2 ORDER BY 1")
    assert sum(row[2] for row in sold) == 10
    assert {row[:2] for row in sold} == {(False, 10_000), (True, 9000)}
    assert await uses(shelf) == {row[0]: row[2] for row in sold}[True] <= 7


@pytest.mark.parametrize("per_user", [1, 3])
async def test_one_buyer_uses_a_code_as_often_as_it_says(shelf: Shelf, per_user: int) -> None:
    product, name = await made(shelf), await code(shelf, per_user=per_user)
    for _ in range(3):
        await asyncio.gather(*(shelf.buy((product, 1), promo=name) for _ in range(8)))
    assert await uses(shelf) == per_user
    assert await why_not(shelf, name, product) == "used"
    (other,) = [row[0] for row in await shelf.pg.fetch(USERS, (1,))]
    assert await why_not(shelf, name, product, user_id=other) == ""
    assert await shelf.buy((product, 1), user_id=other, promo=name) is not None
    assert await shelf.buy((product, 1)) is not None  # without the code as ever


async def test_postgres_has_the_last_word_on_both_limits(shelf: Shelf) -> None:
    product, name = await made(shelf), await code(shelf, most_uses=1, per_user=2)
    first = await shelf.buy((product, 1), promo=name)
    assert first
    with pytest.raises(asyncpg.CheckViolationError, match="promos_uses_check"):
        await shelf.pg.fetch("UPDATE promos SET uses = uses + 1", ())
    again = shelf.cart((product, 1))
    await orders.create(shelf.pg, again)
    with pytest.raises(asyncpg.UniqueViolationError, match="orders_promo_slot"):
        await shelf.pg.fetch(
            "UPDATE orders o SET promo_id = f.promo_id, promo_slot = f.promo_slot FROM orders f"
            " WHERE o.id = $1 AND f.promo_id IS NOT NULL", (again.order_id,),
        )  # fmt: skip


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_use_that_came_to_nothing_can_be_used_again(shelf: Shelf, how: str) -> None:
    product, name = await made(shelf), await code(shelf, most_uses=1)
    for _ in range(3):
        new = shelf.cart((product, 1), promo=name)
        assert await orders.create(shelf.pg, new)
        assert await uses(shelf) == 1
        if how == "cancelled":
            await cancel(shelf, new)
        else:
            await shelf.pg.fetch(LATE, ())
            assert len(await orders.expire(shelf.pg, grace_s=0, size=9)) == 1
        assert await uses(shelf) == 0
    assert await shelf.rows("SELECT count(*) FROM orders WHERE promo_id IS NOT NULL") == [(3,)]  # who used it is known


async def test_a_sweep_gives_back_all_uses_of_all_codes(shelf: Shelf) -> None:
    product = await made(shelf)
    names = [await code(shelf, f"CODE-{n}", per_user=5) for n in range(3)]
    for name in (*names, names[0], names[0], ""):
        assert await shelf.buy((product, 1), promo=name)
    assert [await uses(shelf, name) for name in names] == [3, 1, 1]
    await shelf.pg.fetch(LATE, ())
    closed = await asyncio.gather(*(orders.expire(shelf.pg, grace_s=0, size=2) for _ in range(4)))
    assert sum(map(len, closed)) == 6
    assert [await uses(shelf, name) for name in names] == [0, 0, 0]


async def test_an_order_that_is_paid_late_keeps_its_price_and_no_use(shelf: Shelf) -> None:
    product, name = await made(shelf), await code(shelf, most_uses=1)
    new = shelf.cart((product, 1), promo=name)
    await orders.create(shelf.pg, new)
    await shelf.pg.fetch(LATE, ())
    await orders.expire(shelf.pg, grace_s=0, size=9)
    assert await shelf.buy((product, 1), promo=name)  # the use is another order's now
    assert await orders.revive(shelf.pg, new.order_id, 60) is not None
    assert await uses(shelf) == 1
    await shelf.pg.fetch("UPDATE orders SET expires_at = now() - interval '1 hour' WHERE id = $1", (new.order_id,))
    assert len(await orders.expire(shelf.pg, grace_s=0, size=9)) == 1
    assert await uses(shelf) == 1  # and is not given back twice


async def test_a_refused_order_uses_nothing(shelf: Shelf) -> None:
    scarce, name = await shelf.product(), await code(shelf)
    assert await shelf.buy((scarce, 1), promo=name) is None
    product = await made(shelf)
    assert await shelf.buy((product, 1), key="once", promo=name)
    assert await shelf.buy((product, 1), key="once", promo=name) is None
    assert await uses(shelf) == 1


async def test_random_buyers_against_a_model(shelf: Shelf) -> None:
    dice, product = random.Random(7), await made(shelf)
    limits = {"A1": (4, 1), "B2": (3, 2), "C3": (9, 3)}
    for name, (most, per_user) in limits.items():
        await code(shelf, name, most_uses=most, per_user=per_user)
    buyers = [row[0] for row in await shelf.pg.fetch(USERS, (4,))]
    live: dict[UUID, tuple[int, str]] = {}
    for _ in range(80):
        if live and dice.random() < 0.35:
            order_id = dice.choice(list(live))
            user, _ = live.pop(order_id)
            await cancel_order(shelf, order_id, user)
            continue
        user, name = dice.choice(buyers), dice.choice(list(limits))
        most, per_user = limits[name]
        may = list(live.values()).count((user, name)) < per_user and sum(n == name for _, n in live.values()) < most
        new = shelf.cart((product, 1), user_id=user, promo=name)
        assert (await why_not(shelf, name, product, user_id=user) == "") is may
        assert (await orders.create(shelf.pg, new) is not None) is may
        if may:
            live[new.order_id] = user, name
    for name in limits:
        assert await uses(shelf, name) == sum(n == name for _, n in live.values())


# ---- which discount


async def test_the_highest_discount_counts_and_never_a_sum(shelf: Shelf) -> None:
    """Item, product, idle stock and code, at random, against the shop's rule."""
    dice = random.Random(9)
    for turn in range(25):
        list_price, duration = dice.randint(1, 50_000), dice.choice([None, 100])
        percents = [dice.choice([0, dice.randint(1, 9999)]) for _ in range(2)] + [dice.randint(1, 10_000)]
        idle_days = dice.choice([0, 13, 14, 30, 90])
        product = await shelf.product(list_price_minor=list_price, discount_bp=percents[0], duration_days=duration)
        await shelf.unit(product, discount_bp=percents[1], idle_min=idle_days * 24 * 60)
        name = await code(shelf, f"TURN-{turn}", discount_bp=percents[2])
        idle = min(2000, idle_days * 5000 // duration) if duration and idle_days >= 14 else 0
        highest = max(*percents, idle)
        placed = await shelf.buy((product, 1), promo=name)
        assert placed
        assert placed.total_minor == max(1, (list_price * (10_000 - highest) + 5000) // 10_000)
        assert placed.total_minor <= (await shelf.rows("SELECT max(list_price_minor) FROM order_items"))[0][0]


async def test_a_code_that_makes_nothing_cheaper_is_not_used_up(shelf: Shelf) -> None:
    cheap, dear = await made(shelf, discount_bp=1000), await made(shelf, discount_bp=999)
    name = await code(shelf)
    order = await shelf.buy((cheap, 2), promo=name)
    assert order
    assert (order.total_minor, await uses(shelf)) == (18_000, 0)
    order = await shelf.buy((cheap, 1), (dear, 1), promo=name)
    assert order
    assert (order.total_minor, await uses(shelf)) == (18_000, 1)


async def test_a_code_for_one_product_leaves_the_others_as_they_are(shelf: Shelf) -> None:
    unit, shared = await shelf.product(), await shelf.product(kind="shared", list_price_minor=3333)
    other = await made(shelf, list_price_minor=700)
    await shelf.pg.fetch(SHARE, (shared,))
    await shelf.units(unit, 3)
    name = await code(shelf, product_id=unit, discount_bp=5000, per_user=5)
    order = await shelf.buy((unit, 2), (shared, 1), (other, 3), promo=name)
    assert order
    assert order.total_minor == 2 * 5000 + 3333 + 3 * 700
    assert await shelf.buy((shared, 1), promo=name) is None
    assert await why_not(shelf, name, shared) == "foreign"
    plain = await shelf.buy((unit, 1))
    assert plain
    assert plain.total_minor == 10_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"active": False}, "unknown"), ({"starts_s": 60}, "not_yet"), ({"starts_s": -60, "ends_s": -1}, "ended"),
     ({"ends_s": None}, ""), ({"most_uses": 1}, "")],
)  # fmt: skip
async def test_a_code_has_its_time(shelf: Shelf, changes: dict[str, Any], reason: str) -> None:
    product, name = await made(shelf), await code(shelf, **changes)
    assert await why_not(shelf, name, product) == reason
    assert (await shelf.buy((product, 1), promo=name) is None) is bool(reason)
    assert await why_not(shelf, "NO-SUCH", product) == "unknown"
    assert await shelf.buy((product, 1), promo="NO-SUCH") is None


async def test_a_sellers_code_is_for_its_goods_alone(shelf: Shelf) -> None:
    other = (await shelf.rows("INSERT INTO sellers (name) VALUES ('Other') RETURNING id"))[0][0]
    product, name = await made(shelf), await code(shelf, seller_id=other)
    assert await why_not(shelf, name, product) == "foreign"
    assert await shelf.buy((product, 1), promo=name) is None
    theirs = await made(shelf, seller_id=other)
    assert await shelf.buy((theirs, 1), seller_id=other, promo=name) is not None
