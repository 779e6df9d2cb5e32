"""Checkout beside itself: repeats at the same time, repeats after a death, crowds that find nothing counted.

The requests go past the web's Idempotency-Key (tests/web/test_once.py), as after a FLUSHALL: the flow stands alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from app.base import keys
from app.base.ids import new_id
from app.domain import stock
from app.domain.stock import Held, Units
from app.errors import InProgress, OutOfStock, RedisDown, TooManyPending
from app.flows import checkout
from app.flows.checkout import Placed, Want
from app.flows.expire import expire
from tests.world import World

USERS = "INSERT INTO users (telegram_id, name) SELECT 5000 + n, 'Ann' FROM generate_series(1, $1::int) n RETURNING id"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '-- name: create_order%'"


async def users(world: World, number: int) -> list[int]:
    return [row[0] for row in await world.pg.fetch(USERS, (number,))]


def want(user_id: int, *lines: tuple[int, int], key: str = "k") -> Want:
    cart = [Units(product, units) for product, units in lines]
    return Want(user_id=user_id, cart=cart, provider="crystalpay", idempotency_key=key, request_hash=b"h" * 32)


class Counters(dict[int, int]):
    """What Redis counts of the world's seller, and how many holds it has."""

    holds = 0


async def counters(world: World) -> Counters:
    redis = world.shop.deps.redis
    flat = cast(list[bytes], await redis.command("HGETALL", keys.stock_free(world.seller_id)))
    found = Counters({int(name): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)})
    carts = cast(list[bytes], await redis.command("HVALS", keys.stock_held(world.seller_id)))
    assert len(carts) == await redis.command("ZCARD", keys.stock_due(world.seller_id))
    found.holds = len([cart for cart in carts if cart])  # an empty one holds nothing: its repeat said "sold"
    return found


@asynccontextmanager
async def claims_wait(world: World) -> AsyncIterator[Callable[[int], Any]]:
    """Inside the block every claim waits in Postgres, reads do not; what it gives waits for so many of them."""

    async def until(number: int) -> None:
        async with asyncio.timeout(10):
            while await world.scalar(WAITING) < number:  # noqa: ASYNC110  (Postgres sets no event here)
                await asyncio.sleep(0.01)

    async with world.pg.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE orders IN SHARE MODE")
        yield until


async def test_repeats_at_once_share_one_hold_and_neither_is_out_of_stock(world: World) -> None:
    product, (ann,) = await world.product("LAST"), await users(world, 1)
    async with claims_wait(world) as until:
        twins = [asyncio.create_task(checkout.place(world.shop, want(ann, (product, 1)))) for _ in range(2)]
        await until(2)
        held = await counters(world)
        assert (held, held.holds) == ({product: 0}, 1)
    first, second = sorted(
        await asyncio.gather(*twins, return_exceptions=True), key=lambda one: not isinstance(one, Placed)
    )
    assert isinstance(first, Placed)
    assert isinstance(second, InProgress) or (isinstance(second, Placed) and second.order.id == first.order.id)
    after = await counters(world)
    assert (after, after.holds) == ({product: 0}, 0)


async def test_repeats_at_once_take_their_units_once(world: World) -> None:
    product, (ann,) = await world.product(*"ABCDE"), await users(world, 1)
    async with claims_wait(world) as until:
        twins = [asyncio.create_task(checkout.place(world.shop, want(ann, (product, 2)))) for _ in range(4)]
        await until(4)
    ended = await asyncio.gather(*twins, return_exceptions=True)
    assert {type(one) for one in ended} <= {Placed, InProgress}
    assert len({one.order.id for one in ended if isinstance(one, Placed)}) == 1
    after = await counters(world)
    assert (after, after.holds) == ({product: 3}, 0)
    await exact(world, product)


async def test_twins_that_both_fail_leave_no_hold(world: World) -> None:
    product, (ann,) = await world.product("A"), await users(world, 1)
    async with claims_wait(world) as until:
        twins = [asyncio.create_task(checkout.place(world.shop, want(ann, (product, 1)))) for _ in range(2)]
        await until(2)
        await world.pg.fetch("UPDATE stock_items SET state = 'withdrawn'", ())
    ended = await asyncio.gather(*twins, return_exceptions=True)
    assert [type(one) for one in ended] == [OutOfStock, OutOfStock]
    assert (await counters(world)).holds == 0
    await exact(world, product)


