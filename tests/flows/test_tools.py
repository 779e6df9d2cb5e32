"""The model's tools: bound to one buyer, and deaf to everything that does not fit."""

import asyncio
from typing import Any

import msgspec
import pytest

from app.domain import cart
from app.flows import checkout, tools
from app.flows.tools import TABLE, TOOLS, bound, plain
from app.infra.llm import Call
from tests.flows.test_checkout import users, want
from tests.world import World


class Hand:
    """The tools of one buyer, as a model uses them."""

    def __init__(self, world: World, user_id: int) -> None:
        self.use = bound(world.shop, user_id)

    async def __call__(self, name: str, arguments: Any = None) -> Any:
        given = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        return msgspec.json.decode((await self.use(Call("c", name, given))).text())


def test_every_tool_is_told_of_and_none_takes_a_user() -> None:
    assert [tool.name for tool in TOOLS] == list(TABLE)
    for tool in TOOLS:
        assert tool.description
        assert tool.parameters["additionalProperties"] is False
        assert not any("user" in name or "buyer" in name for name in tool.parameters["properties"])


ABSURD: list[tuple[str, Any]] = [
    ("delete_all_orders", {}),
    ("", {}),
    ("search_catalog", "{"),
    ("search_catalog", ""),
    ("search_catalog", "null"),
    ("search_catalog", "[]"),
    ("search_catalog", '{"query":"\\ud800"}'),
    ("search_catalog", {"query": ""}),
    ("search_catalog", {"query": "x" * 101}),
    ("search_catalog", {"query": "key", "user_id": 1}),
    ("my_orders", {"user_id": 1}),
    ("product_details", {"product_id": 0}),
    ("product_details", {"product_id": 2**63}),
    ("product_details", {"product_id": 999_999}),
    ("check_availability", {"product_ids": []}),
    ("check_availability", {"product_ids": list(range(1, 12))}),
    ("add_to_cart", {"product_id": 999_999, "quantity": 1}),
    ("add_to_cart", {"product_id": 1, "quantity": 51}),
    ("offer_payment", {"product_id": 1, "quantity": 0}),
    ("offer_payment", {"product_id": 1, "quantity": -1}),
    ("offer_payment", {"product_id": 1, "quantity": 1.5}),
    ("offer_payment", {"product_id": 1, "quantity": 1, "price_minor": 1}),
    ("offer_payment", {"product_id": 999_999, "quantity": 1}),
    ("offer_payment", "[" * 100_000),
    ("hand_over_to_human", "7"),
]


async def test_what_does_not_fit_is_an_error_to_the_model(world: World) -> None:
    await world.product("A")
    (ann,) = await users(world, 1)
    hand = Hand(world, ann)
    for name, arguments in ABSURD:
        told = await hand(name, arguments)
        assert list(told) == ["error"], (name, arguments)
        assert told["error"]


async def test_search_and_details_tell_what_the_shelf_shows(world: World) -> None:
    product = await world.product("A", title="Office Key", description="d" * 2000, price_minor=5000)
    (ann,) = await users(world, 1)
    hand = Hand(world, ann)
    (hit,) = (await hand("search_catalog", {"query": "office"}))["products"]
    assert hit == {"id": product, "title": "Office Key", "category": "Keys", "price": "50.00 RUB", "left": 1}
    told = await hand("product_details", {"product_id": str(product)})  # some models quote their numbers
    assert (told["title"], told["seller"], len(told["description"])) == ("Office Key", "Seller", 1000)
    assert await hand("search_catalog", {"query": "\0 %"}) == {"products": []}  # in which no word is


async def test_availability_is_of_now(world: World) -> None:
    product, endless = await world.product("A", "B"), await world.product(kind="shared")
    (ann,) = await users(world, 1)
    hand = Hand(world, ann)
    await hand("product_details", {"product_id": product})  # a copy is made
    await world.pg.fetch("UPDATE stock_items SET state = 'sold' WHERE product_id = $1", (product,))
    told = await hand("check_availability", {"product_ids": [product, endless, product, 999_999]})
    assert [(p["id"], p["left"], p["price"]) for p in told["products"]] == [
        (product, 0, None), (endless, None, "100.00 RUB"),
    ]  # fmt: skip
    assert told["unknown"] == [999_999]


async def test_orders_and_cart_are_the_bound_buyers(world: World) -> None:
    product = await world.product(*"ABC")
    ann, bob = await users(world, 2)
    placed = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (await Hand(world, bob)("my_orders"))["orders"] == []
    (order,) = (await Hand(world, ann)("my_orders"))["orders"]
    assert (order["number"], order["status"], order["total"]) == (placed.order.number, "pending", "100.00 RUB")
    assert order["lines"] == [[1, "Key"]]
    told = await Hand(world, ann)("add_to_cart", {"product_id": product, "quantity": 9})
    assert told == {"in_cart": {"product_id": product, "quantity": 2}}
    assert await cart.take(world.pg, bob) == []
    assert await cart.take(world.pg, ann) == [cart.Line(product, 2)]


async def test_so_many_offers_are_made_in_one_answer(world: World) -> None:
    products = [await world.product("A") for _ in range(tools.MOST_OFFERS + 1)]
    (ann,) = await users(world, 1)
    hand = Hand(world, ann)
    told = [await hand("offer_payment", {"product_id": product, "quantity": 1}) for product in products]
    assert [next(iter(one)) for one in told] == ["offered"] * tools.MOST_OFFERS + ["error"]
    assert "offered" in await hand("offer_payment", {"product_id": products[0], "quantity": 1})


async def test_calls_of_one_round_change_things_one_after_another(world: World) -> None:
    products = [await world.product("A") for _ in range(8)]
    several = await world.product(*"ABCDEF")
    (ann,) = await users(world, 1)
    hand = Hand(world, ann)
    told = await asyncio.gather(*(hand("offer_payment", {"product_id": one, "quantity": 1}) for one in products))
    assert [next(iter(one)) for one in told] == ["offered"] * tools.MOST_OFFERS + ["error"] * 5
    await asyncio.gather(*(hand("add_to_cart", {"product_id": several, "quantity": n}) for n in (5, 4, 3, 2) * 5))
    assert await cart.take(world.pg, ann) == [cart.Line(several, 2)]


def test_no_text_can_end_a_fence() -> None:
    assert plain({"t": "</catalog>\n\u2028"}) == '{"t":"\\u003c/catalog>\\n\u2028"}'


@pytest.mark.parametrize("price", [None, 0])
def test_a_price_that_is_not_known_is_not_told_as_nothing(price: int | None) -> None:
    assert tools._price(price, "RUB") == (None if price is None else "0.00 RUB")
