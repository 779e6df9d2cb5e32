"""The figures: each says what was planted, and nothing else moves."""

from collections.abc import Mapping
from uuid import UUID

from app.base.ids import new_id
from app.domain import figures, orders
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

OWE = """
INSERT INTO outbox (kind, key, payload, state, run_at, lease_until)
VALUES ($1, $2, '{}', $3, now() - $4::int * interval '1 second', now() + $5::int * interval '1 second')"""
PAID = "UPDATE orders SET status = $2, paid_at = now() - $3::int * interval '1 second' WHERE id = $1"
MOVED = """
INSERT INTO order_events (order_id, from_status, to_status, role, at)
VALUES ($1, $2, $3, $4, (SELECT created_at FROM orders WHERE id = $1) + $5::int * interval '1 second')"""
AGED = "UPDATE orders SET created_at = now() - $2::int * interval '1 second' WHERE id = $1"

Told = Mapping[tuple[str, str], int]


async def told(pg: Postgres) -> Told:
    return {(found.figure, found.of): found.value for found in await figures.read(pg)}


async def owe(
    pg: Postgres, kind: str, key: str, *, state: str = "owed", late_s: int = 0, leased_s: int | None = None
) -> None:
    await pg.fetch(OWE, (kind, key, state, late_s, leased_s))


async def sold(shelf: Shelf) -> UUID:
    """An unpaid order."""
    product = await shelf.product()
    await shelf.units(product, 1)
    order = shelf.cart((product, 1))
    assert await orders.create(shelf.pg, order)
    return order.order_id


def near(value_ms: int, expected_s: int) -> bool:
    return expected_s * 1000 <= value_ms < expected_s * 1000 + 60_000


async def test_an_empty_shop_has_nothing_that_waits(pg: Postgres) -> None:
    assert await told(pg) == {
        ("undelivered", ""): 0, ("undelivered_oldest", ""): 0, ("to_poll", ""): 0, ("to_poll_oldest", ""): 0,
        ("review", ""): 0,
    }  # fmt: skip


async def test_jobs_by_kind_and_since_when(pg: Postgres) -> None:
    await owe(pg, "tell", "late", late_s=300)
    await owe(pg, "tell", "later", late_s=100)
    await owe(pg, "tell", "waits for its retry", late_s=-500)
    await owe(pg, "settle", "somebody has it", late_s=900, leased_s=30)
    await owe(pg, "rank", "its worker died", late_s=700, leased_s=-1)
    await owe(pg, "alert", "done", state="done", late_s=5000)
    await owe(pg, "alert", "dropped", state="dropped", late_s=5000)
    await owe(pg, "tell", "dead", state="dead", late_s=9000)
    found = await told(pg)
    assert {of: value for (figure, of), value in found.items() if figure == "owed"} == {
        "tell": 3,
        "settle": 1,
        "rank": 1,
    }
    assert {of: value for (figure, of), value in found.items() if figure == "dead"} == {
        "tell": 1,
        "settle": 0,
        "rank": 0,
    }
    assert near(found["oldest", "tell"], 300)
    assert found["oldest", "settle"] == 0
    assert near(found["oldest", "rank"], 700)


async def test_paid_orders_whose_delivery_is_owed_or_dead(pg: Postgres) -> None:
    shelf = await Shelf.opened(pg)
    for state, status, age_s in (
        ("owed", "paid", 100), ("dead", "paid", 400), ("done", "delivered", 900), ("done", "paid", 950),
        ("owed", "cancelled", 800), ("dropped", "paid", 850),
    ):  # fmt: skip
        order_id = await sold(shelf)
        await pg.fetch(PAID, (order_id, status, age_s))
        await owe(pg, "deliver", str(order_id), state=state)
    await owe(pg, "deliver", "no order's id")
    await owe(pg, "deliver", str(new_id()))
    unpaid = await sold(shelf)
    await owe(pg, "deliver", str(unpaid))
    found = await told(pg)
    assert found["undelivered", ""] == 2
    assert near(found["undelivered_oldest", ""], 400)


async def test_how_long_the_orders_of_the_last_minutes_took(pg: Postgres) -> None:
    shelf = await Shelf.opened(pg)
    for took_s in (10, 20, 200):
        order_id = await sold(shelf)
        await pg.fetch(AGED, (order_id, took_s + 5))
        await pg.fetch(MOVED, (order_id, "pending", "paid", "gateway", took_s))
        await pg.fetch(MOVED, (order_id, "paid", "paid", "gateway", took_s))  # a note, not a move
        await pg.fetch(PAID, (order_id, "paid", 5))
        await pg.fetch(MOVED, (order_id, "paid", "delivered", "system", took_s + 3))
    long_ago = await sold(shelf)
    await pg.fetch(AGED, (long_ago, 5000))
    await pg.fetch(MOVED, (long_ago, "pending", "paid", "gateway", 4000))
    by_hand = await sold(shelf)
    await pg.fetch(PAID, (by_hand, "paid", 0))
    await pg.fetch(MOVED, (by_hand, "paid", "confirmed", "seller", 0))
    found = await told(pg)
    lags = {key: value for key, value in found.items() if key[0].startswith("took")}
    assert lags["took", "reserved_to_paid"] == lags["took", "paid_to_delivered"] == 3
    assert (lags["took_half", "reserved_to_paid"], lags["took_most", "reserved_to_paid"]) == (20_000, 200_000)
    assert 2_000 <= lags["took_half", "paid_to_delivered"] <= 3_000  # paid "5 s ago", a statement or two later
    assert len(lags) == 6


async def test_invoices_to_ask_about_and_events_for_a_human(pg: Postgres) -> None:
    shelf = await Shelf.opened(pg)
    for poll_s in (60, 600, -60):
        order_id = await sold(shelf)
        await pg.fetch(
            "UPDATE payments SET poll_at = now() - $2::int * interval '1 second' WHERE order_id = $1",
            (order_id, poll_s),
        )
    for key, state in (("a", "review"), ("b", "review"), ("c", "settled"), ("d", "new")):
        text = "INSERT INTO inbox (provider, event_key, body, headers, state) VALUES ('crystalpay', $1, 'x', '{}', $2)"
        await pg.fetch(text, (key, state))
    found = await told(pg)
    assert (found["to_poll", ""], found["review", ""]) == (2, 2)
    assert near(found["to_poll_oldest", ""], 600)