async def test_what_a_dead_checkout_holds_its_retry_buys(world: World) -> None:
    product, (ann, bob) = await world.product("LAST"), await users(world, 2)
    async with claims_wait(world) as until:
        dead = asyncio.create_task(checkout.place(world.shop, want(ann, (product, 1))))
        await until(1)
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
    assert (await counters(world)).holds == 1
    with pytest.raises(OutOfStock):
        await checkout.place(world.shop, want(bob, (product, 1)))
    placed = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (placed.order.status, placed.repeated) == ("pending", False)
    after = await counters(world)
    assert (after, after.holds) == ({product: 0}, 0)


async def test_a_repeat_gives_back_its_own_hold(world: World) -> None:
    product, (ann,) = await world.product(*"ABC"), await users(world, 1)
    first = await checkout.place(world.shop, want(ann, (product, 1)))
    again = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (again.order.id, again.repeated) == (first.order.id, True)
    after = await counters(world)
    assert (after, after.holds) == ({product: 2}, 0)


async def test_a_repeat_ends_the_hold_of_the_dead_one_that_made_its_order(world: World) -> None:
    product, (ann,) = await world.product(*"ABC"), await users(world, 1)
    first = await checkout.place(world.shop, want(ann, (product, 1)))
    # As if it had died between its claim and its commit: this hold stands for the unit that it has claimed.
    redis, seller_id, hold = world.shop.deps.redis, world.seller_id, checkout._hold_id(want(ann, (product, 1)))
    await redis.command("HINCRBY", keys.stock_free(seller_id), product, 1)
    assert await stock.reserve(redis, seller_id, hold, [Units(product, 1)]) == Held()
    again = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (again.order.id, again.repeated) == (first.order.id, True)
    after = await counters(world)
    assert (after, after.holds) == ({product: 2}, 0)
    await exact(world, product)


async def test_a_repeat_of_the_order_that_took_the_last_unit_gets_it(world: World) -> None:
    product, (ann,) = await world.product("LAST"), await users(world, 1)
    first = await checkout.place(world.shop, want(ann, (product, 1)))
    again = await checkout.place(world.shop, want(ann, (product, 1)))
    assert (again.order.id, again.repeated) == (first.order.id, True)


async def test_a_retry_that_is_refused_ends_what_the_dead_one_held(world: World) -> None:
    product, (ann,) = await world.product("A"), await users(world, 1)
    await stock.recount(world.shop.deps.redis, world.pg, world.seller_id, [product])
    hold = checkout._hold_id(want(ann, (product, 1)))
    assert await stock.reserve(world.shop.deps.redis, world.seller_id, hold, [Units(product, 1)]) == Held()
    await world.pg.fetch("UPDATE stock_items SET state = 'withdrawn'", ())
    with pytest.raises(OutOfStock):
        await checkout.place(world.shop, want(ann, (product, 1)))
    assert (await counters(world)).holds == 0


