"""Orders over real HTTP: what may be asked, what a repeat gets, what a failing part does, whose goods they are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.base import keys
from app.domain import catalog
from app.infra.embedded import Servers
from app.sandbox.crystalpay import ApiFault
from tests.web.test_shop import NO_REDIS, in_module, own_world, problem
from tests.world import Buyer, World, invoice_of


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["parallel", "in turn"])
async def module_world(servers: Servers, template: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Every story twice: reads side by side and one after another give the same answers (E5)."""
    side_by_side: bool = request.param
    async with own_world(
        servers, template, "orders", 3 + side_by_side, parallel=side_by_side, gateway_timeout_ms=2000, pending_orders=5
    ) as opened:
        yield opened


@pytest.fixture
def fault(shared: World) -> Any:
    """Orders a misbehaviour of the gateway, for this test."""
    yield lambda **how: shared.crystalpay.faults.append(ApiFault(on="create", **how))
    shared.crystalpay.faults.clear()


async def someone(world: World) -> Buyer:
    return await world.buyer(uuid4().int >> 80)


async def post(buyer: Buyer, body: Any, *keys: str | bytes) -> httpx.Response:
    """`POST /api/orders` with these Idempotency-Keys."""
    headers: list[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in buyer.headers.items()]
    headers += [(b"Idempotency-Key", key.encode() if isinstance(key, str) else key) for key in keys]
    content = body if isinstance(body, bytes) else httpx.Request("POST", "http://x", json=body).content
    return await buyer.http.post(
        "/api/orders", content=content, headers=[*headers, (b"Content-Type", b"application/json")]
    )


def cart(*lines: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"lines": [{"product_id": p, "quantity": q} for p, q in lines], "provider": "crystalpay"} | more


async def invoices(world: World, order: str) -> list[str]:
    """The invoices that the gateway made for an order."""
    return [invoice.id for invoice in world.crystalpay.invoices.values() if (invoice.extra or "").startswith(order)]


# What may be asked.


@in_module
@pytest.mark.parametrize(
    "given",
    [[], [""], ['""'], ["a", "a"], ["a", "b"], ["a" * 256], ['"' + "a" * 256 + '"'], ["a b"], ["a\tb"], [b"\xff"],
     ["ключ".encode()], [b"a\xc2\x85"]],
    ids=lambda given: repr(given)[:40],
)  # fmt: skip
async def test_an_order_needs_exactly_one_sane_idempotency_key(shared: World, given: list[str | bytes]) -> None:
    product = await shared.product("KEY")
    problem(await post(await someone(shared), cart((product, 1)), *given), errors.Malformed)
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"


@in_module
@pytest.mark.parametrize("key", [b"a\x01b", b"a\x00", b"a\x7f", b"a\r\n b"])
async def test_control_characters_in_a_key_are_refused(shared: World, key: bytes) -> None:
    product, ann = await shared.product("KEY"), await someone(shared)
    body = httpx.Request("POST", "http://x", json=cart((product, 1))).content
    head = f"Host: x\r\nAuthorization: {ann.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", shared.shop.deps.settings.port)
    writer.write(b"POST /api/orders HTTP/1.1\r\n" + head.encode() + b"Idempotency-Key: " + key)
    writer.write(b"\r\nConnection: close\r\n\r\n" + body)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"


@in_module
@pytest.mark.parametrize("key", ["k", "k" * 255, "!~", "'k'", '"quoted"'])
async def test_a_key_may_be_bare_or_quoted(shared: World, key: str) -> None:
    product, ann = await shared.product("KEY"), await someone(shared)
    first = await post(ann, cart((product, 1)), key)
    again = await post(ann, cart((product, 1)), key.strip('"'))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["order"]["id"] == again.json()["order"]["id"]


