"""An order moves on as the table says, by whoever may move it; everybody concerned hears of it, each once."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any, get_args
from uuid import UUID

import httpx
import msgspec
import pytest
import pytest_asyncio
import structlog
from structlog.testing import LogCapture

from app.base import errands, keys
from app.channels.telegram import texts
from app.domain import endpoints, events, moves
from app.errors import RedisDown
from app.flows import move, settle
from app.infra.embedded import Servers
from tests.flows.test_money import balance, lapse, ordered, someone, told
from tests.web.test_admin import acting, call
from tests.web.test_shop import in_module, own_world
from tests.world import Buyer, World, invoice_of

# REQUIREMENTS, C: order moves, word for word (`payment_pending` is our `pending`: only money makes it paid).
STAFF = {
    "pending": "reviewing, confirmed, in_delivery, canceled",
    "reviewing": "issue_reported, locked, confirmed, canceled",
    "issue_reported": "locked, reviewing, confirmed, canceled",
    "locked": "confirmed, preparing, canceled",
    "confirmed": "in_delivery, preparing, canceled",
    "preparing": "ready_for_pickup, in_delivery, canceled",
    "ready_for_pickup": "in_delivery, delivered, canceled",
    "in_delivery": "delivered, partially_delivered",
    "delivered": "completed",
    "partially_delivered": "delivered, in_delivery",
    "paid": "confirmed",
}
BUYER = {"in_delivery": "delivered", "partially_delivered": "delivered", "confirmed": "delivered, canceled",
         "pending": "canceled"}  # fmt: skip
AGAIN = """
UPDATE outbox SET state = 'owed', run_at = now(), lease_until = NULL WHERE kind = 'announce' AND key LIKE 'move:%'"""
CALLS = """
SELECT payload -> 'event' ->> 'type' AS type FROM outbox WHERE kind = 'hook' AND payload::text LIKE $1 ORDER BY id"""
STATUSES = (*STAFF, "completed", "cancelled", "preorder", "expired", "refunded", "partially_refunded")
TARGETS = get_args(moves.Status)


def may(role: str, before: str, after: str) -> bool:
    listed = (BUYER if role == "buyer" else STAFF).get(before, "")
    return after.replace("cancelled", "canceled") in listed.split(", ")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(servers: Servers, template: str) -> AsyncIterator[World]:
    async with own_world(servers, template, "moves", 7) as opened:
        yield opened


async def patch(who: Buyer, order: str, status: str, note: str = "", if_match: str = "") -> httpx.Response:
    headers = who.headers | ({"If-Match": if_match} if if_match else {})
    body = {"status": status} | ({"note": note} if note else {})
    return await who.http.patch(f"/api/orders/{order}/status", json=body, headers=headers)


async def put(world: World, order: str, status: str) -> None:
    await world.pg.fetch("UPDATE orders SET status = $2, slot = NULL WHERE id = $1", (UUID(order), status))


async def heard(world: World, user_id: int) -> list[dict[str, Any]]:
    """The user's realtime events."""
    stream = await world.shop.deps.redis.command("XRANGE", keys.events(user_id), "-", "+")
    assert isinstance(stream, list)
    found = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in stream]
    return [msgspec.json.decode(entry[b"event"]) for entry in found if entry[b"event"]]


async def user_of(world: World, buyer: Buyer) -> int:
    return int(await world.scalar("SELECT id FROM users WHERE telegram_id = $1", buyer.telegram_id))


async def events_of(world: World, who: Buyer, order: str) -> list[str]:
    """What the user's stream says that the order became, in its order."""
    found = await heard(world, await user_of(world, who))
    return [event["data"]["new"] for event in found if event["data"]["order_id"] == order]


async def shipped(world: World, *, pay: bool = True) -> tuple[Buyer, Buyer, str]:
    """A paid order of a thing that is sent: buyer, seller, order."""
    product = await world.product(kind="shipped", pieces=1)
    buyer, seller = await someone(world), await acting(world, "seller", world.seller_id)
    placed = (await buyer.order((product, 1))).json()
    if pay:
        await world.crystalpay.pay(invoice_of(placed))
        await world.drain()
    return buyer, seller, placed["order"]["id"]


