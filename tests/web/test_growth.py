"""Growth over real HTTP: what a friend's purchase earns until it is refunded, promo codes, cash-back, the board."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from app import errors
from app.base import clock
from app.infra.embedded import Servers
from app.sandbox.initdata import sign_init_data
from tests.web.test_admin import acting, call, other_seller
from tests.web.test_shop import in_module, own_world, problem
from tests.world import BOT_TOKEN, Buyer, World, invoice_of

NEW: dict[str, Any] = {"discount_bp": 2000, "most_uses": 10}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "growth", 8, telegram_bot_name="torg_bot") as opened:
        await opened.product()
        yield opened


async def friend(world: World, start_param: str = "", name: str = "Ann", telegram_id: int = 0) -> Buyer:
    """Somebody who comes by this link."""
    telegram_id = telegram_id or uuid4().int >> 80
    user = {"id": telegram_id, "first_name": name}
    signed = sign_init_data(BOT_TOKEN, user, auth_date=clock.unix_s(), start_param=start_param)
    entered = await world.http.post("/api/session", json={"init_data": signed})
    assert entered.status_code == 200, entered.text
    return Buyer(world.http, entered.json()["token"], telegram_id)


async def told(buyer: Buyer, path: str) -> dict[str, Any]:
    answer = await buyer.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def link_of(buyer: Buyer) -> str:
    return str((await told(buyer, "/api/referrals"))["link"]).partition("startapp=")[2]


async def bought(world: World, buyer: Buyer, product: int, quantity: int = 1, **more: Any) -> dict[str, Any]:
    """Ordered, paid, and every job that follows is done."""
    answer = await ordered(buyer, product, quantity, **more)
    assert answer.status_code == 201, answer.text
    placed: dict[str, Any] = answer.json()
    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()
    assert await buyer.status(placed["order"]["id"]) == "delivered"
    return placed


async def ordered(buyer: Buyer, product: int, quantity: int = 1, **more: Any) -> httpx.Response:
    cart = {"lines": [{"product_id": product, "quantity": quantity}], "provider": "crystalpay"} | more
    headers = buyer.headers | {"Idempotency-Key": str(uuid4())}
    return await buyer.http.post("/api/orders", json=cart, headers=headers)


async def refunded(world: World, order_id: str, amount_minor: int | None = None) -> None:
    admin = await acting(world, "admin")
    body = {"target": "balance", "amount_minor": amount_minor}
    answer = await call(admin, "POST", f"orders/{order_id}/refunds", body, Idempotency_Key=str(uuid4()))
    assert answer.status_code == 201, answer.text
    await world.drain()


async def balance(buyer: Buyer) -> tuple[int, int]:
    found = (await told(buyer, "/api/balance"))["balances"]
    return (found[0]["balance_minor"], found[0]["debt_minor"]) if found else (0, 0)


async def promo(world: World, code: str, **fields: Any) -> dict[str, Any]:
    admin = await acting(world, "admin")
    answer = await call(admin, "POST", "promos", NEW | {"code": code} | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def uses(world: World, code: str) -> int:
    return int(await world.scalar("SELECT uses FROM promos WHERE code = $1", code))


# ---- referrals


@in_module
async def test_a_friends_purchase_earns_until_it_is_refunded(shared: World) -> None:
    product = await shared.product(*(f"KEY-{n}" for n in range(9)))
    boss = await friend(shared)
    ann = await friend(shared, await link_of(boss))
    bob = await friend(shared, await link_of(ann))
    placed = await bought(shared, bob, product, 2)
    assert [await balance(one) for one in (bob, ann, boss)] == [(0, 0), (2000, 0), (1400, 0)]
    seen = await told(boss, "/api/referrals")
    assert seen["levels"] == [
        {"level": 1, "share_percent": 10.0, "invited": 1, "earned": []},
        {"level": 2, "share_percent": 7.0, "invited": 1,
         "earned": [{"currency": "RUB", "earned_minor": 1400, "clawed_minor": 0}]},
        {"level": 3, "share_percent": 3.0, "invited": 0, "earned": []},
    ]  # fmt: skip
    assert seen["link"] == f"https://t.me/torg_bot?startapp=ref_{seen['code']}"
    await refunded(shared, placed["order"]["id"], 5000)
    assert [await balance(one) for one in (bob, ann, boss)] == [(5000, 0), (1500, 0), (1050, 0)]
    spent = await ordered(ann, await shared.product(kind="shared", price_minor=1000), provider="balance")
    assert (spent.status_code, await balance(ann)) == (201, (500, 0))
    await refunded(shared, placed["order"]["id"])
    assert [await balance(one) for one in (bob, ann, boss)] == [
        (20_000, 0),
        (0, 1000),
        (100, 0),
    ]  # 100: of what Ann bought
    earned = (await told(ann, "/api/referrals"))["levels"][0]["earned"]
    assert earned == [{"currency": "RUB", "earned_minor": 2000, "clawed_minor": 2000}]
    await bought(shared, bob, product)  # the debt is worked off by the next bonus
    assert await balance(ann) == (0, 0)


@in_module
@pytest.mark.parametrize("start_param", ["", "ref_", "ref_nobody1", "promo_x", "ref_" + "9" * 500, "ref_\0", "ref_ё"])
async def test_a_link_of_nobody_brings_nobody(shared: World, start_param: str) -> None:
    ann = await friend(shared, start_param)
    user_id = (await told(ann, "/api/me"))["user_id"]
    assert await shared.scalar("SELECT referrer_id FROM users WHERE id = $1", user_id) is None


@in_module
async def test_who_was_here_before_is_brought_by_nobody(shared: World) -> None:
    boss, ann = await friend(shared), await friend(shared)
    again = await friend(shared, await link_of(boss), telegram_id=ann.telegram_id)
    own = await friend(shared, await link_of(ann), telegram_id=ann.telegram_id)
    for one in (boss, again, own):
        assert [level["invited"] for level in (await told(one, "/api/referrals"))["levels"]] == [0, 0, 0]
    problem(await shared.http.get("/api/referrals"), errors.BadToken)


# ---- cash-back


@in_module
async def test_a_first_review_is_thanked_once(shared: World) -> None:
    product, ann = await shared.product(*(f"R-{n}" for n in range(5)), price_minor=999), await friend(shared)
    await bought(shared, ann, product, 2)
    path, headers = f"/api/products/{product}/review", ann.headers
    for rating in (5, 4, 3):
        assert (await shared.http.put(path, json={"rating": rating}, headers=headers)).is_success
        await shared.drain()
    assert await balance(ann) == (1998 * 5 // 100, 0)
    await bought(shared, ann, product)
    assert (await shared.http.put(path, json={"rating": 5}, headers=headers)).is_success
    await shared.drain()
    assert await balance(ann) == (99, 0)
    entries = (await told(ann, "/api/balance"))["entries"]
    assert [(entry["reason"], entry["amount_minor"]) for entry in entries] == [("cashback", 99)]


@in_module
async def test_a_review_of_what_is_refunded_earns_on_what_was_kept(shared: World) -> None:
    product, ann = await shared.product("S-1", price_minor=1000), await friend(shared)
    placed = await bought(shared, ann, product)
    await refunded(shared, placed["order"]["id"], 600)
    path = f"/api/products/{product}/review"
    assert (await shared.http.put(path, json={"rating": 1}, headers=ann.headers)).is_success
    await shared.drain()
    assert await balance(ann) == (600 + 400 * 5 // 100, 0)


# ---- promo codes


@in_module
async def test_a_code_makes_an_order_cheaper_once(shared: World) -> None:
    product, ann = await shared.product(*(f"P-{n}" for n in range(9))), await friend(shared)
    await promo(shared, "Spring-20")
    placed = await bought(shared, ann, product, 2, promo=" spring-20 ")
    assert placed["order"]["total_minor"] == 16_000
    refused = problem(await ordered(ann, product, promo="SPRING-20"), errors.PromoRefused)
    assert refused["reason"] == "used"
    assert len((await told(ann, "/api/orders"))["orders"]) == 1
    assert await uses(shared, "SPRING-20") == 1


@in_module
async def test_a_cancelled_or_expired_order_gives_its_use_back(shared: World) -> None:
    product, ann = await shared.product(*(f"C-{n}" for n in range(9))), await friend(shared)
    await promo(shared, "ONCE", most_uses=1)
    for _ in range(2):
        placed = (await ordered(ann, product, promo="ONCE")).json()
        assert (
            problem(await ordered(await friend(shared), product, promo="ONCE"), errors.PromoRefused)["reason"]
            == "exhausted"
        )
        assert (await ann.cancel(placed["order"]["id"])).status_code == 200
        assert await uses(shared, "ONCE") == 0


@in_module
@pytest.mark.parametrize(
    ("fields", "reason"),
    [(None, "unknown"), ({"active": False}, "unknown"), ({"starts_at": "2099-01-01T00:00:00Z"}, "not_yet"),
     ({"starts_at": "2001-01-01T00:00:00Z", "ends_at": "2002-01-01T00:00:00+03:00"}, "ended"),
     ({"product_id": 1}, "foreign")],
)  # fmt: skip
async def test_a_code_that_does_not_fit_orders_nothing(
    shared: World, fields: dict[str, Any] | None, reason: str
) -> None:
    product, ann, code = await shared.product(f"N-{uuid4()}"), await friend(shared), f"C-{uuid4().hex[:9]}"
    if fields is not None:
        await promo(shared, code, **fields)
    refused = problem(await ordered(ann, product, promo=code), errors.PromoRefused)
    assert refused["reason"] == reason
    assert (await told(ann, "/api/orders"))["orders"] == []
    assert (await ordered(ann, product)).status_code == 201  # its unit is free
    sold_out = await ordered(await friend(shared), product, promo=code)
    problem(sold_out, errors.OutOfStock)  # what is not there is told first


@in_module
@pytest.mark.parametrize("bad", ["", "  ", 1, True, [], "x" * 65, "a\0b"])
async def test_a_code_that_is_none_is_malformed(shared: World, bad: Any) -> None:
    problem(await ordered(await friend(shared), 1, promo=bad), errors.Malformed)


@in_module
async def test_a_crowd_over_http_uses_a_code_exactly_as_often_as_it_says(shared: World) -> None:
    product = await shared.product(*(f"X-{n}" for n in range(20)))
    await promo(shared, "CROWD", most_uses=5)
    buyers = [await friend(shared) for _ in range(15)]
    answers = await asyncio.gather(*(ordered(buyer, product, promo="CROWD") for buyer in buyers))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 10
    assert {answer.json()["reason"] for answer in answers if answer.status_code == 409} == {"exhausted"}
    assert await uses(shared, "CROWD") == 5


# ---- staff


@in_module
async def test_staff_make_codes_change_them_and_leave_a_trail(shared: World) -> None:
    admin = await acting(shared, "admin")
    made = await promo(shared, "trail", per_user=3, ends_at="2098-07-01T12:00:00+03:00")
    assert {name: made[name] for name in ("code", "discount_bp", "most_uses", "uses", "per_user", "version")} == {
        "code": "TRAIL", "discount_bp": 2000, "most_uses": 10, "uses": 0, "per_user": 3, "version": 1,
    }  # fmt: skip
    assert (made["seller_id"], made["ends_at"]) == (None, "2098-07-01T09:00:00Z")
    problem(await call(admin, "POST", "promos", NEW | {"code": "TRAIL"}), errors.Conflict)
    changed = await call(admin, "PATCH", "promos/trail", {"discount_bp": 500, "most_uses": 10}, If_Match='"1"')
    assert (changed.status_code, changed.json()["discount_bp"], changed.headers["etag"]) == (200, 500, '"2"')
    stale = problem(await call(admin, "PATCH", "promos/TRAIL", {"version": 1, "active": False}), errors.Conflict)
    assert stale["version"] == 2
    same = await call(admin, "PATCH", "promos/TRAIL", {"version": 2, "ends_at": "2098-07-01T09:00:00Z"})
    assert (same.status_code, same.json()["version"]) == (200, 2)
    off = await call(admin, "PATCH", "promos/TRAIL", {"version": 2, "active": False, "ends_at": None})
    assert (off.json()["active"], off.json()["ends_at"], off.json()["version"]) == (False, None, 3)
    trail = [one for one in (await call(admin, "GET", "changes")).json()["changes"] if one["promo"] == "TRAIL"]
    assert [(one["noun"], one["product_id"], one["role"]) for one in trail] == [("promo", None, "admin")] * 3
    assert trail[1]["what"] == {"discount_bp": {"old": 2000, "new": 500}}
    assert trail[0]["what"].keys() == {"active", "ends_at"}
    assert trail[2]["what"]["code"] == {"old": None, "new": "TRAIL"}


@in_module
async def test_sellers_have_codes_for_their_own_goods_alone(shared: World) -> None:
    theirs = await other_seller(shared)
    seller, other = await acting(shared, "seller", shared.seller_id), await acting(shared, "seller", theirs)
    made = await call(seller, "POST", "promos", NEW | {"code": "MINE"})
    assert (made.status_code, made.json()["seller_id"]) == (201, shared.seller_id)
    product = await shared.product()
    for body in ({"seller_id": shared.seller_id}, {"product_id": product}, {"product_id": 10**9}):
        problem(await call(other, "POST", "promos", NEW | {"code": "GRAB"} | body), errors.NotFound)
    for way in ({"version": 1, "active": False}, {"version": 9, "active": False}):
        problem(await call(other, "PATCH", "promos/MINE", way), errors.NotFound)
    assert [one["code"] for one in (await call(other, "GET", "promos")).json()["promos"]] == []
    mine = (await call(seller, "GET", "promos")).json()["promos"]
    assert [one["code"] for one in mine] == ["MINE"]
    assert [one["promo"] for one in (await call(other, "GET", "changes")).json()["changes"]] == []
    assert "MINE" in [one["promo"] for one in (await call(seller, "GET", "changes")).json()["changes"]]
    for who, kind in (
        (await acting(shared, "buyer"), errors.Forbidden),
        (await acting(shared, "buyer", token="admin"), errors.Forbidden),
    ):
        problem(await call(who, "GET", "promos"), kind)
        problem(await call(who, "POST", "promos", NEW | {"code": "NONE"}), kind)
        problem(await call(who, "PATCH", "promos/MINE", {"version": 1, "active": False}), kind)


@in_module
async def test_codes_are_read_page_by_page(shared: World) -> None:
    names = [(await promo(shared, f"PAGE-{n}"))["code"] for n in range(3)]
    admin, found, cursor = await acting(shared, "admin"), list[str](), ""
    while cursor is not None:
        page = (await call(admin, "GET", f"promos?limit=2&cursor={cursor}")).json()
        found += [one["code"] for one in page["promos"]]
        cursor = page["next_cursor"]
    assert [name for name in found if name.startswith("PAGE-")] == names
    assert len(set(found)) == len(found)


@in_module
@pytest.mark.parametrize(
    "fields",
    [{}, {"code": "x"}, {"code": "a b"}, {"code": "AB\n"}, {"code": "ё1"}, {"discount_bp": 0}, {"discount_bp": 10_001},
     {"most_uses": 0}, {"most_uses": 2**40}, {"per_user": 101}, {"starts_at": "2031-01-01T00:00:00"},
     {"starts_at": "x"},
     {"starts_at": "0001-01-01T00:00:00+14:00"}, {"ends_at": "9999-12-31T23:59:59-14:00"}, {"uses": 3},
     {"starts_at": "2031-01-02T00:00:00Z", "ends_at": "2031-01-02T00:00:00Z"}, {"seller_id": 0}],
)  # fmt: skip
async def test_a_code_that_breaks_a_rule_is_malformed(shared: World, fields: dict[str, Any]) -> None:
    admin = await acting(shared, "admin")
    body = (NEW | {"code": "GOOD"} | fields) if fields else {"code": "GOOD"}
    problem(await call(admin, "POST", "promos", body), errors.Malformed)
    assert await shared.scalar("SELECT count(*) FROM promos WHERE code = 'GOOD'") == 0


@in_module
async def test_a_code_cannot_be_changed_into_what_it_cannot_be(shared: World) -> None:
    product, ann = await shared.product("U-1", "U-2"), await friend(shared)
    made = await promo(shared, "BOUND", per_user=2)
    assert (await ordered(ann, product, promo="BOUND")).status_code == 201
    assert (await ordered(ann, product, promo="BOUND")).status_code == 201
    admin = await acting(shared, "admin")
    for fields in ({"most_uses": 1}, {"ends_at": made["starts_at"]}, {"starts_at": None}, {}, {"version": 2**70}):
        body = {"version": 1} | fields
        answer = await call(admin, "PATCH", "promos/BOUND", body if fields else {})
        problem(answer, errors.Malformed)
    for path in ("promos/NO-SUCH", "promos/%00", "promos/%D1%91", "promos/" + "x" * 3000):
        problem(await call(admin, "PATCH", path, {"version": 1, "active": False}), errors.NotFound)


# ---- the leaderboard


@in_module
async def test_the_board_follows_sales_and_refunds(shared: World) -> None:
    product = await shared.product(*(f"L-{n}" for n in range(9)), currency="EUR", discount_bp=3000)
    ann, bob = await friend(shared, name="Anna Doe"), await friend(shared, name="Bob")
    path = "/api/leaderboard?currency=EUR"
    assert await told(ann, path) == {
        "period": "all", "board": "all", "currency": "EUR", "places": [], "you": {"rank": 0, "saved_minor": 0},
    }  # fmt: skip
    placed = await sold(shared, ann, product, 2)
    await sold(shared, bob, product, 1)
    for period in ("all", "month", "week"):
        seen = await told(bob, f"{path}&period={period}")
        assert [tuple(place.values()) for place in seen["places"]] == [
            (1, "Anna D.", 6000, False), (2, "Bob", 3000, True),
        ]  # fmt: skip
        assert seen["you"] == {"rank": 2, "saved_minor": 3000}
    await refunded(shared, placed["order"]["id"])
    stranger = await shared.http.get(path)
    assert stranger.json()["places"] == [{"rank": 1, "name": "Bob", "saved_minor": 3000, "you": False}]
    assert stranger.json()["you"] is None
    for bad in ("currency=XXX", "currency=eur", "period=day", "limit=0", "limit=101"):
        problem(await shared.http.get(f"/api/leaderboard?{bad}"), errors.Malformed)


async def sold(world: World, buyer: Buyer, product: int, quantity: int) -> dict[str, Any]:
    """Sold in a currency that the gateway of these tests does not take: by hand."""
    user_id = (await told(buyer, "/api/me"))["user_id"]
    await world.pg.fetch(
        "INSERT INTO balances AS b (user_id, currency, balance_minor) VALUES ($1, 'EUR', 1000000)", (user_id,)
    )
    await world.pg.fetch(
        "INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, user_id)"
        " VALUES ($2, 'bonuses', 'buyer:' || $1::int8, 1000000, 'EUR', 'bonus', $1)", (user_id, str(uuid4())),
    )  # fmt: skip
    answer = await ordered(buyer, product, quantity, provider="balance")
    assert answer.status_code == 201, answer.text
    await world.drain()
    placed: dict[str, Any] = answer.json()
    assert UUID(placed["order"]["id"])
    return placed
