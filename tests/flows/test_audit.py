"""The audit: drift either way is mended, the dead are cleared away, the counters live on, and sales go on meanwhile."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
import structlog
from structlog.testing import capture_logs

from app.base import keys
from app.base.ids import new_id
from app.domain import catalog, stock
from app.domain.stock import Held, Units
from app.errors import RedisDown
from app.flows import checkout
from app.flows.audit import PRODUCTS, audit
from tests.flows.test_checkout import counters, users, want
from tests.world import World


async def life_ms(world: World) -> int:
    return cast(int, await world.shop.deps.redis.command("PTTL", keys.stock_free(world.seller_id)))


async def counted(world: World, *products: int) -> None:
    await stock.recount(world.shop.deps.redis, world.pg, world.seller_id, list(products))


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the audit says from here on; its own logger may be bound to a stream already."""
    with capture_logs() as entries:
        monkeypatch.setattr("app.flows.audit.log", structlog.get_logger())
        yield cast(list[Any], entries)


async def test_drift_is_mended_and_told(world: World, logs: list[Any]) -> None:
    many, few, right = await world.product(*"ABC"), await world.product(*"ABC"), await world.product("A")
    await counted(world, many, few, right)
    await world.shop.deps.redis.command("HSET", keys.stock_free(world.seller_id), many, 99, few, 1)
    assert await audit(world.shop) == 96 + 2
    (told,) = logs
    assert (told["event"], told["log_level"]) == ("stock counters were off", "warning")
    assert {name: told[name] for name in ("seller_id", "products", "over", "under", "doubted", "batches_moved")} == {
        "seller_id": world.seller_id, "products": 3, "over": 96, "under": 2, "doubted": 0, "batches_moved": 0,
    }  # fmt: skip
    assert await counters(world) == {many: 3, few: 3, right: 1}
    assert await audit(world.shop) == 0
    assert logs == [told]


async def test_the_holds_of_the_dead_are_over(world: World) -> None:
    product, redis = await world.product(*"ABC"), world.shop.deps.redis
    await counted(world, product)
    dead, alive = new_id(), new_id()
    for hold in (dead, alive):
        assert await stock.reserve(redis, world.seller_id, hold, [Units(product, 1)]) == Held()
    await redis.command("ZADD", keys.stock_due(world.seller_id), 1, str(dead))
    assert await audit(world.shop) == 0  # that is no drift
    after = await counters(world)
    assert (after, after.holds) == ({product: 2}, 1)


async def test_it_keeps_the_counters_alive(world: World) -> None:
    await counted(world, await world.product("A"), await world.product("B"))
    await world.shop.deps.redis.command("PEXPIRE", keys.stock_free(world.seller_id), 2000)
    await audit(world.shop)
    assert stock.COUNT_MS - 5000 < await life_ms(world) <= stock.COUNT_MS


async def test_what_it_could_not_count_is_forgotten_in_time(
    world: World, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes the stock by hand during each of its counts."""
    product, fetch = await world.product("A"), world.pg.fetch
    await counted(world, product)
    await world.shop.deps.redis.command("PEXPIRE", keys.stock_free(world.seller_id), 2000)

    async def overtaken(text: str, args: Any) -> Any:
        if "name: count_units" in text:
            await stock.forget(world.shop.deps.redis, world.seller_id, [product + 1])
        return await fetch(text, args)

    monkeypatch.setattr(world.pg, "fetch", overtaken)
    await audit(world.shop)
    assert [entry["batches_moved"] for entry in logs] == [1]
    assert 0 < await life_ms(world) <= 2000


async def test_many_products_are_counted_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, fetch = await world.product("A"), world.pg.fetch
    row = "INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor)"
    many = f"{row} SELECT $1, 'x', 'x', 'unit', 'RUB', 1 FROM generate_series(1, $2::int) RETURNING id"
    products = [row[0] for row in await fetch(many, (world.seller_id, PRODUCTS))]
    for i in range(0, PRODUCTS, 100):
        await counted(world, *products[i : i + 100])
    await counted(world, first)
    await world.shop.deps.redis.command("PEXPIRE", keys.stock_free(world.seller_id), 2000)
    sizes, lives = [], []

    async def seen(text: str, args: Any) -> Any:
        if "name: count_units" in text:
            sizes.append(len(args[0]))
            lives.append(await life_ms(world))
        return await fetch(text, args)

    monkeypatch.setattr(world.pg, "fetch", seen)
    assert await audit(world.shop) == 0
    assert sizes == [PRODUCTS, 1]
    assert max(lives) <= 2000 < await life_ms(world)  # the life begins anew when the last of them is counted


async def test_each_seller_is_looked_at(world: World) -> None:
    mine = await world.product("A")
    other = await catalog.add_seller(world.pg, "Other")
    theirs = await world.product("B", seller_id=other)
    redis = world.shop.deps.redis
    for seller, product in ((world.seller_id, mine), (other, theirs)):
        await stock.recount(redis, world.pg, seller, [product])
        await redis.command("HSET", keys.stock_free(seller), product, 5)
    assert await audit(world.shop) == 8


async def test_without_redis_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object) -> None:
        raise RedisDown("gone")

    await world.product("A")
    monkeypatch.setattr(stock, "counted", down)
    with pytest.raises(RedisDown):
        await audit(world.shop)


async def test_sales_go_on_during_audits(world: World) -> None:
    product, buyers = await world.product(*(f"KEY-{n}" for n in range(30))), await users(world, 60)
    audits, stop = 0, asyncio.Event()

    async def auditing() -> None:
        nonlocal audits
        while not stop.is_set():
            await audit(world.shop)
            audits += 1

    beside = asyncio.create_task(auditing())
    for wave in range(0, len(buyers), 10):
        left, before = buyers[wave : wave + 10], audits
        # Who is refused while a counter is in doubt comes again, as long as there is something left.
        while left and await stock.count(world.pg, [product]) != {product: 0}:
            ended = await asyncio.gather(
                *(checkout.place(world.shop, want(user, (product, 1))) for user in left), return_exceptions=True
            )
            left = [user for user, one in zip(left, ended, strict=True) if not isinstance(one, checkout.Placed)]
        while audits == before:  # noqa: ASYNC110  (one ends during each wave, however slow it is)
            await asyncio.sleep(0.001)
    stop.set()
    await beside
    assert audits > 3
    assert await world.scalar("SELECT count(*) FROM orders") == 30
    assert await audit(world.shop) == 0
    after = await counters(world)
    assert (after, after.holds) == ({product: 0}, 0)