@in_module
async def test_the_moves_are_those_of_the_requirements(shared: World) -> None:
    buyer, order, _, _ = await ordered(shared)
    people = {"buyer": buyer, "seller": await acting(shared, "seller", shared.seller_id),
              "admin": await acting(shared, "admin")}  # fmt: skip
    users = {role: await user_of(shared, who) for role, who in people.items()}
    stated = {row[0] for row in await shared.pg.fetch("SELECT to_status FROM order_moves", ())}
    assert stated == set(TARGETS)
    for role, before, after in itertools.product(people, STATUSES, TARGETS):
        await put(shared, order, before)
        moved = await moves.move(
            shared.pg, UUID(order), users[role], after, expected="", note="", buyer_news=list(texts.MOVES)
        )
        assert moved
        others = any(may(other, before, after) for other in people)
        word = "moved" if may(role, before, after) else "forbidden" if others else "refused"
        assert (moved.word, moved.before) == (word, before), (role, before, after)
        assert moved.status == (after if word == "moved" else before)
        assert moved.role == (role if word == "moved" else None)
    await shared.pg.fetch("DELETE FROM outbox WHERE payload ->> 'order_id' = $1 OR kind = 'announce'", (order,))
    for role, after, status in (("buyer", "completed", 403), ("buyer", "locked", 409), ("seller", "completed", 200)):
        await put(shared, order, "delivered")
        answer = await patch(people[role], order, after)
        assert answer.status_code == status, answer.text
        assert status != 409 or answer.json()["order_status"] == "delivered"


@in_module
async def test_the_answer_is_the_whole_order(shared: World) -> None:
    buyer, seller, order = await shipped(shared)
    answer = await patch(seller, order, "confirmed", "packed today")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"confirmed"')
    card = answer.json()
    assert card["order"]["status"] == "confirmed"
    assert [line["title"] for line in card["order"]["lines"]] == ["Key"]
    assert (card["payment"]["provider"], card["payment"]["status"]) == ("crystalpay", "paid")
    assert card["buyer"] == {"id": await user_of(shared, buyer), "name": "Ann"}
    steps = [(step["from"], step["to"], step["role"], step["note"]) for step in card["history"]]
    assert steps == [(None, "pending", "buyer", ""), ("pending", "paid", "gateway", ""),
                     ("paid", "confirmed", "seller", "packed today")]  # fmt: skip
    read = await buyer.get(f"/api/orders/{order}")
    assert (read.json(), read.headers["etag"]) == (card, '"confirmed"')
    who = await shared.pg.fetch("SELECT user_id, note FROM order_events WHERE role = 'seller' AND order_id = $1",
                                (UUID(order),))  # fmt: skip
    assert [tuple(row) for row in who] == [(await user_of(shared, seller), "packed today")]


@in_module
async def test_whose_order_it_is_not_learns_nothing(shared: World) -> None:
    _, _, order = await shipped(shared)
    foreign = await acting(
        shared, "seller", int(await shared.scalar("INSERT INTO sellers (name) VALUES ('B') RETURNING id"))
    )
    for stranger in (foreign, await someone(shared)):
        assert (await patch(stranger, order, "confirmed")).status_code == 404
        assert (await stranger.get(f"/api/orders/{order}")).status_code == 404
    assert (await patch(foreign, "not-an-id", "confirmed")).status_code == 404
    assert (await shared.http.patch(f"/api/orders/{order}/status", json={"status": "confirmed"})).status_code == 401


@in_module
@pytest.mark.parametrize(
    ("body", "if_match"),
    [({"status": "paid"}, ""), ({"status": "nonsense"}, ""), ({}, ""), ({"status": "confirmed", "more": 1}, ""),
     ({"status": "confirmed", "note": "x" * 501}, ""), ({"status": "confirmed", "note": "\0"}, ""),
     ({"status": "confirmed"}, '"pa id"'), ({"status": "confirmed"}, '""'), ({"status": None}, "")],
)  # fmt: skip
async def test_what_is_no_move_is_refused(shared: World, body: dict[str, Any], if_match: str) -> None:
    _, seller, order = await shipped(shared)
    headers = seller.headers | ({"If-Match": if_match} if if_match else {})
    answer = await shared.http.patch(f"/api/orders/{order}/status", json=body, headers=headers)
    assert answer.status_code == 400, answer.text


