"""Offers: made of what is there at that moment, and an order at that price or none; forged, old and foreign ones are
refused."""

import asyncio
import base64
import random
from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from typing import Any

import msgspec
import pytest

from app.base import clock
from app.channels.line import Offer
from app.domain import stock
from app.errors import BadOffer, NotFound, OfferStale, OutOfStock
from app.flows import checkout, offer
from app.flows.consult import Question, consult
from app.infra.llm import Call, Message, Tool, Words
from app.infra.secrets import Offered, Offers
from app.shop import Shop
from tests.flows.test_checkout import users
from tests.world import World

RACES = 1000
AT_ONCE = 12  # races
SELL = "UPDATE stock_items SET state = 'withdrawn' WHERE product_id = $1"


class Eager:
    """A model that offers the product that it is asked for, some time after it has read its prompt."""

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, may_call: bool = True
    ) -> AsyncGenerator[Words | Call, None]:
        last = messages[-1]
        if last.role == "user":
            await asyncio.sleep(random.random() / 25)
            yield Call("c", "offer_payment", f'{{"product_id":{last.text},"quantity":1}}')
        else:
            yield Words(last.text)

    async def close(self) -> None: ...


def with_model(shop: Shop, model: Any) -> Shop:
    return msgspec.structs.replace(shop, deps=msgspec.structs.replace(shop.deps, model=model))


async def heard(_piece: str) -> None: ...


async def test_a_thousand_races_and_nothing_is_offered_after_it_was_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ann,) = await users(world, 1)
    shop, room = with_model(world.shop, Eager()), asyncio.Semaphore(AT_ONCE)
    products = [await stocked(world, n) for n in range(RACES)]
    asked_s: dict[int, float] = {}
    quote = stock.quote

    async def timed(pg: Any, wanted: list[stock.Units]) -> dict[int, stock.Quote]:
        asked_s[wanted[0].product_id] = monotonic()
        return await quote(pg, wanted)

    monkeypatch.setattr(stock, "quote", timed)

    async def sell(product: int) -> float:
        await asyncio.sleep(random.random() / 25)
        await world.pg.fetch(SELL, (product,))
        return monotonic()

    async def race(product: int) -> str:
        async with room:
            gone = asyncio.create_task(sell(product))
            answer = await consult(shop, Question(1, ann, "en", str(product), []), heard)
            gone_s = await gone
        assert answer.by == "model"
        assert asked_s[product] <= gone_s or not answer.offers, "offered after it was gone"
        assert bool(answer.offers) is ("offered" in answer.text)
        return ("offered" if answer.offers else "refused") + (" before" if asked_s[product] <= gone_s else " after")

    ended = await asyncio.gather(*(race(product) for product in products))
    assert ended.count("refused after") > RACES / 20
    assert ended.count("offered before") > RACES / 20
    assert "offered after" not in ended


async def stocked(world: World, n: int) -> int:
    """A product with one unit, as plain rows: nobody looks at the shelf in between."""
    rows = await world.pg.fetch(PRODUCT, (n, str(n).encode()))
    return int(rows[0][0])


PRODUCT = """
WITH seller AS (INSERT INTO sellers (name) SELECT 'S' WHERE $1::int = 0 RETURNING id),
made AS (
    INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor)
    SELECT coalesce((SELECT id FROM seller), (SELECT min(id) FROM sellers)), 'Key', 'Keys', 'unit', 'RUB', 100
    RETURNING id),
unit AS (
    INSERT INTO stock_items (id, product_id, sealed, fingerprint)
    SELECT gen_random_uuid(), m.id, 'sealed', $2::bytea FROM made m)
SELECT m.id FROM made m"""


async def offered_to(world: World, user_id: int, product: int, quantity: int = 1) -> Offer:
    made = await offer.offer(world.shop, user_id, product, quantity)
    assert isinstance(made, Offer)
    return made


async def test_what_was_offered_is_the_order(world: World) -> None:
    product = await world.product(*"ABC", price_minor=5000, discount_bp=1000)
    (ann,) = await users(world, 1)
    made = await offered_to(world, ann, product, 2)
    placed = await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")
    assert (placed.order.total_minor, placed.repeated, placed.order.payment_status) == (9000, False, "open")
    again = await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")
    assert (again.order.id, again.repeated) == (placed.order.id, True)
    assert await world.scalar("SELECT count(*) FROM orders") == 1


async def test_a_button_pressed_twice_at_once_is_one_order(world: World) -> None:
    product = await world.product(*"ABCDEF")
    (ann,) = await users(world, 1)
    made = await offered_to(world, ann, product, 2)
    pressed = [checkout.accept_offer(world.shop, ann, made.token, "crystalpay") for _ in range(4)]
    ended = await asyncio.gather(*pressed, return_exceptions=True)
    assert len({one.order.id for one in ended if isinstance(one, checkout.Placed)}) == 1
    assert await world.scalar("SELECT count(*) FROM orders") == 1
    assert await world.scalar("SELECT count(*) FROM stock_items WHERE state = 'held'") == 2


