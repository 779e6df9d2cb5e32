"""What the consultant offers and puts aside, over HTTP: an order by an offer's token, and a cart that is taken once."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.channels.line import Offer
from app.domain import cart
from app.flows import offer
from tests.world import Buyer, World


async def user_of(buyer: Buyer) -> int:
    return int((await buyer.get("/api/me")).json()["user_id"])


async def offered(world: World, buyer: Buyer, product: int, quantity: int = 1) -> str:
    made = await offer.offer(world.shop, await user_of(buyer), product, quantity)
    assert isinstance(made, Offer)
    return made.token


async def accept(buyer: Buyer, token: Any, *, key: str | None = None, **more: Any) -> httpx.Response:
    body = {"offer": token, "provider": "crystalpay"} | more
    return await buyer.http.post(
        "/api/orders", json=body, headers=buyer.headers | {"Idempotency-Key": key or str(uuid4())}
    )


async def test_an_offer_is_bought_by_its_token(world: World) -> None:
    product = await world.product(*"ABC", price_minor=5000)
    ann = await world.buyer()
    token = await offered(world, ann, product, 2)
    answer = await accept(ann, token, key="k")
    assert answer.status_code == 201
    placed = answer.json()
    assert (placed["order"]["total_minor"], placed["payment"]["status"]) == (10_000, "open")
    assert [(line["product_id"], line["quantity"]) for line in placed["order"]["lines"]] == [(product, 2)]
    again = await accept(ann, token, key="k")
    assert (again.content, again.headers["Idempotency-Replayed"]) == (answer.content, "true")
    assert (await accept(ann, token, key="k", provider="balance")).status_code == 422


async def test_offers_that_do_not_hold_are_clear_refusals(world: World) -> None:
    product = await world.product("A", price_minor=5000)
    ann, bob = await world.buyer(), await world.buyer(1002)
    token = await offered(world, ann, product)
    foreign = await accept(bob, token)
    assert (foreign.status_code, foreign.json()["type"]) == (403, "/problems/bad-offer")
    forged = await accept(ann, f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}")
    assert (forged.status_code, forged.json()["reason"]) == (403, "unknown")
    await world.pg.fetch("UPDATE products SET list_price_minor = 6000 WHERE id = $1", (product,))
    stale = (await accept(ann, token)).json()
    assert (stale["status"], stale["type"]) == (409, "/problems/offer-stale")
    assert (stale["price_minor"], stale["offered_minor"], stale["currency"]) == (6000, 5000, "RUB")
    await world.pg.fetch("UPDATE stock_items SET state = 'withdrawn' WHERE product_id = $1", (product,))
    gone = (await accept(ann, token)).json()
    assert (gone["status"], gone["type"]) == (409, "/problems/out-of-stock")
    assert await world.scalar("SELECT count(*) FROM orders") == 0


@pytest.mark.parametrize(
    "body",
    [
        {"offer": "A" * 57},
        {"offer": ""},
        {"offer": 7},
        {"offer": "A" * 56, "lines": [{"product_id": 1, "quantity": 1}]},
        {"offer": "A" * 56, "promo": "CODE"},
        {"offer": None},
        {},
    ],
)
async def test_an_order_is_of_lines_or_of_an_offer(world: World, body: dict[str, Any]) -> None:
    ann = await world.buyer()
    headers = ann.headers | {"Idempotency-Key": "k"}
    answer = await world.http.post("/api/orders", json={"provider": "crystalpay"} | body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed")


async def test_the_cart_is_taken_once_with_cards_as_the_shelf_shows_them(world: World) -> None:
    key, guide = await world.product("A", "B", title="Office Key"), await world.product(title="Guide", kind="shared")
    hidden = await world.product("A")
    ann, bob = await world.buyer(), await world.buyer(1002)
    user_id = await user_of(ann)
    for line in ((key, 2), (guide, 1), (hidden, 1)):
        assert await cart.put(world.pg, user_id, *line)
    await world.pg.fetch("UPDATE products SET active = false WHERE id = $1", (hidden,))
    assert (await world.http.post("/api/cart/take", headers=bob.headers)).json() == {"lines": []}
    taken = (await world.http.post("/api/cart/take", headers=ann.headers)).json()["lines"]
    assert [(line["product"]["id"], line["quantity"]) for line in taken] == [(key, 2), (guide, 1)]
    assert taken[0]["product"] == (await ann.get(f"/api/products/{key}")).json()
    assert (await world.http.post("/api/cart/take", headers=ann.headers)).json() == {"lines": []}
    assert (await world.http.post("/api/cart/take")).status_code == 401