@in_module
async def test_only_an_order_in_the_status_that_was_seen_is_moved(shared: World) -> None:
    _, seller, order = await shipped(shared)
    stale = await patch(seller, order, "confirmed", if_match='"pending"')
    assert (stale.status_code, stale.json()["order_status"]) == (409, "paid")
    assert (await patch(seller, order, "confirmed", if_match='W/"paid"')).status_code == 200
    assert (await patch(seller, order, "in_delivery", if_match="*")).status_code == 200


@in_module
async def test_of_moves_at_once_one_wins(shared: World) -> None:
    buyer, seller, order = await shipped(shared)
    admin = await acting(shared, "admin")
    assert (await patch(seller, order, "confirmed")).status_code == 200
    wanted = [
        (seller, "preparing"),
        (admin, "preparing"),
        (buyer, "cancelled"),
        (admin, "cancelled"),
        (seller, "preparing"),
    ]
    answers = await asyncio.gather(*(patch(who, order, status) for who, status in wanted))
    won = [answer for answer in answers if answer.status_code == 200]
    # `preparing` may be cancelled by staff, so one may follow the other; no move is made twice.
    steps = [step["to"] for step in (await buyer.get(f"/api/orders/{order}")).json()["history"]][3:]
    assert len(won) == len(steps) == len(set(steps))
    assert {answer.status_code for answer in answers} - {200} <= {403, 409}
    assert all(
        answer.json()["order_status"] in ("preparing", "cancelled") for answer in answers if answer.status_code == 409
    )
    await shared.drain()


@in_module
async def test_a_cancelled_paid_order_is_paid_back_and_for_sale_again(shared: World) -> None:
    buyer, seller, order = await shipped(shared)
    assert (await patch(seller, order, "confirmed")).status_code == 200
    assert (await patch(buyer, order, "canceled")).json()["order"]["status"] == "cancelled"
    await shared.drain()
    assert (await buyer.status(order), await balance(buyer)) == ("cancelled", 10_000)
    item = "SELECT s.state FROM stock_items s JOIN order_items i ON i.stock_item_id = s.id WHERE i.order_id = $1"
    assert await shared.scalar(item, UUID(order)) == "available"
    assert "cancelled by the buyer" in told(shared, seller)[-1]
    assert (await buyer.get(f"/api/orders/{order}")).json()["chat"][0]["text"] == move.CHAT["cancelled"]


@in_module
async def test_what_was_delivered_of_a_cancelled_order_stays_paid(shared: World) -> None:
    key, thing = await shared.product("A-KEY"), await shared.product(kind="shipped", pieces=1, price_minor=4_000)
    buyer, admin = await someone(shared), await acting(shared, "admin")
    placed = (await buyer.order((key, 1), (thing, 1))).json()
    order = placed["order"]["id"]
    await shared.crystalpay.pay(invoice_of(placed))
    await shared.drain()
    for status in ("confirmed", "cancelled"):
        assert (await patch(admin, order, status)).status_code == 200
    await shared.drain()
    assert (await balance(buyer), await buyer.goods(order)) == (4_000, ["A-KEY"])


@in_module
async def test_a_delivery_that_comes_after_the_sellers_move_still_hands_the_goods_over(shared: World) -> None:
    buyer, order, invoice, _ = await ordered(shared)
    seller = await acting(shared, "seller", shared.seller_id)
    await shared.crystalpay.pay(invoice)
    settled = await shared.pg.fetch("SELECT id FROM outbox WHERE kind = 'settle' AND state = 'owed'", ())
    assert settled
    await put(shared, order, "confirmed")  # unpaid: the seller was faster than the gateway
    await shared.drain()
    card = (await buyer.get(f"/api/orders/{order}")).json()
    assert (card["order"]["status"], card["payment"]["status"]) == ("confirmed", "paid")
    assert len(await buyer.goods(order)) == 1
    assert await balance(buyer) == 0
    assert (await patch(buyer, order, "delivered")).status_code == 200
    assert (await patch(seller, order, "completed")).status_code == 200
    await shared.drain()
    assert "is completed" in told(shared, buyer)[-1]


