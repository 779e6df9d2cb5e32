"""The outbox row is the job: claimed by one attempt at a time, fenced by its id, never lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import outbox
from app.infra.sql import Postgres


async def owe(pg: Postgres, *, kind: str = "tell", payload: str = '{"a": 1}', run_in_s: float = 0) -> int:
    (row,) = await pg.fetch(
        "INSERT INTO outbox (kind, key, payload, run_at)"
        " VALUES ($1, $2, $3::text::jsonb, now() + $4::float8 * interval '1 second') RETURNING id",
        (kind, str(uuid4()), payload, run_in_s),
    )
    outbox_id: int = row["id"]
    return outbox_id


async def row(pg: Postgres, outbox_id: int) -> Any:
    query = (
        "SELECT state, attempts, last_error, lease_until, done_at IS NOT NULL AS done, payload::text AS payload,"
        " extract(epoch FROM run_at - now())::float8 AS wait_s FROM outbox WHERE id = $1"
    )
    return (await pg.fetch(query, (outbox_id,)))[0]


async def let_lapse(pg: Postgres, outbox_id: int) -> None:
    """The lease is over, as if its time had passed."""
    await pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 ms' WHERE id = $1", (outbox_id,))


def attempt(outbox_id: int, lease_s: int = 5) -> Lease:
    return Lease(outbox_id, new_id(), lease_s)


async def test_a_claim_tells_what_to_do(pg: Postgres) -> None:
    outbox_id = await owe(pg, kind="deliver")
    job = await outbox.claim(pg, attempt(outbox_id))
    assert job
    assert msgspec.structs.replace(job, late_ms=0) == outbox.Job(outbox_id, "deliver", '{"a": 1}', 1)


async def test_a_claimed_row_is_nobody_elses(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    assert await outbox.claim(pg, attempt(outbox_id)) is not None
    assert await outbox.claim(pg, attempt(outbox_id)) is None
    assert (await row(pg, outbox_id))["attempts"] == 1


async def test_of_many_claims_at_once_one_wins(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    claims = await asyncio.gather(*(outbox.claim(pg, attempt(outbox_id)) for _ in range(20)))
    assert sum(claim is not None for claim in claims) == 1


async def test_a_row_that_is_not_due_done_dead_or_unknown_is_not_claimed(pg: Postgres) -> None:
    later, done, dead = await owe(pg, run_in_s=60), await owe(pg), await owe(pg)
    one, other = attempt(done), attempt(dead)
    await outbox.claim(pg, one)
    await outbox.claim(pg, other)
    assert await outbox.finish(pg, one)
    assert await outbox.bury(pg, other, "never")
    for outbox_id in (later, done, dead, 10**9):
        assert await outbox.claim(pg, attempt(outbox_id)) is None


async def test_a_lapsed_lease_frees_the_row(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    await outbox.claim(pg, attempt(outbox_id, lease_s=1))
    assert [row.id for row in await outbox.due(pg, grace_ms=0, size=10)] == []
    await asyncio.sleep(1.05)
    assert [row.id for row in await outbox.due(pg, grace_ms=0, size=10)] == [outbox_id]
    job = await outbox.claim(pg, attempt(outbox_id))
    assert job is not None
    assert job.attempts == 2


@pytest.mark.parametrize("act", ["finish", "extend", "retry", "give_back", "bury"])
async def test_an_attempt_that_lost_its_lease_can_do_nothing(pg: Postgres, act: str) -> None:
    outbox_id = await owe(pg)
    stale, current = attempt(outbox_id), attempt(outbox_id)
    acts: dict[str, Callable[[Lease], Awaitable[object]]] = {
        "finish": lambda lease: outbox.finish(pg, lease),
        "extend": lambda lease: outbox.extend(pg, lease),
        "retry": lambda lease: outbox.retry(pg, lease, 0.0, "stale"),
        "give_back": lambda lease: outbox.give_back(pg, lease),
        "bury": lambda lease: outbox.bury(pg, lease, "stale"),
    }
    await outbox.claim(pg, stale)
    await let_lapse(pg, outbox_id)
    await outbox.claim(pg, current)
    before = await row(pg, outbox_id)
    assert not await acts[act](stale)
    after = await row(pg, outbox_id)
    assert (after["state"], after["last_error"], after["lease_until"]) == ("owed", "", before["lease_until"])
    assert await acts[act](current)


async def test_a_lapsed_lease_that_nobody_took_is_still_good(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    slow = attempt(outbox_id)
    await outbox.claim(pg, slow)
    await let_lapse(pg, outbox_id)
    assert await outbox.extend(pg, slow)
    assert await outbox.claim(pg, attempt(outbox_id)) is None
    assert await outbox.finish(pg, slow)


async def test_a_finished_row_is_finished_once(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    lease = attempt(outbox_id)
    await outbox.claim(pg, lease)
    assert await outbox.finish(pg, lease)
    for again in (outbox.finish(pg, lease), outbox.extend(pg, lease), outbox.retry(pg, lease, 0, "x")):
        assert not await again
    after = await row(pg, outbox_id)
    assert (after["state"], after["done"]) == ("done", True)


async def test_a_retry_frees_the_row_from_its_moment_on(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    lease = attempt(outbox_id)
    await outbox.claim(pg, lease)
    assert await outbox.retry(pg, lease, 30.5, "e" * 5000)
    after = await row(pg, outbox_id)
    assert (after["state"], after["lease_until"], after["last_error"]) == ("owed", None, "e" * 1000)
    assert 29 < after["wait_s"] <= 30.5
    assert await outbox.claim(pg, attempt(outbox_id)) is None
    assert [row.id for row in await outbox.due(pg, grace_ms=0, size=10)] == []


async def test_a_dead_letter_keeps_payload_and_error(pg: Postgres) -> None:
    outbox_id = await owe(pg, payload='{"order": 7}')
    lease = attempt(outbox_id)
    await outbox.claim(pg, lease)
    assert await outbox.bury(pg, lease, "ValueError('no')")
    after = await row(pg, outbox_id)
    assert (after["state"], after["payload"], after["last_error"], after["lease_until"]) == (
        "dead", '{"order": 7}', "ValueError('no')", None,
    )  # fmt: skip


async def test_due_rows_come_oldest_first_after_their_grace(pg: Postgres) -> None:
    old, older, fresh, _ = [await owe(pg, run_in_s=when) for when in (-10, -20, 0, 60)]
    taken = await owe(pg, run_in_s=-30)
    await outbox.claim(pg, attempt(taken))
    assert [row.id for row in await outbox.due(pg, grace_ms=500, size=10)] == [older, old]
    assert [row.id for row in await outbox.due(pg, grace_ms=0, size=10)] == [older, old, fresh]
    assert [row.id for row in await outbox.due(pg, grace_ms=0, size=1)] == [older]


async def test_an_effect_is_owed_once(pg: Postgres) -> None:
    await pg.fetch("INSERT INTO outbox (kind, key, payload) VALUES ('tell', 'k', '{}')", ())
    with pytest.raises(Exception, match="outbox_kind_key_key"):
        await pg.fetch("INSERT INTO outbox (kind, key, payload) VALUES ('tell', 'k', '{}')", ())


@pytest.mark.parametrize(
    ("attempts", "ceiling_s"), [(1, 5), (2, 5), (3, 5), (4, 10), (5, 20), (10, 640), (11, 900), (15, 900), (1000, 900)]
)
def test_waits_are_spread_below_a_growing_ceiling(attempts: int, ceiling_s: float) -> None:
    waits = [outbox.GROWING.delay_s(attempts) for _ in range(500)]
    assert min(waits) >= 0.1
    assert ceiling_s * 0.9 < max(waits) <= ceiling_s
    assert min(waits) < ceiling_s * 0.1 + 0.1


def test_a_ladder_has_its_own_wait_for_each_try_never_less_and_little_more() -> None:
    ladder = outbox.Ladder((5.0, 300.0, 1800.0))
    for attempts, wait_s in ((1, 5), (2, 300), (3, 1800), (4, 1800), (99, 1800)):
        waits = [ladder.delay_s(attempts) for _ in range(200)]
        assert wait_s <= min(waits) < wait_s * 1.02
        assert wait_s * 1.08 < max(waits) <= wait_s * 1.1


class Told(msgspec.Struct):
    n: int


@pytest.mark.parametrize("payload", ["", "{", "[]", "null", "{}", '{"n": "1"}', '{"n": 1} x', '{"n": "\ud800"}'])
def test_what_is_not_the_payload_of_its_kind_is_a_bad_payload(payload: str) -> None:
    with pytest.raises(outbox.BadPayload):
        outbox.Job(1, "trial", payload, 1).read(msgspec.json.Decoder(Told))


def test_a_payload_is_read_as_its_kind_says() -> None:
    assert outbox.Job(1, "trial", '{"n": 7, "more": 1}', 1).read(msgspec.json.Decoder(Told)) == Told(7)


async def test_what_is_given_back_keeps_its_tries_and_its_error(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    lease = attempt(outbox_id)
    await outbox.claim(pg, lease)
    await outbox.retry(pg, lease, 0, "the first one failed")
    await outbox.claim(pg, lease)
    assert await outbox.give_back(pg, lease)
    after = await row(pg, outbox_id)
    assert (after["attempts"], after["last_error"], after["lease_until"]) == (1, "the first one failed", None)
    assert not await outbox.extend(pg, lease)
    job = await outbox.claim(pg, attempt(outbox_id))
    assert job is not None
    assert (job.attempts, job.orphaned) == (2, 0)


async def test_attempts_that_were_never_heard_of_again_are_counted_until_one_is(pg: Postgres) -> None:
    outbox_id = await owe(pg)
    for died in range(3):
        lease = attempt(outbox_id)
        job = await outbox.claim(pg, lease)
        assert job is not None
        assert job.orphaned == died
        await let_lapse(pg, outbox_id)
    lease = attempt(outbox_id)
    await outbox.claim(pg, lease)
    await outbox.retry(pg, lease, 0, "failed, and said so")
    job = await outbox.claim(pg, attempt(outbox_id))
    assert job is not None
    assert (job.attempts, job.orphaned) == (5, 0)
