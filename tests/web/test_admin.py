"""Admin over real HTTP: products and the trail of changes, who may, and what no answer shows."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.base import clock
from app.infra.embedded import Servers
from app.infra.secrets import Session
from tests.web.test_shop import in_module, own_world, problem
from tests.world import Buyer, World

NEW: dict[str, Any] = {
    "title": "Lamp", "category": "Lights", "kind": "unit", "currency": "RUB", "list_price_minor": 10_000,
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "admin", 6) as opened:
        await opened.product()  # its seller is known from here on
        yield opened


async def acting(world: World, role: str, seller_id: int | None = None, *, token: str = "") -> Buyer:
    """A user of this role in Postgres, with a token of the same, or of another."""
    user = await world.buyer(uuid4().int >> 80)
    user_id = (await user.get("/api/me")).json()["user_id"]
    await world.pg.fetch("UPDATE users SET role = $2, seller_id = $3 WHERE id = $1", (user_id, role, seller_id))
    tokens = world.shop.deps.tokens
    assert tokens
    return Buyer(world.http, tokens.issue(Session(user_id, token or role, clock.unix_s() + 60)), user.telegram_id)


async def other_seller(world: World) -> int:
    return int(await world.scalar("INSERT INTO sellers (name) VALUES ('Other') RETURNING id"))


async def call(user: Buyer, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """A call of /api/admin/…; a body of bytes goes as it is."""
    sent: Any = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    told = user.headers | {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return await user.http.request(method, f"/api/admin/{path}", headers=told, **sent)


async def entered(user: Buyer, **fields: Any) -> dict[str, Any]:
    answer = await call(user, "POST", "products", NEW | fields)
    assert answer.status_code == 201, answer.text
    card: dict[str, Any] = answer.json()
    return card


async def trail(user: Buyer, product_id: int) -> list[dict[str, Any]]:
    answer = await call(user, "GET", f"changes?product_id={product_id}")
    assert answer.status_code == 200, answer.text
    return [change["what"] for change in answer.json()["changes"]]


# ---- a product's life


@in_module
async def test_a_seller_enters_a_product_and_buyers_see_it(shared: World) -> None:
    seller = await acting(shared, "seller", shared.seller_id)
    answer = await call(seller, "POST", "products", NEW | {"title": "Lamp of the story"})
    card = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"1"')
    assert answer.headers["location"] == f"/api/admin/products/{card['id']}"
    assert (card["seller_id"], card["active"], card["version"]) == (shared.seller_id, True, 1)
    assert card["units"] == {"available": 0, "expired": 0, "held": 0, "sold": 0, "withdrawn": 0}
    page = (await shared.http.get("/api/catalog?query=lamp+of+the+story")).json()
    assert [product["id"] for product in page["products"]] == [card["id"]]
    again = await call(seller, "GET", f"products/{card['id']}")
    assert (again.status_code, again.json(), again.headers["etag"]) == (200, card, '"1"')


@in_module
async def test_a_change_is_seen_at_once_and_leaves_its_trail(shared: World) -> None:
    admin = await acting(shared, "admin")
    card = await entered(admin, seller_id=shared.seller_id)
    path = f"/api/products/{card['id']}"
    assert (await shared.http.get(path)).json()["list_price_minor"] == 10_000
    answer = await call(admin, "PATCH", f"products/{card['id']}", {"list_price_minor": 9000}, If_Match='"1"')
    assert (answer.status_code, answer.headers["etag"], answer.json()["version"]) == (200, '"2"', 2)
    assert (await shared.http.get(path)).json()["list_price_minor"] == 9000
    hidden = await call(admin, "PATCH", f"products/{card['id']}", {"active": False, "version": 2})
    assert hidden.json()["active"] is False
    problem(await shared.http.get(path), errors.NotFound)
    assert (await trail(admin, card["id"]))[:2] == [
        {"active": {"old": True, "new": False}}, {"list_price_minor": {"old": 10_000, "new": 9000}},
    ]  # fmt: skip


@in_module
async def test_what_was_off_the_shelf_can_be_bought_as_soon_as_it_is_back(shared: World) -> None:
    product, ann = await shared.product("KEY-1", "KEY-2"), await shared.buyer(1)
    admin = await acting(shared, "admin")
    assert (await ann.order((product, 1))).status_code == 201
    await call(admin, "PATCH", f"products/{product}", {"active": False, "version": 1})
    for _ in range(3):
        problem(await ann.order((product, 1)), errors.OutOfStock)  # and Redis counts none of it
    await call(admin, "PATCH", f"products/{product}", {"active": True, "version": 2})
    assert (await ann.order((product, 1))).status_code == 201


@in_module
async def test_a_refresh_that_was_owed_is_done(shared: World) -> None:
    await entered(await acting(shared, "admin"), seller_id=shared.seller_id)
    left = "SELECT count(*) FROM outbox WHERE kind = 'refresh' AND state <> 'done'"
    async with asyncio.timeout(10):
        while await shared.scalar(left):  # the web process may be at it, a worker does the rest
            await shared.drain()


@in_module
async def test_an_old_version_is_told_the_current_one(shared: World) -> None:
    seller = await acting(shared, "seller", shared.seller_id)
    card = await entered(seller)
    for version in (1, 2):
        assert (
            await call(seller, "PATCH", f"products/{card['id']}", {"title": f"v{version}", "version": version})
        ).is_success
    for body, headers in (({"title": "late", "version": 1}, {}), ({"title": "late"}, {"If_Match": 'W/"2"'})):
        answer = await call(seller, "PATCH", f"products/{card['id']}", body, **headers)
        assert problem(answer, errors.Conflict)["version"] == 3
    assert (await call(seller, "GET", f"products/{card['id']}")).json()["title"] == "v2"


@in_module
@pytest.mark.parametrize(
    ("body", "if_match"),
    [({}, ""), ({"title": "x"}, ""), ({"version": 1}, '"2"'), ({}, "*"), ({}, '"x"'), ({}, '"-1"'), ({}, "1" * 30)],
)
async def test_a_change_needs_one_version(shared: World, body: dict[str, Any], if_match: str) -> None:
    admin = await acting(shared, "admin")
    card = await entered(admin, seller_id=shared.seller_id)
    headers = {"If_Match": if_match} if if_match else {}
    problem(await call(admin, "PATCH", f"products/{card['id']}", body, **headers), errors.Malformed)


@in_module
async def test_null_clears_and_what_is_left_out_stays(shared: World) -> None:
    admin = await acting(shared, "admin")
    card = await entered(admin, seller_id=shared.seller_id, duration_days=365, description="words")
    assert (card["duration_days"], card["description"]) == (365, "words")
    answer = await call(admin, "PATCH", f"products/{card['id']}", {"duration_days": None, "version": 1})
    assert (answer.json()["duration_days"], answer.json()["description"]) == (None, "words")


@in_module
async def test_the_file_of_a_shared_product_reaches_its_buyers_and_nobody_else(shared: World) -> None:
    seller = await acting(shared, "seller", shared.seller_id)
    card = await entered(seller, kind="shared")
    path = f"products/{card['id']}/content"
    answers = [await call(seller, "PUT", path, {"content": "CANARY of the file"})]
    assert (answers[0].status_code, answers[0].json()["has_content"]) == (200, True)
    answers += [await call(seller, "GET", f"products/{card['id']}"), await call(seller, "GET", "changes")]
    assert not any("CANARY" in answer.text for answer in answers)
    assert await shared.scalar("SELECT count(*) FROM changes WHERE what::text LIKE '%CANARY%'") == 0
    assert (await shared.http.get(f"/api/products/{card['id']}")).json()["left"] is None
    key = await entered(seller)
    problem(await call(seller, "PUT", f"products/{key['id']}/content", {"content": "x"}), errors.Conflict)
    for body in (
        {},
        {"content": ""},
        {"content": " \n"},
        {"content": "a\0"},
        {"content": 1},
        {"content": "x" * 100_001},
    ):
        problem(await call(seller, "PUT", path, body), errors.Malformed)


# ---- who may


CALLS: list[tuple[str, str, Any]] = [
    ("GET", "products/{}", None),
    ("PATCH", "products/{}", {"title": "x", "version": 1}),
    ("PUT", "products/{}/content", {"content": "x"}),
    ("POST", "stock", {"product_id": 0, "secrets": ["x"]}),
    ("GET", "stock?product_id={}", None),
    ("POST", "stock/withdraw", {"product_id": 0, "ids": [str(uuid4())]}),
]
LISTS: list[tuple[str, str, Any]] = [
    ("GET", "products", None), ("GET", "changes", None), ("POST", "products", NEW)
]  # fmt: skip


def aimed(body: Any, product_id: int) -> Any:
    return body | {"product_id": product_id} if body and "product_id" in body else body


@in_module
@pytest.mark.parametrize(
    ("role", "token"),
    [("buyer", "buyer"), ("buyer", "seller"), ("buyer", "admin"), ("admin", "buyer"), ("seller of nothing", "seller")],
)
async def test_who_is_no_staff_now_or_when_the_token_was_made_may_nothing(shared: World, role: str, token: str) -> None:
    """A token from before a demotion grants nothing, and one from before a promotion nothing yet."""
    product = await shared.product(kind="shared")
    user = await acting(shared, role.split()[0], token=token)
    for method, path, body in CALLS + LISTS:
        problem(await call(user, method, path.format(product), aimed(body, product)), errors.Forbidden)
    for method, path, body in CALLS:  # and does not learn which products there are
        problem(await call(user, method, path.format(999_999), aimed(body, 999_999)), errors.Forbidden)


@in_module
async def test_nobody_may_nothing(shared: World) -> None:
    user = Buyer(shared.http, "v1.1.admin.99999999999.x", 1)
    for method, path, body in CALLS + LISTS:
        problem(await call(user, method, path.format(1), aimed(body, 1)), errors.BadToken)


@in_module
async def test_another_sellers_product_is_not_there(shared: World) -> None:
    product = await shared.product(kind="shared", title="not yours")
    seller = await acting(shared, "seller", await other_seller(shared))
    for target in (product, 999_999):
        for method, path, body in CALLS:
            problem(await call(seller, method, path.format(target), aimed(body, target)), errors.NotFound)
    assert (await call(seller, "GET", "products")).json() == {"products": [], "next_cursor": None}
    assert (await call(seller, "GET", f"changes?product_id={product}")).json()["changes"] == []
    problem(await call(seller, "POST", "products", NEW | {"seller_id": shared.seller_id}), errors.NotFound)


@in_module
async def test_an_admin_with_a_sellers_token_is_an_admin(shared: World) -> None:
    product = await shared.product()
    admin = await acting(shared, "admin", token="seller")
    assert (await call(admin, "GET", f"products/{product}")).status_code == 200


# ---- what may be sent


@in_module
@pytest.mark.parametrize(
    "fields",
    [{"title": ""}, {"title": "  "}, {"title": "x" * 201}, {"title": "a\0b"}, {"title": 1}, {"title": None},
     {"description": "x" * 4001}, {"description": "\0"}, {"category": ""}, {"category": "x" * 61},
     {"list_price_minor": 0}, {"list_price_minor": 10**12 + 1}, {"list_price_minor": 1.5},
     {"list_price_minor": "100"}, {"list_price_minor": True}, {"list_price_minor": 10**30},
     {"discount_bp": -1}, {"discount_bp": 10_001}, {"duration_days": 0}, {"duration_days": 2**31},
     {"lead_time_h": 0}, {"lead_time_h": 5}, {"active": 1}, {"active": None}, {"id": 7}, {"created_at": "x"}],
    ids=repr,
)  # fmt: skip
async def test_what_the_database_would_refuse_is_malformed(shared: World, fields: dict[str, Any]) -> None:
    admin = await acting(shared, "admin")
    card = await entered(admin, seller_id=shared.seller_id)
    problem(await call(admin, "POST", "products", NEW | {"seller_id": shared.seller_id} | fields), errors.Malformed)
    problem(await call(admin, "PATCH", f"products/{card['id']}", fields | {"version": 1}), errors.Malformed)
    assert (await call(admin, "GET", f"products/{card['id']}")).json() == card


@in_module
@pytest.mark.parametrize(
    "fields",
    [{"title": "x" * 200}, {"title": "🙂" * 200}, {"description": "я" * 4000}, {"category": "🙂" * 60},
     {"list_price_minor": 1}, {"list_price_minor": 10**12}, {"discount_bp": 10_000}, {"duration_days": 100_000},
     {"kind": "made", "lead_time_h": 100_000}, {"title": "'; DROP TABLE products; --"}, {"title": "\\u0000"}],
    ids=lambda fields: repr(fields)[:40],
)  # fmt: skip
async def test_every_bound_can_be_reached(shared: World, fields: dict[str, Any]) -> None:
    card = await entered(await acting(shared, "admin"), seller_id=shared.seller_id, **fields)
    assert {name: card[name] for name in fields} == fields


@in_module
@pytest.mark.parametrize(
    "fields",
    [{"kind": "gift"}, {"kind": None}, {"currency": "BTC"}, {"currency": "rub"}, {"currency": ""},
     {"kind": "made"}, {"seller_id": 0}, {"seller_id": "1"}, {"seller_id": 2**63}, {"version": 1}],
    ids=repr,
)  # fmt: skip
async def test_a_new_product_that_cannot_be_is_malformed(shared: World, fields: dict[str, Any]) -> None:
    admin = await acting(shared, "admin")
    problem(await call(admin, "POST", "products", NEW | {"seller_id": shared.seller_id} | fields), errors.Malformed)


@in_module
async def test_an_admin_says_whose_product_it_is(shared: World) -> None:
    admin = await acting(shared, "admin")
    problem(await call(admin, "POST", "products", NEW), errors.Malformed)
    problem(await call(admin, "POST", "products", NEW | {"seller_id": 999_999}), errors.NotFound)


@in_module
@pytest.mark.parametrize("name", ["kind", "currency", "seller_id", "id", "created_at"])
async def test_what_is_final_is_not_changed(shared: World, name: str) -> None:
    admin = await acting(shared, "admin")
    card = await entered(admin, seller_id=shared.seller_id)
    problem(await call(admin, "PATCH", f"products/{card['id']}", {name: card[name], "version": 1}), errors.Malformed)


@in_module
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"title":"\\ud800"}'])
async def test_a_body_that_does_not_decode_is_malformed(shared: World, body: bytes) -> None:
    product, admin = await shared.product(kind="shared"), await acting(shared, "admin")
    for method, path, _ in [*CALLS, LISTS[2]]:
        if method != "GET":
            problem(await call(admin, method, path.format(product), body), errors.Malformed)


@in_module
@pytest.mark.parametrize(
    "path",
    ["products?cursor=x", "products?limit=0", "products?limit=101", "products?seller=0", "products?seller=x",
     "products?active=maybe", "products?q=%00", "products?q=" + "x" * 101, "changes?cursor=-1", "changes?product_id=0",
     "changes?limit=1000"],
)  # fmt: skip
async def test_a_question_that_is_none_is_malformed(shared: World, path: str) -> None:
    problem(await call(await acting(shared, "admin"), "GET", path), errors.Malformed)


# ---- lists


@in_module
async def test_lists_follow_their_cursors(shared: World) -> None:
    seller_id = await other_seller(shared)
    seller = await acting(shared, "seller", seller_id)
    made = [(await entered(seller, title=f"P{n}"))["id"] for n in range(5)]
    await call(seller, "PATCH", f"products/{made[0]}", {"active": False, "version": 1})
    for path, name, wanted in (
        ("products?limit=2", "products", made), ("products?limit=3&active=true", "products", made[1:]),
        ("products?q=p0", "products", made[:1]), (f"products?seller={shared.seller_id}", "products", []),
    ):  # fmt: skip
        seen: list[int] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await call(seller, "GET", f"{path}&cursor={cursor}")).json()
            seen += [one["id"] for one in page[name]]
            cursor = page["next_cursor"]
        assert seen == wanted
    first = (await call(seller, "GET", "changes?limit=4")).json()
    rest = (await call(seller, "GET", f"changes?limit=4&cursor={first['next_cursor']}")).json()
    told = [change["product_id"] for change in first["changes"] + rest["changes"]]
    assert (told, rest["next_cursor"]) == ([made[0], *reversed(made)], None)
    assert first["changes"][0]["user_name"] == "Ann"


@in_module
async def test_the_schema_names_every_path_of_staff(shared: World) -> None:
    paths = (await shared.http.get("/schema/openapi.json")).json()["paths"]
    found = {(path, method) for path, calls in paths.items() if "/admin/" in path for method in calls}
    assert found == {
        ("/api/admin/products", "get"), ("/api/admin/products", "post"), ("/api/admin/products/{product_id}", "get"),
        ("/api/admin/products/{product_id}", "patch"), ("/api/admin/products/{product_id}/content", "put"),
        ("/api/admin/stock", "get"), ("/api/admin/stock", "post"), ("/api/admin/stock/withdraw", "post"),
        ("/api/admin/changes", "get"), ("/api/admin/orders/{order_id}/goods", "post"),
        ("/api/admin/orders/{order_id}/refunds", "get"), ("/api/admin/orders/{order_id}/refunds", "post"),
        ("/api/admin/promos", "get"), ("/api/admin/promos", "post"), ("/api/admin/promos/{code}", "patch"),
        ("/api/admin/broadcasts", "get"), ("/api/admin/broadcasts", "post"),
        ("/api/admin/broadcasts/{broadcast_id}", "patch"), ("/api/admin/circuits", "get"),
        ("/api/admin/dead", "get"), ("/api/admin/dead/replay", "post"), ("/api/admin/dead/{letter_id}", "get"),
        ("/api/admin/dead/{letter_id}", "delete"),
        ("/api/admin/webhooks", "get"), ("/api/admin/webhooks", "post"), ("/api/admin/webhooks/{webhook_id}", "get"),
        ("/api/admin/webhooks/{webhook_id}", "patch"), ("/api/admin/webhooks/{webhook_id}", "delete"),
        ("/api/admin/webhooks/{webhook_id}/secret", "post"), ("/api/admin/webhooks/{webhook_id}/test", "post"),
        ("/api/admin/webhooks/{webhook_id}/deliveries", "get"), ("/api/admin/webhooks/{webhook_id}/replay", "post"),
        ("/api/admin/conversations", "get"), ("/api/admin/conversations/{conversation_id}", "get"),
        ("/api/admin/conversations/{conversation_id}/messages", "post"), ("/api/admin/channels", "get"),
        ("/api/admin/conversations/{conversation_id}/hand-back", "post"), ("/api/admin/channels/{channel_id}", "patch"),
    }  # fmt: skip
