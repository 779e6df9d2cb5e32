"""Signed callbacks, many in one statement: each is settled, left to a job, or known; none twice, none lost."""

import asyncio
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from app.base.ids import new_id
from app.base.lease import Lease
from app.base.money import Money
from app.domain import ledger, outbox, payments
from app.domain.payments import Credited, Proof, Signed, Taken, Verdict
from tests.flows.scripted import PRICE, Sold, hear, sell
from tests.world import World


def told(sold: Sold, **changes: object) -> Signed:
    """The callback that pays this order to the kopeck."""
    given = Signed(
        provider="scripted", event_key=f"{sold.invoice}:paid", body=b"raw", headers="{}", invoice_id=sold.invoice,
        order_id=sold.order_id, amount_minor=PRICE, currency="RUB",
    )  # fmt: skip
    return msgspec.structs.replace(given, **changes)


async def outcomes(world: World, signed: list[Signed]) -> list[str]:
    taken = await payments.settle_signed(world.pg, signed)
    assert [one.n for one in taken] == list(range(1, len(signed) + 1))
    return ["known" if one.known else "paid" if one.paid else "job" for one in taken]


async def test_each_of_a_mixed_batch_gets_its_own_outcome(world: World) -> None:
    _, _, sold = await sell(world, 8)
    await world.pg.fetch("UPDATE orders SET status = 'expired' WHERE id = $1", (sold[5].order_id,))
    twice = told(sold[1], event_key="another", invoice_id="another")
    batch = [
        told(sold[0]), told(sold[0]), told(sold[1]), twice, told(sold[2], amount_minor=PRICE - 1),
        told(sold[3], amount_minor=PRICE + 1), told(sold[4], currency="USD"), told(sold[5]),
        told(sold[6], invoice_id="not linked"), told(sold[7], order_id=None),
        told(sold[7], event_key="x", invoice_id="y", order_id=uuid4()),
    ]  # fmt: skip
    expected = ["paid", "known", "paid", "job", "job", "job", "job", "job", "paid", "paid", "job"]
    assert await outcomes(world, batch) == expected
    assert await outcomes(world, batch) == ["known"] * len(batch)
    assert await world.scalar("SELECT count(*) FROM orders WHERE status = 'paid'") == 4
    assert await world.scalar("SELECT count(*) FROM postings") == 4
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'deliver'") == 4
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'settle'") == 6
    inbox = "SELECT count(*) FROM inbox WHERE (state = 'settled') = (order_id IS NOT NULL) AND body = 'raw'"
    assert await world.scalar(inbox) == 10
    assert await ledger.check(world.pg) == []


async def test_a_ring_is_answered_for_each_new_row(world: World) -> None:
    _, _, sold = await sell(world, 3)
    taken = await payments.settle_signed(world.pg, [told(sold[0]), told(sold[1], amount_minor=1), told(sold[0])])
    kinds = [await _kind(world, one) for one in taken]
    assert kinds == ["deliver", "settle", None]


async def _kind(world: World, taken: Taken) -> str | None:
    return await world.scalar("SELECT kind FROM outbox WHERE id = $1", taken.outbox_id) if taken.outbox_id else None


async def test_an_order_that_somebody_is_at_is_left_to_its_job(world: World, pg_url: str) -> None:
    _, _, (busy, free) = await sell(world, 2)
    other = await asyncpg.connect(pg_url)
    async with asyncio.timeout(5):
        async with other.transaction():
            await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", busy.order_id)
            assert await outcomes(world, [told(busy), told(free)]) == ["job", "paid"]
        await other.close()
    assert await world.scalar("SELECT status FROM orders WHERE id = $1", busy.order_id) == "pending"


async def test_the_same_batches_at_once_have_one_effect(world: World) -> None:
    _, _, sold = await sell(world, 40)
    batch = [told(one) for one in sold]
    found = await asyncio.gather(
        *(payments.settle_signed(world.pg, batch[n % 7 :] + batch[: n % 7]) for n in range(12))
    )
    assert sum(one.paid for taken in found for one in taken) <= 40
    jobs = await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'settle'")
    paid = await world.scalar("SELECT count(*) FROM orders WHERE status = 'paid'")
    assert paid + jobs >= 40  # what no batch could have is left to a job, nothing to nobody
    assert await world.scalar("SELECT count(*) FROM inbox") == 40
    assert await world.scalar("SELECT count(*) FROM postings") == paid
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'deliver'") == paid


@pytest.mark.parametrize("how", ["settle", "credit"])
async def test_what_was_booked_while_a_statement_waited_is_not_booked_again(
    world: World, pg_url: str, how: str
) -> None:
    """The order's row is waited for and read anew; the payment's is as old as the statement, and guarded."""
    _, _, (sold,) = await sell(world, 1)
    lease = Lease(await hear(world, sold, "paid", "paid"), new_id(), 60)
    assert await outbox.claim(world.pg, lease)
    proof = Proof(inbox_id=1, provider="scripted", invoice_id=sold.invoice, order_id=None, refunded_minor=0,
                  money=Money(PRICE if how == "settle" else 7000, "RUB"))  # fmt: skip
    verdict = await payments.settle(world.pg, lease, proof) if how == "credit" else None
    other = await asyncpg.connect(pg_url)
    async with other.transaction():
        await other.execute("SELECT FROM orders WHERE id = $1 FOR UPDATE", sold.order_id)
        waiting: asyncio.Task[Verdict | Credited | None] = asyncio.create_task(
            payments.credit(world.pg, lease, proof, verdict, 60) if verdict else payments.settle(world.pg, lease, proof)
        )
        for _ in range(1000):
            if await world.scalar("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                break
            await asyncio.sleep(0.01)
        await other.execute("UPDATE payments SET received_minor = 6000, status = 'credited'")
    await other.close()
    found = await waiting
    assert found is None or (isinstance(found, Verdict) and not found.booked)
    assert await world.scalar("SELECT count(*) FROM postings") == 0
    assert await world.scalar("SELECT status FROM orders") == "pending"
    world.keeps_books = False  # the other's half was played


async def test_money_that_can_pay_its_order_by_now_is_not_credited(world: World) -> None:
    """Two jobs saw the order expired; one has claimed its goods again, and the other must judge again."""
    _, _, (sold,) = await sell(world, 1)
    lease = Lease(await hear(world, sold, "paid", "paid"), new_id(), 60)
    assert await outbox.claim(world.pg, lease)
    proof = Proof(inbox_id=1, provider="scripted", invoice_id=sold.invoice, order_id=None, refunded_minor=0,
                  money=Money(PRICE, "RUB"))  # fmt: skip
    await world.pg.fetch("UPDATE orders SET status = 'expired'", ())
    verdict = await payments.settle(world.pg, lease, proof)
    assert verdict is not None
    assert verdict.word == "late"
    await world.pg.fetch("UPDATE orders SET status = 'pending'", ())
    assert await payments.credit(world.pg, lease, proof, verdict, 60) is None
    assert (await payments.settle(world.pg, lease, proof)).word == "paid"  # type: ignore[union-attr]
