"""Idempotency over real HTTP: one effect, the same bytes for every repeat, and a key that no crash can spoil."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from app import errors
from app.domain import once, stock
from app.sandbox.crystalpay import ApiFault
from tests.web.test_shop import problem
from tests.world import Buyer, World, add_keys


async def place(buyer: Buyer, content: bytes, key: str) -> httpx.Response:
    headers = buyer.headers | {"Idempotency-Key": key, "Content-Type": "application/json"}
    return await buyer.http.post("/api/orders", content=content, headers=headers)


def cart(product: int, quantity: int = 1) -> bytes:
    return msgspec.json.encode({"lines": [{"product_id": product, "quantity": quantity}], "provider": "crystalpay"})


async def orders_of(world: World) -> int:
    return int(await world.scalar("SELECT count(*) FROM orders"))


async def test_repeats_get_the_same_bytes_also_after_the_order_moved_on(world: World) -> None:
    product, ann, key = await world.product("A", "B"), await world.buyer(), str(uuid4())
    first = await place(ann, cart(product), key)
    assert first.status_code == 201
    await world.crystalpay.pay(first.json()["payment"]["url"].rpartition("i=")[2])
    await world.drain()
    assert await ann.status(first.json()["order"]["id"]) == "delivered"
    for _ in range(3):
        again = await place(ann, cart(product), key)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await orders_of(world) == 1


@pytest.mark.parametrize("form", ['"{}"', "{}"])
async def test_a_key_is_the_same_quoted_and_bare(world: World, form: str) -> None:
    product, ann, key = await world.product("A"), await world.buyer(), str(uuid4())
    first = await place(ann, cart(product), key)
    assert (await place(ann, cart(product), form.format(key))).content == first.content


async def test_another_spelling_of_the_body_is_another_request(world: World) -> None:
    """The raw bytes count: key order and number forms are not folded."""
    product, ann = await world.product("A", "B"), await world.buyer()
    assert (await place(ann, cart(product), "k")).status_code == 201
    for body in (cart(product, 2), cart(product) + b" ", cart(product).replace(b":1", b": 1")):
        problem(await place(ann, body, "k"), errors.KeyReused)
    bob = await world.buyer(2002)
    assert (await place(bob, cart(product), "k")).status_code == 201


async def test_a_refusal_is_not_kept(world: World) -> None:
    product, ann = await world.product("A"), await world.buyer()
    bob = await world.buyer(2002)
    assert (await place(bob, cart(product), "b")).status_code == 201
    problem(await place(ann, cart(product), "k"), errors.OutOfStock)
    assert world.shop.deps.sealer
    await add_keys(world.pg, world.shop.deps.sealer, product, ["B"])
    await stock.forget(world.shop.deps.redis, world.seller_id, [product])
    assert (await place(ann, cart(product), "k")).status_code == 201


async def test_who_comes_while_it_runs_is_told_so(world: World) -> None:
    product, ann = await world.product("A", "B"), await world.buyer()
    world.crystalpay.faults.append(ApiFault(on="create", wait_ms=300, times=1))
    first = asyncio.create_task(place(ann, cart(product), "k"))
    while not await world.shop.deps.redis.command("KEYS", "*once:*"):  # noqa: ASYNC110  (Redis sets no event here)
        await asyncio.sleep(0.005)
    told = await place(ann, cart(product), "k")
    problem(told, errors.InProgress)
    assert int(told.headers["retry-after"]) > 0
    problem(await place(ann, cart(product, 2), "k"), errors.KeyReused)
    done = await first
    assert (await place(ann, cart(product), "k")).content == done.content


async def test_a_crash_leaves_the_key_usable_when_its_lease_ends(world: World) -> None:
    product, ann = await world.product("A"), await world.buyer()
    me = (await ann.get("/api/me")).json()["user_id"]
    dead = once.ticket(me, "k", "POST /api/orders", cart(product))
    await once.claim(world.shop.deps.redis, dead)  # and then it dies
    problem(await place(ann, cart(product), "k"), errors.InProgress)
    await world.shop.deps.redis.command("PEXPIRE", dead.entry, 1)
    await asyncio.sleep(0.05)
    first = await place(ann, cart(product), "k")
    assert first.status_code == 201
    assert await once.finish(world.shop.deps.redis, dead, b"late") == once.Lost()
    assert (await place(ann, cart(product), "k")).content == first.content


async def test_a_flush_in_the_middle_makes_no_second_order(world: World) -> None:
    product, ann = await world.product("A", "B"), await world.buyer()
    world.crystalpay.faults.append(ApiFault(on="create", wait_ms=200, times=1))
    first = asyncio.create_task(place(ann, cart(product), "k"))
    while not await world.shop.deps.redis.command("KEYS", "*once:*"):  # noqa: ASYNC110  (Redis sets no event here)
        await asyncio.sleep(0.005)
    await world.shop.deps.redis.command("FLUSHALL")
    problem(await first, errors.InProgress)  # its claim is gone, so it cannot vouch for equal bytes
    again = await place(ann, cart(product), "k")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert (await place(ann, cart(product), "k")).content == again.content
    assert await orders_of(world) == 1


async def test_fifty_keys_five_times_at_once_are_fifty_orders(world: World) -> None:
    product = await world.product(*(f"KEY-{n}" for n in range(50)))
    buyers = [await world.buyer(3000 + n) for n in range(10)]

    async def until_placed(buyer: Buyer, key: str) -> bytes:
        while True:
            answer = await place(buyer, cart(product), key)
            if answer.status_code == 201:
                return answer.content
            problem(answer, errors.InProgress if answer.status_code == 409 else errors.Busy)
            await asyncio.sleep(0.05)

    keys = [(buyers[n % 10], f"key-{n}") for n in range(50)]
    answers = await asyncio.gather(*(until_placed(buyer, key) for buyer, key in keys for _ in range(5)))
    assert len(set(answers)) == 50
    assert all(len(set(answers[5 * n : 5 * n + 5])) == 1 for n in range(50))
    assert await orders_of(world) == 50


BAD_KEYS: dict[str, list[str]] = {
    "none": [], "empty": [""], "quoted nothing": ['""'], "too long": ["k" * 256],
    "a blank inside": ["a b"], "two": ["a", "b"], "the same twice": ["a", "a"], "not ASCII": ["ключ"],
}  # fmt: skip


@pytest.mark.parametrize("values", BAD_KEYS.values(), ids=BAD_KEYS.keys())
async def test_a_malformed_key_is_a_malformed_request(world: World, values: list[str]) -> None:
    product, ann = await world.product("A"), await world.buyer()
    headers: list[tuple[str, Any]] = [(name, value) for name, value in ann.headers.items()]
    headers += [("Idempotency-Key", value.encode()) for value in values]
    answer = await ann.http.post("/api/orders", content=cart(product), headers=headers)
    problem(answer, errors.Malformed)
    assert await orders_of(world) == 0