BAD_CARTS: dict[str, Callable[[int], Any]] = {
    "0": lambda p: cart((p, 0)),
    "negative": lambda p: cart((p, -1)),
    "a fraction": lambda p: cart((p, 1.5)),
    "a string": lambda p: cart((p, "1")),
    "true": lambda p: cart((p, True)),
    "null": lambda p: cart((p, None)),
    "an array": lambda p: cart((p, [1])),
    "51": lambda p: cart((p, 51)),
    "51 in sum": lambda p: cart((p, 25), (p, 26)),
    "10^30": lambda p: cart((p, 10**30)),
    "a product as a string": lambda p: cart((str(p), 1)),
    "product 0": lambda p: cart((0, 1)),
    "product 2^63": lambda p: cart((2**63, 1)),
    "a price": lambda p: cart((p, 1), price_minor=1),
    "a total": lambda p: cart((p, 1), total_minor=1),
    "a price of a line": lambda p: {**cart(), "lines": [{"product_id": p, "quantity": 1, "price_minor": 1}]},
    "a user": lambda p: cart((p, 1), user_id=1),
    "no lines": lambda p: cart(),
    "21 lines": lambda p: cart(*[(p, 1)] * 21),
    "no quantity": lambda p: {**cart(), "lines": [{"product_id": p}]},
    "no provider": lambda p: {"lines": cart((p, 1))["lines"]},
    "a blank provider": lambda p: cart((p, 1), provider=""),
    "an array instead": lambda p: [cart((p, 1))],
    "nothing": lambda p: b"",
    "no JSON": lambda p: b"{",
    "bad UTF-8": lambda p: b'{"lines":[],"provider":"\xff"}',
    "nesting": lambda p: b"[" * 100_000,
}


@in_module
@pytest.mark.parametrize("name", BAD_CARTS)
async def test_a_bad_cart_is_malformed_and_holds_nothing(shared: World, name: str) -> None:
    product, ann = await shared.product("KEY"), await someone(shared)
    problem(await post(ann, BAD_CARTS[name](product), "k"), errors.Malformed)
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"
    assert (await ann.get("/api/orders")).json() == {"orders": []}


@in_module
async def test_what_is_not_here_is_not_found(shared: World) -> None:
    product, ann = await shared.product("KEY"), await someone(shared)
    for body in (cart((2**63 - 1, 1)), cart((product, 1), (2**63 - 1, 1)), cart((product, 1), provider="CrystalPay")):
        problem(await post(ann, body, "k"), errors.NotFound)
    assert await shared.scalar("SELECT state FROM stock_items WHERE product_id = $1", product) == "available"


@in_module
async def test_lines_of_one_product_are_summed(shared: World) -> None:
    product = await shared.product("A", "B", "C")
    placed = await (await someone(shared)).order((product, 1), (product, 2))
    (line,) = placed.json()["order"]["lines"]
    assert (line["quantity"], line["total_minor"]) == (3, 30_000)


@in_module
async def test_one_order_has_one_seller_and_one_currency(shared: World) -> None:
    mine = await shared.product("A")
    others = await shared.product("B", seller_id=await catalog.add_seller(shared.pg, "Other"))
    dollars = await shared.product("C", currency="USD")
    ann = await someone(shared)
    for product in (others, dollars):
        problem(await ann.order((mine, 1), (product, 1)), errors.TwoSellers)
    assert await shared.scalar("SELECT count(*) FROM stock_items WHERE product_id = $1 AND state = 'held'", mine) == 0


# What is left.


async def counted(world: World, seller: int) -> tuple[dict[int, int], int]:
    """Redis' counters of a seller, and how many holds it has."""
    redis = world.shop.deps.redis
    flat: Any = await redis.command("HGETALL", keys.stock_free(seller))
    holds: Any = await redis.command("HLEN", keys.stock_held(seller))
    return {int(name): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}, holds


@in_module
async def test_a_cart_that_does_not_fit_holds_nothing(shared: World) -> None:
    seller = await catalog.add_seller(shared.pg, "Sold out")
    many = await shared.product("A", "B", "C", seller_id=seller)
    few = await shared.product("D", seller_id=seller)
    ann = await someone(shared)
    for _ in range(2):
        told = problem(await ann.order((many, 2), (few, 2)), errors.OutOfStock)
        assert told["left"] == {str(few): 1}
        assert await counted(shared, seller) == ({many: 3, few: 1}, 0)
    free = "SELECT count(*) FROM stock_items WHERE product_id = ANY ($1) AND state = 'available'"
    assert await shared.scalar(free, [many, few]) == 4
    assert await shared.scalar("SELECT count(*) FROM orders WHERE seller_id = $1", seller) == 0
    assert (await ann.order((many, 3), (few, 1))).status_code == 201
    assert await counted(shared, seller) == ({many: 0, few: 0}, 0)


@in_module
@pytest.mark.parametrize("change", ["UPDATE stock_items SET state = 'withdrawn' WHERE product_id = $1",
                                    "UPDATE products SET active = false WHERE id = $1"])  # fmt: skip
async def test_when_redis_counts_too_much_postgres_decides(shared: World, change: str) -> None:
    seller = await catalog.add_seller(shared.pg, "Drift")
    product = await shared.product("A", "B", seller_id=seller)
    ann = await someone(shared)
    assert (await ann.order((product, 1))).status_code == 201
    await shared.pg.fetch(change, (product,))
    told = problem(await ann.order((product, 1)), errors.OutOfStock)
    assert told["left"] == {str(product): 0}
    assert await counted(shared, seller) == ({}, 0)


