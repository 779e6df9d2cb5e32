"""Who is owed which call, how a call ends, and what of it staff see: statement by statement."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from app.base import clock
from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import catalog, endpoints, orders, outbox
from app.domain.orders import MAX_LINES
from tests.sql.shelf import Shelf

ADD = """
INSERT INTO endpoints (id, seller_id, url, types, sealed, disabled_at, disabled_why, deleted_at)
VALUES ($1, $2, 'https://a.example/', $3, CASE WHEN $5 THEN NULL ELSE 'sealed'::bytea END,
        CASE WHEN $4 THEN now() END, CASE WHEN $4 THEN 'staff' END, CASE WHEN $5 THEN now() END)"""
PAYLOADS = "SELECT key, payload::text FROM outbox WHERE kind = 'hook' ORDER BY id"
AT = clock.now()


async def endpoint(
    shelf: Shelf, *types: str, seller_id: int = 0, disabled: bool = False, deleted: bool = False
) -> UUID:
    made = new_id()
    await shelf.pg.fetch(ADD, (made, seller_id or shelf.seller_id, list(types), disabled, deleted))
    return made


async def bought(shelf: Shelf, **changes: Any) -> tuple[UUID, int]:
    """An order, and the id of its first event."""
    product = await shelf.product(kind="made", lead_time_h=1, **changes)
    new = shelf.cart((product, 2))
    assert await orders.create(shelf.pg, new)
    (event,) = await shelf.rows("SELECT id FROM order_events WHERE order_id = $1", new.order_id)
    return new.order_id, event[0]


async def staff(shelf: Shelf, role: str = "seller", seller_id: int | None = None) -> int:
    rows = await shelf.rows(
        "INSERT INTO users (telegram_id, name, role, seller_id) VALUES ($1, 'x', $2, $3) RETURNING id",
        uuid4().int >> 66, role, None if role == "admin" else seller_id or shelf.seller_id,
    )  # fmt: skip
    return int(rows[0][0])


async def claimed(shelf: Shelf, outbox_id: int) -> Lease:
    lease = Lease(outbox_id, new_id(), 60)
    assert await outbox.claim(shelf.pg, lease)
    return lease


# ---- who is owed what


async def test_every_endpoint_of_the_seller_that_wants_it_is_owed_the_event_once(shelf: Shelf) -> None:
    order_id, event_id = await bought(shelf)
    other = await catalog.add_seller(shelf.pg, "Other")
    all_, paid = await endpoint(shelf), await endpoint(shelf, "order.expired", "order.paid")
    await endpoint(shelf, "order.status")
    await endpoint(shelf, disabled=True)
    await endpoint(shelf, deleted=True)
    await endpoint(shelf, seller_id=other)
    owed = await endpoints.owe(shelf.pg, order_id, event_id, "order.paid", AT)
    assert [row[0] for row in await shelf.rows(PAYLOADS)] == [f"evt_{event_id}:{all_}", f"evt_{event_id}:{paid}"]
    assert len(owed) == 2
    for _ in range(3):
        assert await endpoints.owe(shelf.pg, order_id, event_id, "order.paid", AT) == []
    many = await asyncio.gather(*(endpoints.owe(shelf.pg, order_id, event_id + 1, "order.paid", AT) for _ in range(8)))
    assert sorted(map(len, many)) == [0] * 7 + [2]


async def test_the_event_is_what_the_order_was_and_nothing_of_goods_or_buyer(shelf: Shelf) -> None:
    order_id, event_id = await bought(shelf, title="Ключ 🙂")
    made = await endpoint(shelf)
    await shelf.pg.fetch("UPDATE orders SET status = 'cancelled'", ())  # meanwhile
    await endpoints.owe(shelf.pg, order_id, event_id, "order.status", AT)
    ((_, payload),) = await shelf.rows(PAYLOADS)
    told = msgspec.json.decode(payload)
    data = told["event"].pop("data")
    number, product_id = (await shelf.rows("SELECT o.number, i.product_id FROM orders o, order_items i LIMIT 1"))[0]
    assert data == {
        "order_id": str(order_id), "number": number, "status": "pending", "currency": "RUB", "total_minor": 20_000,
        "refunded_minor": 0,
        "lines": [{"product_id": product_id, "title": "Ключ 🙂", "quantity": 2, "total_minor": 20_000}],
    }  # fmt: skip
    assert told == {
        "endpoint_id": str(made), "event_id": f"evt_{event_id}_status",
        "event": {"type": "order.status", "timestamp": told["event"]["timestamp"]},
    }  # fmt: skip
    assert msgspec.convert(told["event"]["timestamp"], type(AT)) == AT
    assert "1001" not in payload.replace(str(order_id), "")  # the buyer's Telegram id


async def test_a_move_is_told_under_both_its_names(shelf: Shelf) -> None:
    order_id, event_id = await bought(shelf)
    made = await endpoint(shelf)
    for kind in ("order.delivered", "order.status"):
        assert len(await endpoints.owe(shelf.pg, order_id, event_id, kind, AT)) == 1
    assert {row[0] for row in await shelf.rows(PAYLOADS)} == {f"evt_{event_id}:{made}", f"evt_{event_id}_status:{made}"}


async def test_nothing_is_owed_for_an_order_that_is_not_there(shelf: Shelf) -> None:
    await endpoint(shelf)
    assert await endpoints.owe(shelf.pg, uuid4(), 1, "order.paid", AT) == []


@pytest.mark.parametrize("sign", ["🙂", "\x01", '"', "я"])
async def test_the_longest_order_stays_below_20_kb(shelf: Shelf, sign: str) -> None:
    products = [await shelf.product(kind="made", lead_time_h=1, title=sign * 200) for _ in range(MAX_LINES)]
    new = shelf.cart(*((product, 1) for product in products))
    assert await orders.create(shelf.pg, new)
    await endpoint(shelf)
    await endpoints.owe(shelf.pg, new.order_id, 1, "order.refunded", AT)
    ((_, payload),) = await shelf.rows(PAYLOADS)
    event = msgspec.json.decode(payload)["event"]
    assert len(event["data"]["lines"]) == MAX_LINES
    assert len(msgspec.json.encode(event)) < 20_000


# ---- how a call ends


async def call(shelf: Shelf, made: UUID | None = None) -> tuple[UUID, int]:
    order_id, event_id = await bought(shelf)
    made = made or await endpoint(shelf)
    (owed,) = await endpoints.owe(shelf.pg, order_id, event_id, "order.paid", AT)
    return made, owed


async def state(shelf: Shelf, made: UUID) -> dict[str, Any]:
    query = "SELECT heard_at, failing_since, disabled_why FROM endpoints WHERE id = $1"
    return dict((await shelf.pg.fetch(query, (made,)))[0])


async def test_a_call_that_was_heard_is_done_and_failures_are_forgiven(shelf: Shelf) -> None:
    made, owed = await call(shelf)
    assert await endpoints.fail(shelf.pg, made, gone=False, alert="{}") is None
    assert (await state(shelf, made))["failing_since"]
    lease = await claimed(shelf, owed)
    assert not await endpoints.hear(shelf.pg, Lease(owed, uuid4(), 1), made)  # another attempt's
    assert (await state(shelf, made))["failing_since"]
    assert await endpoints.hear(shelf.pg, lease, made)
    after = await state(shelf, made)
    assert (after["failing_since"], after["disabled_why"]) == (None, None)
    assert after["heard_at"]
    assert await shelf.rows("SELECT state FROM outbox WHERE id = $1", owed) == [("done",)]
    assert not await endpoints.hear(shelf.pg, lease, made)


async def test_days_of_nothing_but_failures_disable_it_once_and_its_people_are_told(shelf: Shelf) -> None:
    made = await endpoint(shelf)
    alert = '{"endpoint": "a.example"}'
    for _ in range(3):
        assert await endpoints.fail(shelf.pg, made, gone=False, alert=alert) is None
    (first,) = await shelf.rows("SELECT failing_since FROM endpoints WHERE id = $1", made)
    await shelf.pg.fetch("UPDATE endpoints SET failing_since = failing_since - interval '5 days 1 second'", ())
    ends = await asyncio.gather(*(endpoints.fail(shelf.pg, made, gone=False, alert=alert) for _ in range(5)))
    assert sorted(end or "" for end in ends) == ["", "", "", "", "failing"]
    ((payload,),) = await shelf.rows("SELECT payload::text FROM outbox WHERE kind = 'alert'")
    assert msgspec.json.decode(payload) == {
        "endpoint": "a.example", "word": "webhook_failing", "seller_id": shelf.seller_id,
    }  # fmt: skip
    assert first[0] is not None


async def test_one_that_is_gone_is_disabled_at_once(shelf: Shelf) -> None:
    made = await endpoint(shelf)
    assert await endpoints.fail(shelf.pg, made, gone=True, alert="{}") == "gone"
    assert await endpoints.fail(shelf.pg, made, gone=True, alert="{}") is None
    found = await endpoints.target(shelf.pg, made)
    assert found
    assert found.disabled_why == "gone"


async def test_a_call_that_finds_no_room_has_not_been_tried(shelf: Shelf) -> None:
    _, owed = await call(shelf)
    lease = await claimed(shelf, owed)
    await endpoints.postpone(shelf.pg, lease, 30)
    ((attempts, later, leased),) = await shelf.rows(
        "SELECT attempts, run_at > now() + interval '20 seconds', lease_until FROM outbox WHERE id = $1", owed
    )
    assert (attempts, later, leased) == (0, True, None)


# ---- what staff do


async def test_replay_by_event_and_by_moment(shelf: Shelf) -> None:
    made = await endpoint(shelf)
    user_id = await staff(shelf)
    owed = [(await call(shelf, made))[1] for _ in range(4)]
    heard, dead, waiting, old = owed
    assert await endpoints.hear(shelf.pg, await claimed(shelf, heard), made)
    for one in (dead, old):
        assert await outbox.bury(shelf.pg, await claimed(shelf, one), "given up")
    await shelf.pg.fetch("UPDATE outbox SET run_at = now() + interval '1 day' WHERE id = $1", (waiting,))
    await shelf.pg.fetch("UPDATE outbox SET created_at = now() - interval '1 day' WHERE id = $1", (old,))
    since = clock.now() - timedelta(hours=1)
    again = await endpoints.replay(shelf.pg, user_id, made, "", since)
    assert [one.id for one in again] == [dead, waiting]
    assert await shelf.rows(
        "SELECT id, state, attempts, run_at <= now() FROM outbox WHERE kind = 'hook' ORDER BY id"
    ) == [(heard, "done", 1, True), (dead, "owed", 0, True), (waiting, "owed", 0, True), (old, "dead", 1, True)]
    ((event_id,),) = await shelf.rows("SELECT payload ->> 'event_id' FROM outbox WHERE id = $1", heard)
    assert [one.id for one in await endpoints.replay(shelf.pg, user_id, made, event_id, None)] == [heard]
    trail = await shelf.rows("SELECT user_id, noun, endpoint_id, what::text FROM changes ORDER BY id")
    assert trail == [(user_id, "webhook", made, f'{{"replayed": {{"new": {n}, "old": null}}}}') for n in (2, 1)]


async def test_what_runs_now_is_not_replayed_and_strangers_replay_nothing(shelf: Shelf) -> None:
    made, owed = await call(shelf)
    other = await catalog.add_seller(shelf.pg, "Other")
    long_ago = clock.now() - timedelta(days=1)
    for stranger in (shelf.user_id, await staff(shelf, seller_id=other)):
        assert await endpoints.replay(shelf.pg, stranger, made, "", long_ago) == []
    await claimed(shelf, owed)
    assert await endpoints.replay(shelf.pg, await staff(shelf), made, "", long_ago) == []
    assert await shelf.rows("SELECT count(*) FROM changes") == [(0,)]


async def test_a_seller_has_so_many_endpoints_and_an_admin_none_of_nobodys(shelf: Shelf) -> None:
    seller, admin = await staff(shelf), await staff(shelf, "admin")

    async def create(user_id: int, seller_id: int | None) -> str:
        made = await endpoints.CREATE(shelf.pg, user_id, new_id(), seller_id, "https://a.example/", [], b"s", 2)
        return made.word

    assert [await create(seller, None), await create(admin, shelf.seller_id), await create(seller, None)] == [
        "created", "created", "full",
    ]  # fmt: skip
    assert await create(admin, None) == "no_seller"
    assert await create(shelf.user_id, shelf.seller_id) == "forbidden"
    assert await create(seller, 10**9) == "no_seller"


async def test_a_deleted_endpoint_has_no_secret_and_is_nobodys(shelf: Shelf) -> None:
    made, seller = await endpoint(shelf), await staff(shelf)
    assert (await endpoints.delete(shelf.pg, shelf.user_id, made)).word == "forbidden"
    assert (await endpoints.delete(shelf.pg, seller, made)).word == "changed"
    assert (await endpoints.delete(shelf.pg, seller, made)).word == "missing"
    assert await shelf.rows("SELECT sealed, former FROM endpoints") == [(None, None)]
    assert await endpoints.find(shelf.pg, seller, made) is None
    assert await endpoints.target(shelf.pg, made) is None
    assert (await endpoints.change(shelf.pg, seller, made, 2, {"enabled": False})).word == "missing"


async def test_the_former_secret_signs_until_its_time_is_over(shelf: Shelf) -> None:
    made, seller = await endpoint(shelf), await staff(shelf)
    assert (await endpoints.ROTATE(shelf.pg, seller, made, b"two", 3600)).word == "changed"
    found = await endpoints.target(shelf.pg, made)
    assert found
    assert (found.sealed, found.former) == (b"two", b"sealed")
    await shelf.pg.fetch("UPDATE endpoints SET former_until = now()", ())
    found = await endpoints.target(shelf.pg, made)
    assert found
    assert (found.sealed, found.former) == (b"two", None)
