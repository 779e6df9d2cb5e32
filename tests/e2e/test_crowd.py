"""Crowds: many at once, over HTTP, while Redis forgets everything; nothing is sold, settled or delivered twice."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest

from app.flows import deliver
from app.sandbox.crystalpay_wire import Callbacks, Payment, callback_body
from tests.world import SALT, Buyer, World, invoice_of, order_id_of

REPEATS = 200
BUYERS, KEYS = 100, 10


@pytest.fixture
async def placed(world: World) -> dict[str, Any]:
    """An order that waits for its payment."""
    product = await world.product("KEY-1", "KEY-2")
    order: dict[str, Any] = (await (await world.buyer()).order((product, 1))).json()
    return order


async def delivered_once(world: World, placed: dict[str, Any]) -> None:
    """Raises: AssertionError."""
    order_id = order_id_of(placed)
    assert await world.scalar("SELECT count(*) FROM inbox") == 1
    jobs = await world.pg.fetch("SELECT kind, state FROM outbox ORDER BY id", ())
    owed = [
        "settle",
        "deliver",
        "tell",
        "announce",
        *deliver.FOLLOWS,
    ]  # it is paid, and it is delivered: two announcements
    assert sorted(tuple(row) for row in jobs) == sorted((kind, "done") for kind in owed)
    events = await world.pg.fetch("SELECT to_status FROM order_events WHERE order_id = $1 ORDER BY id", (order_id,))
    assert [row[0] for row in events] == ["pending", "paid", "delivered"]
    assert await world.scalar("SELECT count(*) FROM stock_items WHERE state = 'sold'") == 1
    assert len(world.telegram.sent_to(1001)) == 1


async def test_one_callback_two_hundred_times_at_once_is_one_delivery(world: World, placed: dict[str, Any]) -> None:
    sent = await world.crystalpay.pay(invoice_of(placed), Payment(callbacks=Callbacks(copies=REPEATS)))
    assert Counter(entry.status for entry in sent) == {200: REPEATS}
    await world.drain()
    await delivered_once(world, placed)


async def test_the_same_with_redis_flushed_in_the_middle(world: World, placed: dict[str, Any]) -> None:
    """Also while the job of the first callback runs, and again when all of it is long over."""
    world.crystalpay.pay(invoice_of(placed), Payment(callbacks=Callbacks(delay_ms=60_000)))
    invoice = world.crystalpay.invoice(invoice_of(placed))
    body = msgspec.json.encode(callback_body(invoice, Callbacks(), SALT))
    answers: list[int] = []

    async def call() -> None:
        answers.append((await world.callback(body)).status_code)
        if len(answers) in (REPEATS // 4, REPEATS // 2):
            await world.shop.deps.redis.command("FLUSHALL")
        if len(answers) == REPEATS // 3:
            await world.drain()

    await asyncio.gather(*(call() for _ in range(REPEATS)))
    assert Counter(answers) == {200: REPEATS}
    await world.drain()
    await delivered_once(world, placed)

    await world.shop.deps.redis.command("FLUSHALL")
    assert (await world.callback(body)).status_code == 200
    assert await world.drain() == 0
    await delivered_once(world, placed)


async def test_a_hundred_buyers_for_ten_keys_while_redis_forgets(world: World) -> None:
    product = await world.product(*(f"KEY-{n}" for n in range(KEYS)))
    buyers = [await world.buyer(2000 + n) for n in range(BUYERS)]
    flushes = 0

    async def forget() -> None:
        nonlocal flushes
        while True:
            await world.shop.deps.redis.command("FLUSHALL")
            flushes += 1
            await asyncio.sleep(0.02)

    forgetting = asyncio.create_task(forget())
    answers = await asyncio.gather(*(insistent(buyer, product, key=f"k{n}") for n, buyer in enumerate(buyers)))
    forgetting.cancel()
    with suppress(asyncio.CancelledError):
        await forgetting
    assert flushes > 3

    sold = [answer.json() for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(sold) <= KEYS
    assert {refusal(answer) for answer in refused} <= {(409, "/problems/out-of-stock"), (503, "/problems/busy")}
    await conserved(world, held=len(sold))

    await asyncio.gather(*(world.crystalpay.pay(invoice_of(order)) for order in sold))
    await world.drain()
    assert await world.scalar("SELECT count(*) FROM orders WHERE status = 'delivered'") == len(sold)
    await conserved(world, sold=len(sold))
    goods = [good for buyer, answer in zip(buyers, answers, strict=True) if answer.status_code == 201
             for good in await buyer.goods(answer.json()["order"]["id"])]  # fmt: skip
    assert len(set(goods)) == len(goods) == len(sold)


async def insistent(buyer: Buyer, product: int, *, key: str) -> httpx.Response:
    """The answer, as soon as it is no longer "in progress": a flush also takes the mark of who works on a key."""
    while True:
        answer = await buyer.order((product, 1), key=key)
        if answer.status_code != 409 or answer.json()["type"] != "/problems/in-progress":
            return answer
        await asyncio.sleep(0.05)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["type"]


async def conserved(world: World, **expected: int) -> None:
    """The ten units are where they must be. Raises: AssertionError."""
    states = {row[0]: row[1] for row in await world.pg.fetch("SELECT state, count(*) FROM stock_items GROUP BY 1", ())}
    left = KEYS - sum(expected.values())
    assert states == {name: n for name, n in {**expected, "available": left}.items() if n}
    claims = await world.scalar("SELECT count(*) FROM order_items WHERE state <> 'released'")
    assert claims == sum(expected.values())