async def test_without_redis_nothing_is_sold_twice(pg_url: str) -> None:
    async with World.opened(pg_url, NO_REDIS, limits="*=1000000/1/open") as world:
        product = await world.product("A", "B")
        buyers = [await world.buyer(3000 + n) for n in range(4)]
        answers = await asyncio.gather(*(buyer.order((product, 1)) for buyer in buyers))
        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409]


# Repeats.


@in_module
async def test_a_repeat_gets_the_same_order_and_no_second_invoice(shared: World) -> None:
    product, ann = await shared.product("A", "B"), await someone(shared)
    first = await ann.order((product, 1), key="k")
    again = await ann.order((product, 1), key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert first.headers["location"] == again.headers["location"] == f"/api/orders/{first.json()['order']['id']}"
    assert await invoices(shared, first.json()["order"]["id"]) == [invoice_of(first.json())]


@in_module
async def test_repeats_at_once_make_one_order(shared: World) -> None:
    product, ann = await shared.product(*(f"KEY-{n}" for n in range(10))), await someone(shared)
    answers = await asyncio.gather(*(ann.order((product, 1), key="k") for _ in range(10)))
    for answer in answers:
        if answer.status_code != 201:
            problem(answer, errors.InProgress)
            assert int(answer.headers["retry-after"]) > 0
    ids = {answer.json()["order"]["id"] for answer in answers if answer.status_code == 201}
    assert len(ids) == 1
    assert len(await invoices(shared, ids.pop())) == 1
    held = "SELECT count(*) FROM stock_items WHERE product_id = $1 AND state = 'held'"
    assert await shared.scalar(held, product) == 1


@in_module
async def test_a_repeat_for_the_last_unit_is_in_progress_and_not_out_of_stock(shared: World) -> None:
    seller = await catalog.add_seller(shared.pg, "Last one")
    product, ann = await shared.product("LAST", seller_id=seller), await someone(shared)
    async with shared.pg.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE orders IN SHARE MODE")  # claims wait, reads do not
        first = asyncio.create_task(ann.order((product, 1), key="k"))
        while (await counted(shared, seller))[1] == 0:  # noqa: ASYNC110  (Redis sets no event here)
            await asyncio.sleep(0.01)
        repeat = await ann.order((product, 1), key="k")
    assert (await first).status_code == 201
    problem(repeat, errors.InProgress)


@in_module
async def test_a_key_belongs_to_one_body_and_one_user(shared: World) -> None:
    product, ann, bob = await shared.product("A", "B", "C"), await someone(shared), await someone(shared)
    first = await ann.order((product, 1), key="k")
    problem(await ann.order((product, 2), key="k"), errors.KeyReused)
    other = await bob.order((product, 1), key="k")
    assert other.status_code == 201
    assert other.json()["order"]["id"] != first.json()["order"]["id"]
    assert len((await ann.get("/api/orders")).json()["orders"]) == 1


@in_module
@pytest.mark.parametrize(
    "how",
    [{"status": 500}, {"status": 200, "body": "<html>busy</html>", "content_type": "text/html"}, {"body": ""},
     {"status": 302, "body": ""}, {"body": '{"error":true,"errors":["amount: too small"]}'}, {"wait_ms": 9000},
     {"edit": {"url": "javascript:alert(1)"}}],
    ids=["500", "HTML", "nothing", "redirect", "error", "hangs", "a bad link"],
)  # fmt: skip
async def test_without_a_link_the_order_stands_and_a_repeat_mends_it(
    shared: World, fault: Any, how: dict[str, Any]
) -> None:
    product, ann = await shared.product("A", "B"), await someone(shared)
    fault(**how)
    refused = await ann.order((product, 1), key="k")
    told = problem(refused, errors.ProviderDown)
    assert int(refused.headers["retry-after"]) > 0
    shown = (await ann.get(f"/api/orders/{told['order_id']}")).json()
    assert (shown["order"]["status"], shown["payment"]["status"], shown["payment"]["url"]) == (
        "pending",
        "failed",
        None,
    )
    mended = await ann.order((product, 1), key="k")
    assert (mended.status_code, mended.headers["idempotency-replayed"]) == (201, "true")
    assert (mended.json()["order"]["id"], mended.json()["payment"]["status"]) == (told["order_id"], "open")
    assert await shared.scalar("SELECT count(*) FROM order_items WHERE order_id = $1", UUID(told["order_id"])) == 1


@in_module
async def test_an_invoice_whose_link_was_lost_still_pays_its_order(shared: World, fault: Any) -> None:
    product, ann = await shared.product("A"), await someone(shared)
    fault(body="<html>busy</html>", after=True)
    order = problem(await ann.order((product, 1)), errors.ProviderDown)["order_id"]
    (invoice,) = await invoices(shared, order)
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    assert (await ann.status(order), await ann.goods(order)) == ("delivered", ["A"])


@in_module
async def test_who_pays_for_nothing_may_order_no_more(shared: World) -> None:
    product, ann = await shared.product(*"ABCDEFG"), await someone(shared)
    placed = [(await ann.order((product, 1))).json() for _ in range(5)]
    told = problem(await ann.order((product, 1)), errors.TooManyPending)
    assert told["limit"] == 5
    await shared.crystalpay.pay(invoice_of(placed[0]))
    await shared.drain()
    assert (await ann.order((product, 1))).status_code == 201


# Whose they are, and what becomes of them.


@in_module
async def test_anothers_order_looks_like_none(shared: World) -> None:
    product, ann, bob = await shared.product("A"), await someone(shared), await someone(shared)
    order = (await ann.order((product, 1))).json()["order"]["id"]
    for path in ("/api/orders/{}", "/api/orders/{}/goods"):
        seen = set()
        for asked in (order, str(uuid4()), order.upper(), "x", "1", "%00"):
            answer = await bob.get(path.format(asked))
            problem(answer, errors.NotFound)
            seen.add((answer.content, *sorted(answer.headers.keys())))
        assert len(seen) == 1
        assert (await ann.get(path.format(order))).status_code == 200
    assert (await bob.get("/api/orders")).json() == {"orders": []}


@in_module
async def test_orders_are_listed_newest_first_page_by_page(shared: World) -> None:
    product, ann = await shared.product("A", "B", "C"), await someone(shared)
    ids = [(await ann.order((product, 1))).json()["order"]["id"] for _ in range(3)]
    first = (await ann.get("/api/orders?limit=2")).json()["orders"]
    rest = (await ann.get(f"/api/orders?limit=2&before={first[-1]['number']}")).json()["orders"]
    assert [order["id"] for order in first + rest] == ids[::-1]
    for query in ("limit=0", "limit=101", "limit=x", "before=0", "before=-1", f"before={2**63}"):
        problem(await ann.get(f"/api/orders?{query}"), errors.Malformed)


@in_module
@pytest.mark.parametrize(
    ("kinds", "status"),
    [(["unit"], "delivered"), (["shared"], "delivered"), (["unit", "shared"], "delivered"), (["made"], "preorder"),
     (["shipped"], "paid"), (["unit", "shipped"], "paid"), (["unit", "shared", "made", "shipped"], "preorder")],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)  # fmt: skip
async def test_what_is_here_is_delivered_and_the_rest_is_owed(shared: World, kinds: list[str], status: str) -> None:
    products = [
        await shared.product(*(["KEY"] if kind == "unit" else []), kind=kind, pieces=int(kind == "shipped"))
        for kind in kinds
    ]
    ann = await someone(shared)
    placed = (await ann.order(*((product, 1) for product in products))).json()
    order = placed["order"]["id"]
    before = await ann.get(f"/api/orders/{order}/goods")
    assert before.headers["cache-control"] == "no-store"
    assert before.json() == {"order_id": order, "status": "pending", "goods": [], "owed": []}

    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    after = await ann.get(f"/api/orders/{order}/goods")
    assert after.headers["cache-control"] == "no-store"
    told = after.json()
    contents = {"unit": "KEY", "shared": "the shared file"}
    assert {g["kind"]: g["content"] for g in told["goods"]} == {k: c for k, c in contents.items() if k in kinds}
    assert {g["kind"] for g in told["owed"]} == set(kinds) - contents.keys()
    assert told["status"] == status
    shown = (await ann.get(f"/api/orders/{order}")).json()
    assert (shown["order"]["status"], shown["payment"]["status"]) == (status, "paid")
    for owed in told["owed"]:
        due = "SELECT round(extract(epoch FROM $1::text::timestamptz - paid_at) / 3600)::int FROM orders WHERE id = $2"
        hours = owed["due_at"] and await shared.scalar(due, owed["due_at"], UUID(order))
        assert hours == (48 if owed["kind"] == "made" else None)
    (message,) = shared.telegram.sent_to(ann.telegram_id)
    assert ("KEY" in message["text"]) == ("unit" in kinds)
