"""The catalog over real HTTP: what is cached, for how long, what ends it, and what happens without Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.domain import catalog
from app.errors import PostgresDown, RedisDown
from app.flows import refresh
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.sql.test_catalog import HOSTILE
from tests.web.test_shop import NO_REDIS, Door, own_world, problem
from tests.world import World
from workers import jobs

in_module = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "catalog", 2) as opened:
        yield opened


async def shelf(world: World, **query: Any) -> dict[str, Any]:
    answer = await world.http.get("/api/catalog", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def titles(world: World, **query: Any) -> list[str]:
    return [product["title"] for product in (await shelf(world, **query))["products"]]


async def rename(world: World, product_id: int, title: str) -> int:
    """As an admin's statement does it: the change and the row that is owed for it, together."""
    (row,) = await world.pg.fetch(
        "WITH changed AS (UPDATE products SET title = $2 WHERE id = $1 RETURNING id)"
        " INSERT INTO outbox (kind, key, payload) SELECT 'refresh', pg_current_xact_id()::text, '{}' FROM changed"
        " RETURNING id",
        (product_id, title),
    )
    outbox_id: int = row["id"]
    return outbox_id


async def stored(world: World) -> dict[str, int]:
    """Each entry in Redis with what is left of its life."""
    redis = world.shop.deps.redis
    names = await redis.command("KEYS", "{catalog}*:*")
    assert isinstance(names, list)
    left = {name.decode(): await redis.command("PTTL", name) for name in names}
    return {name: ms for name, ms in left.items() if isinstance(ms, int)}


# ---- what a page is


@in_module
async def test_what_a_product_shows_is_the_contract(shared: World) -> None:
    product = await shared.product("KEY-A", title="Editor", description="text", category="Tools", price_minor=149_000)
    await shared.pg.fetch("INSERT INTO product_ratings (product_id, ratings, total) VALUES ($1, 4, 18)", (product,))
    told = (await shared.http.get(f"/api/products/{product}")).json()
    assert told == {
        "id": product, "title": "Editor", "description": "text", "category": "Tools", "kind": "unit",
        "seller": {"id": shared.seller_id, "name": "Seller"}, "currency": "RUB", "list_price_minor": 149_000,
        "price_minor": 149_000, "discount_percent": 0.0, "left": 1, "lead_time_h": None, "rating": 4.5, "ratings": 4,
    }  # fmt: skip
    assert (await shelf(shared, category="Tools"))["products"] == [told]


@in_module
async def test_without_ratings_the_rating_is_null(shared: World) -> None:
    product = await shared.product()
    told = (await shared.http.get(f"/api/products/{product}")).json()
    assert (told["rating"], told["ratings"]) == (None, 0)


@in_module
async def test_a_search_is_read_page_by_page(shared: World) -> None:
    word = f"w{uuid4().hex}"
    ids = [await shared.product(title=f"{word} {word}" if n % 2 else "Lamp", description=word) for n in range(7)]
    pages, cursor = [], "0"
    while cursor is not None:
        page = await shelf(shared, query=word, limit=3, cursor=cursor)
        pages.append([product["id"] for product in page["products"]])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [one for page in pages for one in page] == [*ids[1::2], *ids[::2]]


@in_module
@pytest.mark.parametrize(
    "path",
    ["query=a&cursor=5", "query=a&cursor=1-", "query=a&cursor=-1", "query=a&cursor=1-2-3", "query=a&cursor=1000002-1",
     "query=a&cursor=99999999-1", "cursor=5-1", "query=a&cursor=%D9%A1-1", "query=a&cursor=" + "1" * 31],
)  # fmt: skip
async def test_a_cursor_of_another_question_is_malformed(shared: World, path: str) -> None:
    problem(await shared.http.get(f"/api/catalog?{path}"), errors.Malformed)


