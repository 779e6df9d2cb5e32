"""The outbox rows: one attempt at a time, and nothing from an attempt that has lost its lease."""

import asyncio
from uuid import UUID

import msgspec

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import orders, outbox
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

OWE = "INSERT INTO outbox (kind, key, payload) VALUES ('tell', $1, '{\"a\": 1}') RETURNING id"
LINE = "INSERT INTO outbox (kind, key, payload, aggregate) VALUES ('tell', $1, '{}', $2) RETURNING id"
ROW = "SELECT state, attempts, last_error, lease_until IS NULL, done_at IS NOT NULL FROM outbox WHERE id = $1"
LAPSE = "UPDATE outbox SET lease_until = now() - interval '1 second' WHERE id = $1"


async def owed(pg: Postgres) -> int:
    ((outbox_id,),) = await pg.fetch(OWE, (str(new_id()),))
    return int(outbox_id)


def attempt(outbox_id: int, lease_s: int = 60) -> Lease:
    return Lease(outbox_id, new_id(), lease_s)


async def in_line(pg: Postgres, aggregate: str = "a:1") -> int:
    ((outbox_id,),) = await pg.fetch(LINE, (str(new_id()), aggregate))
    return int(outbox_id)


async def due(pg: Postgres, *, grace_ms: int, size: int) -> list[int]:
    return [found.id for found in await outbox.due(pg, grace_ms=grace_ms, size=size)]


async def row(pg: Postgres, outbox_id: int) -> tuple[object, ...]:
    return tuple((await pg.fetch(ROW, (outbox_id,)))[0])


async def test_a_row_is_one_attempts_at_a_time(pg: Postgres) -> None:
    outbox_id = await owed(pg)
    claims = await asyncio.gather(*(outbox.claim(pg, attempt(outbox_id)) for _ in range(10)))
    (job,) = [claim for claim in claims if claim]
    assert msgspec.structs.replace(job, late_ms=0) == outbox.Job(outbox_id, "tell", '{"a": 1}', 1)


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


async def test_jobs_of_one_aggregate_are_done_one_after_another_in_their_order(pg: Postgres) -> None:
    first, second, third = [await in_line(pg) for _ in range(3)]
    other = await in_line(pg, "a:2")
    assert await due(pg, grace_ms=0, size=9) == [first, other]  # the relay does not look at those that wait
    for early in (second, third):
        assert await outbox.claim(pg, attempt(early)) is None
    mine = attempt(first)
    assert await outbox.claim(pg, mine)
    assert await outbox.claim(pg, attempt(second)) is None
    assert await due(pg, grace_ms=0, size=9) == [other]
    assert await outbox.finish(pg, mine) == outbox.Closed(first, second)
    assert await outbox.claim(pg, attempt(third)) is None
    mine = attempt(second)
    assert await outbox.claim(pg, mine)
    assert await outbox.finish(pg, mine) == outbox.Closed(second, third)
    mine = attempt(third)
    assert await outbox.claim(pg, mine)
    assert await outbox.finish(pg, mine) == outbox.Closed(third, None)
    assert await outbox.claim(pg, attempt(other))


async def test_a_retry_holds_up_those_behind_it(pg: Postgres) -> None:
    first, second = [await in_line(pg) for _ in range(2)]
    mine = attempt(first)
    await outbox.claim(pg, mine)
    await outbox.retry(pg, mine, 60.0, "later")
    assert await outbox.claim(pg, attempt(second)) is None
    assert await due(pg, grace_ms=0, size=9) == []


async def test_a_dead_letter_holds_up_nobody(pg: Postgres) -> None:
    first, second = [await in_line(pg) for _ in range(2)]
    mine = attempt(first)
    await outbox.claim(pg, mine)
    assert await outbox.bury(pg, mine, "never") == outbox.Closed(first, second)
    assert await outbox.claim(pg, attempt(second))


async def test_who_finishes_wakes_nobody_of_another_aggregate(pg: Postgres) -> None:
    alone, _, behind = await owed(pg), await in_line(pg), await owed(pg)
    mine = attempt(alone)
    await outbox.claim(pg, mine)
    assert await outbox.finish(pg, mine) == outbox.Closed(alone, None)
    assert await outbox.claim(pg, attempt(behind))


async def test_a_job_that_was_committed_later_with_an_earlier_id_has_the_next_turn(pg: Postgres) -> None:
    """Ids are taken before the commit: order is promised among what was committed before the claim."""
    async with pg.pool.acquire() as slow:
        began = slow.transaction()
        await began.start()
        early = await slow.fetchval(LINE, "early", "a:1")
        late, last = await in_line(pg), await in_line(pg)
        assert early < late
        mine = attempt(late)
        assert await outbox.claim(pg, mine)
        await began.commit()
    assert await outbox.claim(pg, attempt(last)) is None
    assert await outbox.finish(pg, mine) == outbox.Closed(late, early)


async def test_of_crowds_of_claims_in_one_aggregate_never_two_run_and_all_are_done(pg: Postgres) -> None:
    ids = [await in_line(pg) for _ in range(12)]
    running, order = 0, list[int]()

    async def worker() -> None:
        nonlocal running
        while len(order) < len(ids):
            for outbox_id in reversed(ids):
                mine = attempt(outbox_id)
                if await outbox.claim(pg, mine):
                    running += 1
                    assert running == 1
                    await asyncio.sleep(0)
                    running -= 1
                    order.append(outbox_id)
                    assert await outbox.finish(pg, mine)

    await asyncio.gather(*(worker() for _ in range(4)))
    assert order == ids


async def test_a_delivery_by_an_attempt_that_lost_its_lease_delivers_nothing(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.unit(product)
    new = shelf.cart((product, 1))
    await orders.create(shelf.pg, new)
    await shelf.pg.fetch("UPDATE orders SET status = 'paid', paid_at = now()", ())
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


async def test_a_delivery_does_not_overtake_an_earlier_message_about_the_order(shelf: Shelf) -> None:
    product = await shelf.product()
    await shelf.unit(product)
    new = shelf.cart((product, 1))
    await orders.create(shelf.pg, new)
    await shelf.pg.fetch("UPDATE orders SET status = 'paid', paid_at = now()", ())
    earlier = await in_line(shelf.pg, f"tell:{new.order_id}")
    mine = attempt(await owed(shelf.pg))
    await outbox.claim(shelf.pg, mine)
    delivered = await orders.deliver(shelf.pg, mine, new.order_id, [])
    assert delivered is not None
    assert (delivered.status, delivered.outbox_id) == ("delivered", None)  # nothing to go on with
    teller = attempt(earlier)
    assert await outbox.claim(shelf.pg, teller)
    closed = await outbox.finish(shelf.pg, teller)
    assert closed is not None
    assert closed.next_id is not None
    news = await outbox.claim(shelf.pg, attempt(closed.next_id))
    assert news is not None
    assert (news.kind, news.attempts) == ("tell", 1)


async def states(shelf: Shelf, order_id: UUID) -> tuple[str, str, str]:
    """Of the order, of its line, of the unit."""
    (found,) = await shelf.rows(
        "SELECT o.status, i.state, s.state FROM orders o JOIN order_items i ON i.order_id = o.id"
        " JOIN stock_items s ON s.id = i.stock_item_id WHERE o.id = $1",
        order_id,
    )
    order, line, unit = found
    return order, line, unit
