"""The outbox rows: one attempt at a time, and nothing from an attempt that has lost its lease."""

import asyncio
from uuid import UUID

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import orders, outbox
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

OWE = "INSERT INTO outbox (kind, key, payload) VALUES ('tell', $1, '{\"a\": 1}') RETURNING id"
ROW = "SELECT state, attempts, last_error, lease_until IS NULL, done_at IS NOT NULL FROM outbox WHERE id = $1"
LAPSE = "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE id = $1"


async def owed(pg: Postgres) -> int:
    ((outbox_id,),) = await pg.fetch(OWE, (str(new_id()),))
    return int(outbox_id)


def attempt(outbox_id: int, lease_s: int = 60) -> Lease:
    return Lease(outbox_id, new_id(), lease_s)


async def due(pg: Postgres, *, grace_ms: int, size: int) -> list[int]:
    return [found.id for found in await outbox.due(pg, grace_ms=grace_ms, size=size)]


async def row(pg: Postgres, outbox_id: int) -> tuple[object, ...]:
    return tuple((await pg.fetch(ROW, (outbox_id,)))[0])


async def test_a_row_is_one_attempts_at_a_time(pg: Postgres) -> None:
    outbox_id = await owed(pg)
    claims = await asyncio.gather(*(outbox.claim(pg, attempt(outbox_id)) for _ in range(10)))
    assert [claim for claim in claims if claim] == [outbox.Job(outbox_id, "tell", '{"a": 1}', 1)]


async def test_a_row_that_is_not_there_is_nobodys(pg: Postgres) -> None:
    assert await outbox.claim(pg, attempt(404)) is None
    assert not await outbox.finish(pg, attempt(404))


async def test_a_sign_of_life_that_comes_after_the_failure_takes_nothing_back(pg: Postgres) -> None:
    mine = attempt(await owed(pg))
    await outbox.claim(pg, mine)
    assert await outbox.retry(pg, mine, 0, "failed")
    assert not await outbox.extend(pg, mine)
    assert await outbox.claim(pg, attempt(mine.outbox_id))


async def test_a_done_row_stays_done(pg: Postgres) -> None:
    mine = attempt(await owed(pg))
    await outbox.claim(pg, mine)
    assert await outbox.finish(pg, mine)
    assert await row(pg, mine.outbox_id) == ("done", 1, "", False, True)
    assert not await outbox.finish(pg, mine)
    assert not await outbox.extend(pg, mine)
    assert not await outbox.retry(pg, mine, 0, "late")
    assert not await outbox.bury(pg, mine, "late")
    assert await outbox.claim(pg, attempt(mine.outbox_id)) is None


async def test_an_attempt_that_lost_its_lease_writes_nothing(pg: Postgres) -> None:
    slow = attempt(await owed(pg))
    await outbox.claim(pg, slow)
    await pg.fetch(LAPSE, (slow.outbox_id,))
    quick = attempt(slow.outbox_id)
    job = await outbox.claim(pg, quick)
    assert job is not None
    assert job.attempts == 2
    before = await row(pg, slow.outbox_id)
    assert not await outbox.finish(pg, slow)
    assert not await outbox.extend(pg, slow)
    assert not await outbox.retry(pg, slow, 0, "slow")
    assert not await outbox.bury(pg, slow, "slow")
    assert await row(pg, slow.outbox_id) == before
    assert await outbox.finish(pg, quick)


async def test_a_sign_of_life_keeps_the_lease(pg: Postgres) -> None:
    mine = attempt(await owed(pg))
    await outbox.claim(pg, mine)
    await pg.fetch(LAPSE, (mine.outbox_id,))
    assert await outbox.extend(pg, mine)  # late, and nobody had come
    assert await outbox.claim(pg, attempt(mine.outbox_id)) is None


async def test_a_retry_waits_and_keeps_the_error(pg: Postgres) -> None:
    mine = attempt(await owed(pg))
    await outbox.claim(pg, mine)
    assert await outbox.retry(pg, mine, 30.0, "x" * 2000)
    assert await row(pg, mine.outbox_id) == ("owed", 1, "x" * 1000, True, False)
    assert await outbox.claim(pg, attempt(mine.outbox_id)) is None
    assert await due(pg, grace_ms=0, size=9) == []
    await pg.fetch("UPDATE outbox SET run_at = now()", ())
    assert await due(pg, grace_ms=0, size=9) == [mine.outbox_id]
    assert await outbox.claim(pg, attempt(mine.outbox_id)) is not None


async def test_a_dead_letter_is_kept_and_left_alone(pg: Postgres) -> None:
    mine = attempt(await owed(pg))
    await outbox.claim(pg, mine)
    assert await outbox.bury(pg, mine, "for ever")
    assert await row(pg, mine.outbox_id) == ("dead", 1, "for ever", True, False)
    assert await due(pg, grace_ms=0, size=9) == []
    assert await outbox.claim(pg, attempt(mine.outbox_id)) is None


async def test_what_is_due_is_found_the_oldest_first(pg: Postgres) -> None:
    ids = [await owed(pg) for _ in range(4)]
    for age_s, outbox_id in zip((10, 40, 30, 20), ids, strict=True):
        await pg.fetch(
            "UPDATE outbox SET run_at = now() - $1::int * interval '1 second' WHERE id = $2", (age_s, outbox_id)
        )
    assert await due(pg, grace_ms=0, size=9) == [ids[1], ids[2], ids[3], ids[0]]
    assert await due(pg, grace_ms=25_000, size=9) == ids[1:3]
    assert await due(pg, grace_ms=0, size=1) == [ids[1]]
    await outbox.claim(pg, attempt(ids[1]))
    assert await due(pg, grace_ms=0, size=9) == [ids[2], ids[3], ids[0]]
    await pg.fetch(LAPSE, (ids[1],))
    assert await due(pg, grace_ms=0, size=1) == [ids[1]]


async def test_a_delivery_by_an_attempt_that_lost_its_lease_delivers_nothing(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.unit(product)
    new = shelf.cart((product, 1))
    await orders.create(shelf.pg, new)
    await shelf.pg.fetch("UPDATE orders SET status = 'paid'", ())
    slow = attempt(await owed(shelf.pg))
    await outbox.claim(shelf.pg, slow)
    await shelf.pg.fetch(LAPSE, (slow.outbox_id,))
    quick = attempt(slow.outbox_id)
    await outbox.claim(shelf.pg, quick)
    assert await orders.deliver(shelf.pg, slow, new.order_id, []) is None
    assert await states(shelf, new.order_id) == ("paid", "held", "held")
    delivered = await orders.deliver(shelf.pg, quick, new.order_id, ["alert"])
    assert delivered is not None
    assert delivered.status == "delivered"
    assert await states(shelf, new.order_id) == ("delivered", "delivered", "sold")
    assert await orders.deliver(shelf.pg, quick, new.order_id, ["alert"]) is None
    assert await shelf.rows("SELECT count(*) FROM outbox WHERE kind = 'tell'") == [(2,)]  # `owed` above, and the news


async def states(shelf: Shelf, order_id: UUID) -> tuple[str, str, str]:
    """Of the order, of its line, of the unit."""
    (found,) = await shelf.rows(
        "SELECT o.status, i.state, s.state FROM orders o JOIN order_items i ON i.order_id = o.id"
        " JOIN stock_items s ON s.id = i.stock_item_id WHERE o.id = $1",
        order_id,
    )
    order, line, unit = found
    return order, line, unit