@in_module
@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip() and len(text) <= 100])
async def test_no_query_is_a_defect(shared: World, text: str) -> None:
    for query in ({"query": text}, {"category": text[:60]}, {"query": text, "category": text[:60]}):
        answer = await shared.http.get("/api/catalog", params=query)
        assert answer.status_code == 200, answer.text


@in_module
async def test_queries_with_the_same_words_are_one_entry(shared: World) -> None:
    await shared.refresh()
    await shared.shop.deps.redis.command("FLUSHDB")
    for query in ("Red  LAMP", " red lamp", "red, lamp!", "red lamp red"):
        await shelf(shared, query=query)
    assert len([name for name in await stored(shared) if "search:" in name]) == 1


# ---- what is cached


@in_module
async def test_pages_are_kept_as_long_as_they_are_worth(shared: World) -> None:
    product = await shared.product(title="Lamp")
    await shared.shop.deps.redis.command("FLUSHDB")
    await shelf(shared)
    await shelf(shared, query="nothinglikeit")
    await shared.http.get(f"/api/products/{product}")
    await shared.http.get(f"/api/products/{2**62}")
    left = await stored(shared)
    assert sorted(round(ms / 5000) * 5 for ms in left.values()) == [5, 30, 30, 300]


@in_module
async def test_two_processes_answer_with_the_same_bytes_from_one_load(shared: World) -> None:
    await shared.product(title="Lamp")
    first = await shared.http.get("/api/catalog")
    await shared.pg.fetch("UPDATE products SET title = 'Behind the back'", ())
    shared.app.state.shop.copies.forget()  # another process has no copy either
    again = await shared.http.get("/api/catalog")
    assert (again.content, again.headers["content-type"]) == (first.content, first.headers["content-type"])
    assert first.headers["content-type"] == "application/json"


@in_module
async def test_an_unknown_product_is_remembered_and_asked_for_once(shared: World) -> None:
    product = await shared.product()
    unknown = product + 1
    for _ in range(3):
        problem(await shared.http.get(f"/api/products/{unknown}"), errors.NotFound)
        shared.app.state.shop.copies.forget()
    # Behind the cache's back, so that only the negative entry can explain the answer.
    await shared.pg.fetch(
        "INSERT INTO products (id, seller_id, title, category, kind, currency, list_price_minor)"
        " OVERRIDING SYSTEM VALUE VALUES ($1, $2, 'New', 'New', 'unit', 'RUB', 1)",
        (unknown, shared.seller_id),
    )
    problem(await shared.http.get(f"/api/products/{unknown}"), errors.NotFound)
    await shared.refresh()
    assert (await shared.http.get(f"/api/products/{unknown}")).status_code == 200
    await shared.pg.fetch("DELETE FROM products WHERE id = $1", (unknown,))


@in_module
async def test_ordering_believes_postgres_and_not_a_page(shared: World) -> None:
    product = await shared.product("ONLY-ONE", price_minor=10_000)
    before = (await shared.http.get(f"/api/products/{product}")).json()
    await shared.pg.fetch("UPDATE products SET list_price_minor = 20000 WHERE id = $1", (product,))
    buyer = await shared.buyer()
    placed = await buyer.order((product, 1))
    assert placed.status_code == 201, placed.text
    assert placed.json()["order"]["total_minor"] == 20_000
    assert (await shared.http.get(f"/api/products/{product}")).json() == before  # the page may still say so
    refused = await buyer.order((product, 1))
    problem(refused, errors.OutOfStock)


# ---- what ends it


@in_module
async def test_a_change_is_seen_at_once_where_it_was_made_and_its_row_is_closed(shared: World) -> None:
    product = await shared.product(title="Old", category="Ends")
    assert await titles(shared, category="Ends") == ["Old"]
    outbox_id = await rename(shared, product, "New")
    served = shared.app.state.shop
    await refresh.at_once(served, outbox_id)
    assert await titles(shared, category="Ends") == ["New"]
    assert (await shared.http.get(f"/api/products/{product}")).json()["title"] == "New"
    await asyncio.gather(*served.errands.running)
    assert await shared.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "done"
    await refresh.at_once(served, None)  # nothing was owed


