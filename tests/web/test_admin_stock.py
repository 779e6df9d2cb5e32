"""Stock over real HTTP: whole batches in, units for sale out, and never a secret in an answer, a log or the trail."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app import errors
from app.base import clock
from app.base.ids import new_id
from app.infra.embedded import Servers
from app.infra.secrets import Session
from tests.web.test_admin import acting, call, trail
from tests.web.test_shop import NO_REDIS, in_module, own_world, problem
from tests.world import Buyer, World

CANARY = "CANARY-of-the-shelf"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "admin_stock", 7) as opened:
        await opened.product()  # its seller is known from here on
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seller(module_world: World) -> Buyer:
    return await acting(module_world, "seller", module_world.seller_id)


async def units(world: World, product_id: int) -> int:
    return int(await world.scalar("SELECT count(*) FROM stock_items WHERE product_id = $1", product_id))


async def left(world: World, product_id: int) -> int:
    """What buyers see."""
    return int((await world.http.get(f"/api/products/{product_id}")).json()["left"])


# ---- in


@in_module
async def test_new_units_are_for_sale_at_once(shared: World, seller: Buyer) -> None:
    product, ann = await shared.product(), await shared.buyer(1)
    assert await left(shared, product) == 0
    problem(await ann.order((product, 1)), errors.OutOfStock)  # and Redis counts it as none
    answer = await call(seller, "POST", "stock", {"product_id": product, "secrets": [CANARY, f" {CANARY}-2\n"]})
    assert (answer.status_code, answer.json()) == (201, {"product_id": product, "added": 2, "skipped": []})
    assert await left(shared, product) == 2
    placed = await ann.order((product, 2))
    assert placed.status_code == 201
    await shared.crystalpay.pay(placed.json()["payment"]["url"].rpartition("i=")[2])
    await shared.drain()
    assert sorted(await ann.goods(placed.json()["order"]["id"])) == [CANARY, f"{CANARY}-2"]


@in_module
async def test_a_duplicate_refuses_the_whole_batch_by_line_and_keyed_hash(shared: World, seller: Buyer) -> None:
    product = await shared.product("OLD")
    secrets = ["A", "OLD", "B", "A", "C", " A "]
    answer = await call(seller, "POST", "stock", {"product_id": product, "secrets": secrets})
    twice = problem(answer, errors.Duplicates)["duplicates"]
    sealer = shared.shop.deps.sealer
    assert sealer
    wanted = {"A": sealer.fingerprint(f"{product}/A".encode()), "OLD": sealer.fingerprint(f"{product}/OLD".encode())}
    assert [(one["line"], one["fingerprint"]) for one in twice] == [
        (2, wanted["OLD"].hex()[:12]), (4, wanted["A"].hex()[:12]), (6, wanted["A"].hex()[:12]),
    ]  # fmt: skip
    assert await units(shared, product) == 1
    body = {"product_id": product, "secrets": secrets, "skip_duplicates": True}
    for status, added in ((201, 3), (200, 0)):
        answer = await call(seller, "POST", "stock", body)
        assert (answer.status_code, answer.json()["added"]) == (status, added)
        assert len(answer.json()["skipped"]) == 6 - added
    assert await units(shared, product) == 4


@in_module
async def test_units_have_discounts_and_ends_of_their_own_or_the_batchs(shared: World, seller: Buyer) -> None:
    product = await shared.product()
    soon, later = "2031-01-01T00:00:00Z", "2032-01-01T00:00:00+03:00"
    body = {
        "product_id": product, "discount_bp": 100, "expires_at": soon,
        "secrets": ["A", {"secret": "B", "discount_bp": 0}, {"secret": "C", "expires_at": later}],
    }  # fmt: skip
    assert (await call(seller, "POST", "stock", body)).status_code == 201
    rows = (await call(seller, "GET", f"stock?product_id={product}")).json()["units"]
    assert sorted((row["discount_bp"], row["expires_at"][:10]) for row in rows) == [
        (0, "2031-01-01"), (100, "2031-01-01"), (100, "2031-12-31"),
    ]  # fmt: skip


@in_module
async def test_a_thousand_secrets_and_ten_thousand_pieces_are_a_batch(shared: World, seller: Buyer) -> None:
    key, book = await shared.product(), await shared.product(kind="shipped")
    for body, added in (
        ({"product_id": key, "secrets": [f"S{n}" for n in range(1000)]}, 1000),
        ({"product_id": book, "pieces": 10_000, "discount_bp": 5}, 10_000),
    ):
        answer = await call(seller, "POST", "stock", body)
        assert (answer.status_code, answer.json()["added"]) == (201, added), answer.text
    assert (await left(shared, key), await left(shared, book)) == (1000, 10_000)
    for body in ({"product_id": key, "secrets": ["x"] * 1001}, {"product_id": book, "pieces": 10_001}):
        problem(await call(seller, "POST", "stock", body), errors.Malformed)


@in_module
async def test_each_kind_takes_its_own(shared: World, seller: Buyer) -> None:
    products = {kind: await shared.product(kind=kind) for kind in ("unit", "shipped", "shared", "made")}
    for kind, product in products.items():
        for fits, body in (("unit", {"secrets": ["A"]}), ("shipped", {"pieces": 1})):
            answer = await call(seller, "POST", "stock", body | {"product_id": product})
            if kind == fits:
                assert answer.status_code == 201
            else:
                problem(answer, errors.Conflict)


@in_module
@pytest.mark.parametrize(
    "fields",
    [{}, {"secrets": ["A"], "pieces": 1}, {"secrets": []}, {"secrets": None}, {"secrets": "A"}, {"secrets": [1]},
     {"secrets": [""]}, {"secrets": [" \n"]}, {"secrets": ["a\0b"]}, {"secrets": ["x" * 4001]}, {"secrets": [None]},
     {"secrets": [{"secret": "A", "state": "sold"}]}, {"secrets": [{"secret": "A", "discount_bp": 10_001}]},
     {"secrets": [{"secret": "A", "expires_at": "2031-01-01T00:00:00"}]}, {"pieces": 0}, {"pieces": -1},
     {"pieces": "1"}, {"pieces": 1.5}, {"secrets": ["A"], "discount_bp": -1},
     {"secrets": ["A"], "expires_at": "2001-01-01T00:00:00Z"},
     {"secrets": ["A"], "expires_at": "9999-12-31T23:59:59-14:00"},
     {"secrets": ["A"], "expires_at": "0001-01-01T00:00:00+14:00"}, {"secrets": ["A"], "expires_at": 1},
     {"secrets": ["A"], "skip_duplicates": "yes"}, {"secrets": ["A"], "product_id": "1"},
     {"secrets": ["A"], "product_id": 0}, {"secrets": ["A"], "product_id": 2**63}, {"secrets": ["A"], "price": 1}],
    ids=lambda fields: repr(fields)[:40],
)  # fmt: skip
async def test_a_batch_that_is_none_is_malformed(shared: World, seller: Buyer, fields: dict[str, Any]) -> None:
    product = await shared.product()
    problem(await call(seller, "POST", "stock", {"product_id": product} | fields), errors.Malformed)
    assert await units(shared, product) == 0


@in_module
async def test_the_same_batch_twice_at_once_comes_once(shared: World, seller: Buyer) -> None:
    product = await shared.product()
    body = {"product_id": product, "secrets": [f"S{n}" for n in range(200)]}
    answers = await asyncio.gather(*(call(seller, "POST", "stock", body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await units(shared, product) == 200


# ---- what is there, and out again


@in_module
async def test_units_are_listed_without_their_secrets(shared: World, seller: Buyer) -> None:
    product = await shared.product(*(f"{CANARY}-{n}" for n in range(5)))
    await shared.pg.fetch(
        "UPDATE stock_items SET state = 'held' WHERE id IN"
        " (SELECT id FROM stock_items WHERE product_id = $1 ORDER BY id LIMIT 2)",
        (product,),
    )
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await call(seller, "GET", f"stock?product_id={product}&limit=2&cursor={cursor}")
        assert CANARY not in answer.text
        seen += answer.json()["units"]
        cursor = answer.json()["next_cursor"]
    assert [row["state"] for row in seen] == ["available"] * 3 + ["held"] * 2
    assert seen[0].keys() == {"id", "state", "received_at", "expires_at", "discount_bp", "fingerprint"}
    assert {len(row["fingerprint"]) for row in seen} == {12}
    held = (await call(seller, "GET", f"stock?product_id={product}&state=held")).json()
    assert held == {"units": seen[3:], "next_cursor": None}


@in_module
@pytest.mark.parametrize(
    "query", ["", "product_id=0", "product_id=x", "product_id={}&state=gone", "product_id={}&cursor=1",
              "product_id={}&limit=201"]
)  # fmt: skip
async def test_a_question_that_is_none_is_malformed(shared: World, seller: Buyer, query: str) -> None:
    product = await shared.product()
    problem(await call(seller, "GET", f"stock?{query.format(product)}"), errors.Malformed)


@in_module
async def test_only_units_for_sale_are_withdrawn(shared: World, seller: Buyer) -> None:
    product, ann = await shared.product("A", "B", "C"), await shared.buyer(2)
    assert (await ann.order((product, 1))).status_code == 201
    rows = (await call(seller, "GET", f"stock?product_id={product}")).json()["units"]
    ids = [row["id"] for row in rows]
    held = [row["id"] for row in rows if row["state"] == "held"]
    unknown = str(new_id())
    body = {"product_id": product, "ids": [*ids, unknown, ids[0]]}
    done = (await call(seller, "POST", "stock/withdraw", body)).json()
    assert sorted(done["withdrawn"]) == sorted(set(ids) - set(held))
    assert done["kept"] == [*held, unknown]
    assert await left(shared, product) == 0
    problem(await ann.order((product, 1)), errors.OutOfStock)
    assert (await trail(seller, product))[0] == {"withdrawn": sorted(done["withdrawn"])}
    wrongs: list[Any] = [{"ids": []}, {"ids": ["x"]}, {"ids": [str(uuid4())] * 1001}, {"ids": None}, {}]
    for wrong in wrongs:
        problem(await call(seller, "POST", "stock/withdraw", {"product_id": product} | wrong), errors.Malformed)


# ---- secrets


@in_module
async def test_no_secret_is_answered_logged_or_audited(
    shared: World, seller: Buyer, capfd: pytest.CaptureFixture[str]
) -> None:
    product = await shared.product()
    long = CANARY + "x" * 4000
    bodies: list[Any] = [
        {"secrets": [CANARY]}, {"secrets": [CANARY]}, {"secrets": [CANARY, long]}, {"secrets": [CANARY], "pieces": 1},
        {"secrets": [CANARY], "discount_bp": -1}, {"secrets": [{"secret": CANARY, "expires_at": "2001-01-01T00:00Z"}]},
        {"secrets": {CANARY: CANARY}}, {"secrets": [f"{CANARY}\0"]}, {"secrets": [CANARY], "expires_at": CANARY},
        {"secrets": [{"secret": CANARY, "discount_bp": CANARY}]}, {"secrets": [CANARY], "skip_duplicates": True},
    ]  # fmt: skip
    for body in bodies:
        answer = await call(seller, "POST", "stock", {"product_id": product} | body)
        assert answer.status_code < 500
        assert CANARY not in answer.text, body
    told = capfd.readouterr()
    assert CANARY not in told.out + told.err
    for table in ("changes", "outbox", "stock_items"):
        assert await shared.scalar(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%CANARY%'") == 0
    assert (await trail(seller, product)) == [{"added": 1}]


@in_module
async def test_without_goods_keys_nothing_is_shelved(servers: Servers, pg_url: str) -> None:
    async with World.opened(pg_url, servers.redis_url, goods_keys="") as world:
        user_id = await world.scalar(
            "INSERT INTO users (telegram_id, name, role) VALUES (9, 'A', 'admin') RETURNING id"
        )
        tokens = world.shop.deps.tokens
        assert tokens
        admin = Buyer(world.http, tokens.issue(Session(user_id, "admin", clock.unix_s() + 60)), 9)
        body = {"product_id": 1, "secrets": ["A"]}
        assert "TORG_GOODS_KEYS" in problem(await call(admin, "POST", "stock", body), errors.NotFound)["detail"]


@in_module
async def test_a_repeat_with_the_same_key_adds_no_second_time(shared: World, seller: Buyer) -> None:
    product = await shared.product(kind="shipped")
    body = {"product_id": product, "pieces": 5}
    answers = [await call(seller, "POST", "stock", body, Idempotency_Key="monday") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert await units(shared, product) == 5


@in_module
@pytest.mark.parametrize(
    ("kind", "fields"),
    [("shipped", {"pieces": 5}), ("unit", {"secrets": ["A", "B"]}),
     ("unit", {"secrets": ["A", "OLD", "B", "A"], "skip_duplicates": True})],
    ids=["pieces", "secrets", "secrets but those there"],
)  # fmt: skip
async def test_a_repeat_adds_no_second_time_though_redis_forgot(
    shared: World, seller: Buyer, kind: str, fields: dict[str, Any]
) -> None:
    product = await shared.product(*["OLD"] * (kind == "unit"), kind=kind)
    body, key = {"product_id": product} | fields, str(uuid4())
    first = await call(seller, "POST", "stock", body, Idempotency_Key=key)
    before = await units(shared, product), await trail(seller, product)
    for _ in range(2):
        await shared.shop.deps.redis.command("FLUSHDB")
        again = await call(seller, "POST", "stock", body, Idempotency_Key=key)
        assert (again.status_code, again.content) == (first.status_code, first.content) == (201, first.content)
        assert again.headers["idempotency-replayed"] == "true"
    assert (await units(shared, product), await trail(seller, product)) == before
    await shared.shop.deps.redis.command("FLUSHDB")
    other = body | {"discount_bp": 1}
    problem(await call(seller, "POST", "stock", other, Idempotency_Key=key), errors.KeyReused)
    assert await units(shared, product) == before[0]


async def test_repeats_at_once_without_redis_add_once(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS, limits="*=1000000/1/open") as world:
        book, key = await world.product(kind="shipped"), await world.product()
        seller = await acting(world, "seller", world.seller_id)
        for product, more, number in ((book, {"pieces": 5}, 5), (key, {"secrets": ["A", "B"]}, 2)):
            body: dict[str, Any] = {"product_id": product} | more
            many = (call(seller, "POST", "stock", body, Idempotency_Key=f"of-{number}") for _ in range(4))
            answers = await asyncio.gather(*many)
            assert [answer.status_code for answer in answers] == [201] * 4
            assert {answer.json()["added"] for answer in answers} == {number}
            assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == ["", *["true"] * 3]
            assert await units(world, product) == number
