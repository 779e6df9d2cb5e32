"""What is for sale, at which price: the view, the counts and the shelf that are made from it."""

import random
from decimal import ROUND_HALF_UP, Decimal

import msgspec

from app.domain import catalog, stock
from tests.sql.shelf import DAY_MIN, SHARE, Shelf

LONG_AGO_MIN = 1000 * DAY_MIN


class Case(msgspec.Struct, frozen=True):
    """One unit's discounts, and the one that it is sold with."""

    promo_bp: int = 0
    item_bp: int = 0
    duration_days: int | None = None
    idle_min: int = 0
    expected_bp: int = 0


def idle(days: float, duration_days: int | None, expected_bp: int) -> Case:
    return Case(duration_days=duration_days, idle_min=round(days * DAY_MIN), expected_bp=expected_bp)


CASES = [
    Case(),
    # the highest wins, never the sum
    Case(promo_bp=500, expected_bp=500),
    Case(item_bp=700, expected_bp=700),
    Case(promo_bp=500, item_bp=700, expected_bp=700),
    Case(promo_bp=900, item_bp=700, expected_bp=900),
    Case(promo_bp=500, item_bp=700, duration_days=100, idle_min=20 * DAY_MIN, expected_bp=1000),
    Case(promo_bp=500, item_bp=1500, duration_days=100, idle_min=20 * DAY_MIN, expected_bp=1500),
    Case(promo_bp=1200, item_bp=700, duration_days=100, idle_min=20 * DAY_MIN, expected_bp=1200),
    Case(promo_bp=2500, duration_days=30, idle_min=LONG_AGO_MIN, expected_bp=2500),
    Case(promo_bp=9999, item_bp=9999, duration_days=30, idle_min=LONG_AGO_MIN, expected_bp=9999),
    # idle: nothing before 14 whole days
    idle(0, 30, 0),
    idle(13, 30, 0),
    idle(13.999, 365, 0),
    idle(14, 365, 191),  # 14 / 365 x 0.5 = 1.9178 %
    idle(15.9, 365, 205),
    # then half of the share of the duration, at most 20 %
    idle(14, 1000, 70),
    idle(20, 100, 1000),
    idle(39, 100, 1950),
    idle(40, 100, 2000),
    idle(41, 100, 2000),
    idle(145, 365, 1986),
    idle(146, 365, 2000),
    idle(14, 30, 2000),
    idle(1000, 365, 2000),
    # only for goods that last 30 days or more
    idle(1000, 29, 0),
    idle(1000, 1, 0),
    idle(1000, None, 0),
    idle(20, 30, 2000),
]


async def test_a_unit_has_the_highest_discount_that_applies(shelf: Shelf) -> None:
    found = {}
    for case in CASES:
        product = await shelf.product(discount_bp=case.promo_bp, duration_days=case.duration_days)
        await shelf.unit(product, discount_bp=case.item_bp, idle_min=case.idle_min)
        found[case] = await shelf.priced(product)
    assert found == {case: [(case.expected_bp, max(1, 10_000 - case.expected_bp))] for case in CASES}


async def test_prices_are_rounded_half_up_to_the_minor_unit_and_at_least_one(shelf: Shelf) -> None:
    dice = random.Random(5)
    known = [
        (1, 5000),
        (3, 5000),
        (1, 5001),
        (99, 1),
        (10, 2550),
        (10, 2450),
        (10**12, 1),
        (10**12, 9999),
        (1, 10_000),
        (10_000, 10_000),
    ]
    for list_price, discount in [*known, *((dice.randint(1, 99_999), dice.randint(0, 10_000)) for _ in range(60))]:
        product = await shelf.product(list_price_minor=list_price, discount_bp=discount)
        await shelf.unit(product)
        exact = Decimal(list_price) * (10_000 - discount) / 10_000
        assert await shelf.priced(product) == [(discount, max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP))))]


async def test_what_never_runs_out_has_its_promotion_only(shelf: Shelf) -> None:
    made = await shelf.product(kind="made", lead_time_h=48, discount_bp=300, duration_days=30)
    await shelf.pg.fetch("UPDATE products SET created_at = now() - interval '100 days' WHERE id = $1", (made,))
    assert await shelf.priced(made) == [(300, 9700)]


async def test_only_what_can_be_delivered_is_for_sale(shelf: Shelf) -> None:
    product = await shelf.product()
    good = await shelf.unit(product, left_s=3600)
    for state in ("held", "sold", "withdrawn"):
        await shelf.unit(product, state=state)
    await shelf.unit(product, left_s=-1)  # expired
    await shelf.unit(product, secret=False)  # there would be nothing to hand over
    assert await shelf.for_sale(product) == [good]

    shipped = await shelf.product(kind="shipped")
    piece = await shelf.unit(shipped, secret=False)
    assert await shelf.for_sale(shipped) == [piece]

    shared = await shelf.product(kind="shared")
    assert await shelf.for_sale(shared) == []  # no content yet
    await shelf.pg.fetch(SHARE, (shared,))
    assert await shelf.for_sale(shared) == [None]

    made = await shelf.product(kind="made", lead_time_h=1)
    assert await shelf.for_sale(made) == [None]

    everything = [product, shipped, shared, made]
    assert await stock.count(shelf.pg, [*everything, 999]) == {product: 1, shipped: 1, shared: None, made: None, 999: 0}
    await shelf.pg.fetch("UPDATE products SET active = false", ())
    assert [await shelf.for_sale(one) for one in everything] == [[]] * 4
    assert await stock.count(shelf.pg, everything) == dict.fromkeys(everything, 0)
    assert await catalog.page(shelf.pg, category="", after=0, size=9) == []


async def test_the_shelf_shows_the_next_unit_and_how_many_are_left(shelf: Shelf) -> None:
    product = await shelf.product(discount_bp=100)
    await shelf.unit(product, idle_min=5)
    await shelf.unit(product, discount_bp=1000)
    shown = await catalog.get(shelf.pg, product)
    assert shown is not None
    assert (shown.price_minor, shown.discount_bp, shown.units_left) == (9000, 1000, 2)


async def test_what_is_sold_out_stays_on_the_shelf_at_its_list_price(shelf: Shelf) -> None:
    ids = {kind: await shelf.product(kind=kind, discount_bp=700) for kind in ("unit", "shipped", "shared")}
    ids["made"] = await shelf.product(kind="made", lead_time_h=1)
    page = {shown.id: shown for shown in await catalog.page(shelf.pg, category="", after=0, size=9)}
    assert {kind: page[product].units_left for kind, product in ids.items()} == {
        "unit": 0, "shipped": 0, "shared": 0, "made": None,
    }  # fmt: skip
    assert {shown.price_minor for shown in page.values()} == {10_000}


async def test_the_shelf_is_read_page_by_page(shelf: Shelf) -> None:
    titles = ["Red key", "Blue key", "Red book", "blue BOOK"]
    ids = [await shelf.product(title=title, category=title[-4:].strip().lower()) for title in titles]

    async def found(category: str = "", after: int = 0, size: int = 9) -> list[str]:
        return [p.title for p in await catalog.page(shelf.pg, category=category, after=after, size=size)]

    assert await found() == titles
    assert await found(size=3) == titles[:3]
    assert await found(after=ids[2]) == titles[3:]
    assert await found(category="book") == titles[2:]
    assert await catalog.categories(shelf.pg) == ["book", "key"]