async def test_no_order_stands_at_another_price(world: World) -> None:
    product = await world.product("A", price_minor=5000)
    (ann,) = await users(world, 1)
    made = await offered_to(world, ann, product)
    await world.pg.fetch("UPDATE products SET list_price_minor = 4000 WHERE id = $1", (product,))
    with pytest.raises(OfferStale) as caught:
        await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")
    assert caught.value.facts == {"price_minor": 4000, "currency": "RUB", "offered_minor": 5000}
    assert await world.scalar("SELECT count(*) FROM orders") == 0
    assert await world.scalar("SELECT count(*) FROM stock_items WHERE state = 'available'") == 1
    newer = await offered_to(world, ann, product)
    placed = await checkout.accept_offer(world.shop, ann, newer.token, "crystalpay")
    assert placed.order.total_minor == 4000


async def test_what_is_gone_since_is_out_of_stock(world: World) -> None:
    product = await world.product("A")
    (ann,) = await users(world, 1)
    made = await offered_to(world, ann, product)
    await world.pg.fetch(SELL, (product,))
    with pytest.raises(OutOfStock):
        await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")


async def test_a_price_that_changes_under_the_orders_is_never_paid_by_surprise(world: World) -> None:
    """Whatever the moment at which the seller changes the price, an order costs what its buyer was offered."""
    product = await world.product(*[f"K{n}" for n in range(120)], price_minor=5000)
    people = await users(world, 60)
    offers = [await offered_to(world, user_id, product) for user_id in people]
    changing = asyncio.create_task(_change(world, product))
    accepted = [
        checkout.accept_offer(world.shop, user_id, made.token, "crystalpay")
        for user_id, made in zip(people, offers, strict=True)
    ]
    ended = await asyncio.gather(*accepted, return_exceptions=True)
    await changing
    placed = [one for one in ended if isinstance(one, checkout.Placed)]
    assert {one.order.total_minor for one in placed} <= {5000}
    assert {type(one) for one in ended if not isinstance(one, checkout.Placed)} <= {OfferStale}
    assert await world.scalar("SELECT count(*) FROM orders WHERE total_minor <> 5000") == 0
    held = await world.scalar("SELECT count(*) FROM stock_items WHERE state = 'held'")
    assert held == len(placed)


async def _change(world: World, product: int) -> None:
    for price in (4000, 5000, 6000, 5000, 4999):
        await asyncio.sleep(0.02)
        await world.pg.fetch("UPDATE products SET list_price_minor = $2 WHERE id = $1", (product, price))


async def test_forged_foreign_and_old_offers_are_refused(world: World) -> None:
    product = await world.product("A")
    ann, bob = await users(world, 2)
    made = await offered_to(world, ann, product)
    signs = world.shop.deps.offers
    assert signs is not None
    old = msgspec.structs.replace(_read(signs, made.token), expires_s=clock.unix_s() - 1)
    for user_id, token, reason in (
        (bob, made.token, "unknown"), (ann, "A" * 56, "unknown"), (ann, "", "unknown"), (ann, "ы" * 56, "unknown"),
        (ann, Offers("another secret").issue(_read(signs, made.token)), "unknown"),
        (ann, signs.issue(old), "expired"),
    ):  # fmt: skip
        with pytest.raises(BadOffer) as caught:
            await checkout.accept_offer(world.shop, user_id, token, "crystalpay")
        assert caught.value.facts == {"reason": reason}
    assert await world.scalar("SELECT count(*) FROM orders") == 0
    with pytest.raises(NotFound):
        await checkout.accept_offer(world.shop, ann, made.token, "no such gateway")


async def test_an_order_that_stands_is_found_by_its_offer_after_that_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await world.product("A")
    (ann,) = await users(world, 1)
    made = await offered_to(world, ann, product)
    placed = await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")
    now_s = clock.unix_s()
    monkeypatch.setattr(clock, "unix_s", lambda: now_s + offer.LIFE_S + 1)
    again = await checkout.accept_offer(world.shop, ann, made.token, "crystalpay")
    assert (again.order.id, again.repeated) == (placed.order.id, True)


def _read(signs: Offers, token: str) -> Offered:
    read = signs.read(token)
    assert read is not None
    return read


def test_every_altered_bit_of_a_token_is_noticed() -> None:
    signs = Offers("s" * 32)
    offered = Offered(product_id=7, quantity=2, price_minor=9000, currency="RUB", user_id=9, expires_s=1_800_000_000)
    token = signs.issue(offered)
    assert len(token) == 56
    assert signs.read(token) == offered
    raw = base64.urlsafe_b64decode(token)
    for at in range(len(raw)):
        for bit in range(8):
            altered = raw[:at] + bytes((raw[at] ^ 1 << bit,)) + raw[at + 1 :]
            assert signs.read(base64.urlsafe_b64encode(altered).decode()) is None
    spelt = next(t for s in range(100) if "_" in (t := signs.issue(msgspec.structs.replace(offered, expires_s=s))))
    assert signs.read(spelt.replace("_", "/")) is None  # the same bytes, but it would be another order's key
    for cut in range(56):
        assert signs.read(token[:cut]) is None
    assert signs.read(token + "AAAA") is None


def test_the_largest_of_all_fits_a_button() -> None:
    most = Offered(
        product_id=2**48 - 1, quantity=50, price_minor=50 * 10**12, currency="USD", user_id=2**48 - 1,
        expires_s=2**32 - 1,
    )  # fmt: skip
    signs = Offers("s" * 32)
    assert len(signs.issue(most)) == 56
    assert signs.read(signs.issue(most)) == most
    with pytest.raises(OverflowError):
        signs.issue(msgspec.structs.replace(most, product_id=2**48))