@in_module
async def test_elsewhere_it_is_seen_within_the_bound(shared: World) -> None:
    product = await shared.product(title="Old", category="Bound")
    assert await titles(shared, category="Bound") == ["Old"]
    await rename(shared, product, "New")
    await catalog.bump(shared.shop.deps.redis)
    loop = asyncio.get_running_loop()
    bumped_s = loop.time()
    while await titles(shared, category="Bound") != ["New"]:
        assert loop.time() - bumped_s < (catalog.LOCAL_MS + catalog.STALE_MS) / 1000
        await asyncio.sleep(0.02)


@in_module
async def test_the_job_does_what_was_not_done_at_once(shared: World) -> None:
    product = await shared.product(title="Old", category="Job")
    assert await titles(shared, category="Job") == ["Old"]
    outbox_id = await rename(shared, product, "New")
    await jobs.run(shared.shop, outbox_id)
    shared.app.state.shop.copies.forget()
    assert await titles(shared, category="Job") == ["New"]
    assert await shared.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "done"


@in_module
async def test_without_redis_the_row_waits_for_it(shared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    product = await shared.product(title="Old", category="Later")
    assert await titles(shared, category="Later") == ["Old"]
    outbox_id = await rename(shared, product, "New")

    async def down(*_: object) -> object:
        raise RedisDown("gone")

    with monkeypatch.context() as without:
        without.setattr(Pipe, "evalsha", down)
        await refresh.at_once(shared.app.state.shop, outbox_id)
        assert await titles(shared, category="Later") == ["New"]  # this process shows it from Postgres
        await jobs.run(shared.shop, outbox_id)
        query = "SELECT state || ' ' || attempts FROM outbox WHERE id = $1"
        assert await shared.scalar(query, outbox_id) == "owed 1"
    await shared.pg.fetch("UPDATE outbox SET run_at = now() WHERE id = $1", (outbox_id,))
    await jobs.run(shared.shop, outbox_id)
    assert await shared.scalar("SELECT state FROM outbox WHERE id = $1", outbox_id) == "done"
    shared.app.state.shop.copies.forget()
    assert await titles(shared, category="Later") == ["New"]


# ---- what fails


async def test_without_redis_the_catalog_is_read_from_postgres(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS) as world:
        product = await world.product(title="Lamp")
        assert await titles(world) == await titles(world, query="lamp") == ["Lamp"]
        assert (await world.http.get(f"/api/products/{product}")).json()["title"] == "Lamp"
        problem(await world.http.get(f"/api/products/{product + 1}"), errors.NotFound)


async def test_a_redis_that_is_emptied_again_and_again_changes_no_answer(world: World) -> None:
    await world.product(title="Lamp")
    redis = world.shop.deps.redis
    stop = asyncio.Event()

    async def flush() -> None:
        while not stop.is_set():
            await redis.command("FLUSHALL")
            await asyncio.sleep(0)

    flushing = asyncio.create_task(flush())
    for _ in range(20):
        world.app.state.shop.copies.forget()
        pages = await asyncio.gather(*(world.http.get("/api/catalog", params={"limit": 1 + n % 3}) for n in range(10)))
        assert {page.status_code for page in pages} == {200}
        assert {product["title"] for page in pages for product in page.json()["products"]} == {"Lamp"}
    stop.set()
    await flushing


async def test_a_failed_load_leaves_no_lease_and_no_entry(pg_url: str, servers: Servers, redis: Pipe) -> None:
    door = Door(pg_url)
    async with door.opened() as url, World.opened(url, servers.redis_url) as world:
        await world.product(title="Lamp")
        door.shut()
        problem(await world.http.get("/api/catalog"), PostgresDown)
        assert await stored(world) == {}
        await door.open()
        assert await titles(world) == ["Lamp"]


async def test_a_page_without_its_categories_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.product(title="Lamp")

    async def fail(_: object) -> list[str]:
        raise PostgresDown("only these")

    with monkeypatch.context() as without:
        without.setattr(catalog, "categories", fail)
        assert await shelf(world) | {"products": []} == {"products": [], "categories": [], "next_cursor": None}
        assert await stored(world) == {}
    world.app.state.shop.copies.forget()
    assert (await shelf(world))["categories"] == ["Keys"]


async def test_a_dead_loader_costs_no_more_than_its_lease(world: World) -> None:
    await world.product(title="Lamp")
    entry = catalog.page_entry(None, "", catalog.BEST, 0, 24)
    assert isinstance(await catalog.look(world.shop.deps.redis, entry, "killed"), catalog.Load)
    answer: httpx.Response = await asyncio.wait_for(world.http.get("/api/catalog"), 2 * catalog.LEASE_MS / 1000)
    assert answer.json()["products"][0]["title"] == "Lamp"


async def test_the_schema_says_what_a_page_is(world: World) -> None:
    schema = (await world.http.get("/schema/openapi.json")).json()
    for path, name in (("/api/catalog", "Shelf"), ("/api/products/{product_id}", "Product")):
        content = schema["paths"][path]["get"]["responses"]["200"]["content"]
        assert name in str(content["application/json"]["schema"])


async def test_a_question_in_the_same_bytes_gets_the_same_answer_again(world: World) -> None:
    product = await world.product(title="Lamp")
    for path in ("/api/catalog?limit=5", f"/api/products/{product}", "/api/catalog?query=lamp&category=Keys"):
        first, *others = [await world.http.get(path) for _ in range(3)]
        for other in others:
            assert (other.status_code, other.content) == (200, first.content)
            assert other.headers["content-type"] == first.headers["content-type"]
            assert {"x-request-id", "ratelimit", "content-length"} <= other.headers.keys()
            assert other.headers["x-request-id"] != first.headers["x-request-id"]
        assert (await world.http.get(f"{path}&")).status_code in (200, 404)
    for path in ("/api/products/999999", "/api/catalog?limit=0", "/api/catalog?cursor=x"):
        codes = {(await world.http.get(path)).status_code for _ in range(3)}
        assert len(codes) == 1
        assert codes <= {400, 404}


async def test_a_question_asked_again_sees_a_change_within_the_bound(world: World) -> None:
    product = await world.product(title="Old title")
    path = f"/api/products/{product}"
    assert [(await world.http.get(path)).json()["title"] for _ in range(3)] == ["Old title"] * 3
    await world.pg.fetch("UPDATE products SET title = 'New title' WHERE id = $1", (product,))
    await catalog.bump(world.shop.deps.redis)
    async with asyncio.timeout(1 + 4):
        while (await world.http.get(path)).json()["title"] != "New title":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert {(await world.http.get(path)).json()["title"] for _ in range(5)} == {"New title"}


async def test_a_load_that_outlives_its_lease_is_joined_by_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres takes 2 s for the page and the lease is 0.3 s: without care every waiter would ask Postgres too."""
    monkeypatch.setattr(catalog, "LEASE_MS", 300)
    loads, page, ended_s = 0, catalog.page, list[float]()

    async def slow(*args: Any, **more: Any) -> list[catalog.Product]:
        nonlocal loads
        loads += 1
        await asyncio.sleep(2)
        ended_s.append(asyncio.get_running_loop().time())
        return await page(*args, **more)

    monkeypatch.setattr(catalog, "page", slow)
    await world.product(title="Lamp")
    start = asyncio.get_running_loop().time()
    answers = []
    for _ in range(15):
        answers.append(asyncio.create_task(world.http.get("/api/catalog")))
        await asyncio.sleep(0.1)
    assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
    most = (ended_s[0] - start) / 0.3 + 2  # one for each lease, until the first is there
    assert loads <= most
    assert asyncio.get_running_loop().time() - start < 8
    await world.http.get("/api/catalog")
    assert loads <= most  # and it was kept
