"""A quote is what an order costs: the same units in the same turn, read from the same view; and an order at another
total than was offered is none."""

import random

from app.domain import cart, catalog, stock
from tests.sql.shelf import DAY_MIN, SHARE, Shelf


async def quoted(shelf: Shelf, product_id: int, quantity: int) -> stock.Quote | None:
    return (await stock.quote(shelf.pg, [stock.Units(product_id, quantity)])).get(product_id)


async def test_a_quote_is_the_total_of_an_order(shelf: Shelf) -> None:
    dice = random.Random(21)
    for _ in range(60):
        kind = dice.choice(["unit", "unit", "unit", "shipped", "shared"])
        product = await shelf.product(
            kind=kind, list_price_minor=dice.choice([1, 99, 10_000, 123_457]), discount_bp=dice.choice([0, 500, 3333]),
            duration_days=dice.choice([None, 30, 365]),
        )  # fmt: skip
        if kind == "shared":
            await shelf.pg.fetch(SHARE, (product,))
        for _ in range(0 if kind == "shared" else dice.randint(0, 6)):
            await shelf.unit(
                product, discount_bp=dice.choice([0, 0, 1000, 7500]), idle_min=dice.choice([0, 1, 20, 200]) * DAY_MIN,
                left_s=dice.choice([None, 3600, -1]), state=dice.choice(["available", "available", "held", "sold"]),
                secret=kind == "unit" and dice.random() < 0.9,
            )  # fmt: skip
        quantity = dice.randint(1, 5)
        told = await quoted(shelf, product, quantity)
        assert told is not None
        assert told.units == (await stock.count(shelf.pg, [product]))[product]
        made = await shelf.buy((product, quantity))
        assert told.price_minor == (made and made.total_minor)


async def test_the_first_in_turn_are_quoted_and_not_the_cheapest_of_all(shelf: Shelf) -> None:
    product = await shelf.product(duration_days=30)
    await shelf.unit(product, idle_min=1000 * DAY_MIN)  # 20 % for its age
    await shelf.unit(product, discount_bp=1000)  # goes first: item discounts do
    told = await quoted(shelf, product, 1)
    assert told == stock.Quote(product, "Key", "RUB", 1, 2, 9000)
    made = await shelf.buy((product, 1))
    assert made is not None
    assert made.total_minor == 9000


async def test_what_cannot_be_had_has_no_price(shelf: Shelf) -> None:
    product, gone = await shelf.product(), await shelf.product()
    await shelf.unit(product)
    await shelf.unit(gone)
    await shelf.pg.fetch("UPDATE products SET active = false WHERE id = $1", (gone,))
    told = await stock.quote(shelf.pg, [stock.Units(i, 2) for i in (product, gone, 999_999)])
    assert told == {product: stock.Quote(product, "Key", "RUB", 2, 1, None)}


async def test_an_order_is_made_at_the_offered_total_and_at_no_other(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.units(product, 2)
    for other in (1, 9999, 10_001, 20_000, -1):
        assert await shelf.buy((product, 1), offered_minor=other) is None
    assert await stock.count(shelf.pg, [product]) == {product: 2}
    made = await shelf.buy((product, 1), offered_minor=10_000)
    assert made is not None
    assert made.total_minor == 10_000
    assert await shelf.buy((product, 1)) is not None  # 0: whatever it costs


async def test_a_cart_line_is_what_was_put_there_last_and_no_more_than_there_is(shelf: Shelf) -> None:
    counted, endless, gone = await shelf.product(), await shelf.product(kind="shared"), await shelf.product()
    await shelf.units(counted, 3)
    await shelf.pg.fetch(SHARE, (endless,))
    put = [await cart.put(shelf.pg, shelf.user_id, *line) for line in [(counted, 2), (counted, 2), (counted, 9)]]
    assert put == [cart.Line(counted, 2), cart.Line(counted, 2), cart.Line(counted, 3)]
    assert await cart.put(shelf.pg, shelf.user_id, endless, 50) == cart.Line(endless, 50)
    assert await cart.put(shelf.pg, shelf.user_id, gone, 1) is None
    assert await cart.put(shelf.pg, shelf.user_id, 999_999, 1) is None
    assert await cart.take(shelf.pg, shelf.user_id) == [cart.Line(counted, 3), cart.Line(endless, 50)]
    assert await cart.take(shelf.pg, shelf.user_id) == []


async def test_a_cart_has_so_many_lines_and_is_its_owners(shelf: Shelf) -> None:
    products = [await shelf.product() for _ in range(cart.MOST_LINES + 1)]
    for product in products:
        await shelf.unit(product)
    put = [await cart.put(shelf.pg, shelf.user_id, product, 1) for product in products]
    assert put[-1] is None
    assert all(put[:-1])
    assert await cart.put(shelf.pg, shelf.user_id, products[0], 1)  # one that is there may change
    assert await cart.take(shelf.pg, shelf.user_id + 1) == []
    assert len(await cart.take(shelf.pg, shelf.user_id)) == cart.MOST_LINES


async def test_several_products_are_read_at_once(shelf: Shelf) -> None:
    one, other, hidden = await shelf.product(title="One"), await shelf.product(), await shelf.product()
    await shelf.pg.fetch("UPDATE products SET active = false WHERE id = $1", (hidden,))
    found = await catalog.several(shelf.pg, [other, one, hidden])
    assert found == {i: await catalog.get(shelf.pg, i) for i in (one, other)}