@pytest.mark.parametrize("units", [1, 0], ids=["sold", "refused"])
async def test_what_redis_could_not_be_told_it_is_told_later(
    world: World, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis takes the hold, is gone before it can say so, and comes back with it."""
    product, (ann,) = await world.product(*"AB"[:units]), await users(world, 1)
    redis, evalsha, gone = world.shop.deps.redis, world.shop.deps.redis.evalsha, asyncio.Event()
    await redis.command("HSET", keys.stock_free(world.seller_id), product, 1)
    await redis.command("PEXPIRE", keys.stock_free(world.seller_id), stock.COUNT_MS)

    async def dying(*call: Any) -> object:
        if gone.is_set():
            raise RedisDown("gone")
        await evalsha(*call)
        gone.set()
        raise RedisDown("gone")

    monkeypatch.setattr(redis, "evalsha", dying)
    monkeypatch.setattr("app.flows.hold.AGAIN_S", 0.05)
    placed = await asyncio.gather(checkout.place(world.shop, want(ann, (product, 1))), return_exceptions=True)
    assert isinstance(placed[0], Placed if units else OutOfStock)
    assert (await counters(world)).holds == 1
    monkeypatch.setattr(redis, "evalsha", evalsha)
    async with asyncio.timeout(5):
        while await redis.command("HLEN", keys.stock_held(world.seller_id)):  # noqa: ASYNC110  (Redis sets no event)
            await asyncio.sleep(0.01)


async def test_what_becomes_of_a_hold_that_a_flush_took(world: World) -> None:
    product, (ann,) = await world.product(*"ABC"), await users(world, 1)
    async with claims_wait(world) as until:
        buying = asyncio.create_task(checkout.place(world.shop, want(ann, (product, 1))))
        await until(1)
        await world.shop.deps.redis.command("FLUSHALL")
        await stock.recount(world.shop.deps.redis, world.pg, world.seller_id, [product])
        assert await counters(world) == {product: 3}  # the claim is not in Postgres yet, and nothing says it comes
    assert isinstance(await buying, Placed)
    assert await counters(world) == {product: 2}


async def test_a_crowd_that_finds_nothing_counted_is_one_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    product, crowd = await world.product(*"ABCDE"), await users(world, 200)
    counts, fetch = [], world.pg.fetch

    async def counted(text: str, args: Any) -> Any:
        if "name: count_units" in text:
            counts.append(args)
        return await fetch(text, args)

    monkeypatch.setattr(world.pg, "fetch", counted)
    placing = [checkout.place(world.shop, want(user, (product, 1))) for user in crowd]
    ended = await asyncio.gather(*placing, return_exceptions=True)
    assert [type(one) for one in ended].count(OutOfStock) == 195
    assert counts == [([product],)]


async def test_one_who_leaves_the_crowd_takes_nothing_from_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    product, (ann, bob) = await world.product(*"AB"), await users(world, 2)
    asked, go_on, fetch = asyncio.Event(), asyncio.Event(), world.pg.fetch

    async def slow(text: str, args: Any) -> Any:
        if "name: count_units" in text:
            asked.set()
            await go_on.wait()
        return await fetch(text, args)

    monkeypatch.setattr(world.pg, "fetch", slow)
    first = asyncio.create_task(checkout.place(world.shop, want(ann, (product, 1))))
    await asked.wait()
    second = asyncio.create_task(checkout.place(world.shop, want(bob, (product, 1))))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go_on.set()
    assert isinstance(await second, Placed)
    assert await counters(world) == {product: 1}


# ---- unpaid orders


async def test_a_buyer_keeps_only_so_many_unpaid_orders(world: World) -> None:
    settings = msgspec.structs.replace(world.shop.deps.settings, pending_orders=5)
    shop = msgspec.structs.replace(world.shop, deps=msgspec.structs.replace(world.shop.deps, settings=settings))
    product, (ann, bob) = await world.product(*"ABCDEFGHIJ"), await users(world, 2)
    made = [await checkout.place(shop, want(ann, (product, 1), key=str(n))) for n in range(5)]
    for _ in range(2):
        with pytest.raises(TooManyPending) as told:
            await checkout.place(shop, want(ann, (product, 1), key="one more"))
        assert told.value.facts == {"limit": 5}
    after = await counters(world)
    assert (after, after.holds) == ({product: 5}, 0)
    again = await checkout.place(shop, want(ann, (product, 1), key="3"))
    assert (again.order.id, again.repeated) == (made[3].order.id, True)
    assert isinstance(await checkout.place(shop, want(bob, (product, 1))), Placed)

    await world.pg.fetch("UPDATE orders SET status = 'paid' WHERE id = $1", (made[0].order.id,))
    assert isinstance(await checkout.place(shop, want(ann, (product, 1), key="one more")), Placed)
    await world.pg.fetch("UPDATE orders SET expires_at = now() - interval '1 hour' WHERE id = $1", (made[1].order.id,))
    assert await expire(world.shop) == 1
    assert isinstance(await checkout.place(shop, want(ann, (product, 1), key="and one")), Placed)
    with pytest.raises(TooManyPending):
        await checkout.place(shop, want(ann, (product, 1), key="not this one"))


async def exact(world: World, product: int) -> None:
    """Counted anew, nothing was wrong and nothing is in doubt."""
    counted = dict(await counters(world))
    filled = await stock.recount(world.shop.deps.redis, world.pg, world.seller_id, [product])
    assert isinstance(filled, stock.Filled)
    assert (filled.over, filled.under, filled.doubted) == (0, 0, 0)
    assert counted in ({}, dict(await counters(world)))
    assert await stock.reserve(world.shop.deps.redis, world.seller_id, new_id(), [Units(product, 1)]) in (
        Held(),
        stock.Short((product, 0)),
    )