@in_module
async def test_everybody_concerned_hears_of_each_move_once(shared: World) -> None:
    buyer, seller, order = await shipped(shared)
    endpoint = await call(seller, "POST", "webhooks", {"url": "https://example.com/hook"})
    assert endpoint.status_code == 201, endpoint.text
    assert (await patch(seller, order, "confirmed")).status_code == 200
    await shared.drain()
    await shared.pg.fetch(AGAIN, ())
    await shared.drain()  # every announcement once more: nothing new comes of it
    for who in (buyer, seller):
        found = [
            event for event in await heard(shared, await user_of(shared, who)) if event["data"]["order_id"] == order
        ]
        assert [(event["type"], event["data"]["old"], event["data"]["new"]) for event in found] == [
            (move.TYPE, "pending", "paid"), (move.TYPE, "paid", "confirmed")
        ]  # fmt: skip
        assert all(event["at"] and event["data"]["timestamp"] for event in found)
    assert len([text for text in told(shared, buyer) if "confirmed by the seller" in text]) == 1
    kinds = [row["type"] for row in await shared.pg.fetch(CALLS, (f"%{order}%",))]
    assert kinds == ["order.status"]  # paid before the webhook was there
    assert (await patch(buyer, order, "cancelled")).status_code == 200
    await shared.drain()
    kinds = [row["type"] for row in await shared.pg.fetch(CALLS, (f"%{order}%",))]
    assert sorted(kinds) == ["order.cancelled", "order.status", "order.status"]
    orders = {kind for kind in endpoints.TYPES if kind.startswith("order.")}
    assert set(move.CALLED.values()) | {"order.status"} == orders


@in_module
@pytest.mark.parametrize("broken", ["publish", "owe", "say", "ring"])
async def test_an_effect_that_fails_leaves_the_answer_and_the_others_alone(
    shared: World, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer, seller, order = await shipped(shared)
    assert (await patch(seller, order, "confirmed")).status_code == 200
    await shared.drain()

    async def fail(*_: object, **__: object) -> None:
        raise RedisDown("broken by the test")

    home: Any = {"publish": events, "owe": endpoints, "say": moves, "ring": settle}[broken]
    capture = LogCapture()
    with monkeypatch.context() as patched:
        patched.setattr(errands, "log", structlog.wrap_logger(None, processors=[capture]))
        patched.setattr(home, broken, fail)
        assert (await patch(seller, order, "cancelled")).status_code == 200
        await shared.app.state.shop.errands.finish()
        await shared.drain()
    said = [str(line["event"]) for line in capture.entries]
    assert any(re.fullmatch(rf"task \d/\d of order-status-update:{order} failed", line) for line in said), said
    assert await balance(buyer) == 10_000  # repaid whatever else failed
    chat = (await buyer.get(f"/api/orders/{order}")).json()["chat"]
    assert bool(chat) == (broken != "say")
    await shared.pg.fetch("UPDATE outbox SET run_at = now() WHERE state = 'owed'", ())
    await shared.drain()
    assert (await buyer.get(f"/api/orders/{order}")).json()["chat"]
    for who in (buyer, seller):
        found = [event["data"]["new"] for event in await heard(shared, await user_of(shared, who))
                 if event["data"]["order_id"] == order]  # fmt: skip
        assert found == ["paid", "confirmed", "cancelled"]
    assert await shared.scalar("SELECT count(*) FROM outbox WHERE state = 'owed' AND kind = 'announce'") == 0


@in_module
async def test_what_moves_an_order_by_itself_is_announced_too(shared: World) -> None:
    buyer, order, _, _ = await ordered(shared)
    assert (await patch(buyer, order, "cancelled")).status_code == 200
    other, late, _, _ = await ordered(shared)
    await lapse(shared, late)
    third, _, invoice, _ = await ordered(shared)
    await shared.crystalpay.pay(invoice)
    await shared.drain()
    for who, expected in ((buyer, ["cancelled"]), (other, ["expired"]), (third, ["paid", "delivered"])):
        found = [event["data"]["new"] for event in await heard(shared, await user_of(shared, who))]
        assert found == expected
