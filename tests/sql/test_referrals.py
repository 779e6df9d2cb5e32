"""Bonuses are there once for each order and level, and back to the last minor unit, in whatever order the jobs run."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import customers, ledger, outbox, referrals
from app.domain.referrals import Clawed, Invited, Rewarded
from app.infra.sql import Postgres
from tests.sql.shelf import Shelf

SHARES = [1000, 700, 300]
ORDER = """
INSERT INTO orders (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash, expires_at,
                    paid_at, paid_by)
SELECT $1, $2, min(id), $5, $4, $3, gen_random_uuid()::text, sha256('x'), now(), now(),
       CASE WHEN $5 <> 'pending' THEN 'test:' || $1::uuid END FROM sellers"""
JOB = "INSERT INTO outbox (kind, key, payload, attempt_id) VALUES ($1, $2, '{}', $3) RETURNING id"
BONUSES = "SELECT level, user_id, amount_minor, clawed_minor FROM referral_bonuses WHERE order_id = $1 ORDER BY level"
# What this user has from bonuses, less what was spent and is owed, as the rows of the bonuses say.
EARNED = "SELECT coalesce(sum(amount_minor - clawed_minor), 0)::int8 FROM referral_bonuses WHERE user_id = $1"
MONEY = {"zero sum", "balance", "debt", "no balance kept"}
WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""


class Family:
    """Somebody who buys, whom somebody brought, whom somebody brought …; the last was brought by nobody."""

    def __init__(self, shelf: Shelf, ids: list[int]) -> None:
        self.shelf, self.pg, self.ids = shelf, shelf.pg, ids

    @classmethod
    async def made(cls, shelf: Shelf, size: int = 5) -> "Family":
        ids = [shelf.user_id]
        for _ in range(size - 1):
            ids.append(await enter(shelf.pg, ids[-1]))
        return cls(shelf, ids[::-1])

    async def sale(
        self, total_minor: int, *, buyer: int | None = None, currency: str = "RUB", status: str = "paid"
    ) -> UUID:
        order_id = new_id()
        await self.pg.fetch(ORDER, (order_id, buyer or self.ids[0], total_minor, currency, status))
        return order_id

    async def reward(self, order_id: UUID, shares: list[int] | None = None) -> Rewarded | None:
        lease = await leased(self.pg, "reward")
        return await referrals.reward(self.pg, lease, order_id, SHARES if shares is None else shares)

    async def claw(self, order_id: UUID) -> Clawed | None:
        return await referrals.claw_back(self.pg, await leased(self.pg, "clawback"), order_id)

    async def refund(self, order_id: UUID, refunded_minor: int) -> None:
        await self.pg.fetch("UPDATE orders SET refunded_minor = $2 WHERE id = $1", (order_id, refunded_minor))

    async def spend(self, user_id: int, left_minor: int) -> None:
        """The user's balance is `left_minor`; where the rest went is posted too."""
        (row,) = await self.pg.fetch("SELECT balance_minor FROM balances WHERE user_id = $1", (user_id,))
        await self.pg.fetch(
            "WITH spent AS (UPDATE balances SET balance_minor = $2 WHERE user_id = $1) INSERT INTO postings (reference,"
            " debit, credit, amount_minor, currency, reason, user_id)"
            " VALUES ($3, 'buyer:' || $1::int8, 'bonuses', $4, 'RUB', 'from_balance', $1)",
            (user_id, left_minor, str(uuid4()), row[0] - left_minor),
        )

    async def bonuses(self, order_id: UUID) -> list[tuple[int, ...]]:
        return await self.shelf.rows(BONUSES, order_id)

    async def owned(self, user_id: int) -> tuple[int, int]:
        """Balance and debt."""
        found = await ledger.balances(self.pg, user_id)
        return (found[0].balance_minor, found[0].debt_minor) if found else (0, 0)

    async def check(self) -> None:
        """Every balance and debt is the sum of its postings."""
        assert [fault for fault in await ledger.check(self.pg) if fault.rule in MONEY] == []


async def enter(pg: Postgres, referrer_id: int | None, telegram_id: int = 0) -> int:
    telegram_id = telegram_id or uuid4().int >> 80
    entered = await customers.enter(
        pg, telegram_id=telegram_id, name="Bob", username=None, language="en", is_admin=False, referrer_id=referrer_id
    )
    return entered.id


async def leased(pg: Postgres, kind: str) -> Lease:
    attempt_id = uuid4()
    (row,) = await pg.fetch(JOB, (kind, str(attempt_id), attempt_id))
    return Lease(row["id"], attempt_id, 5)


# ---- who brought whom


async def test_who_is_new_has_a_referrer_and_keeps_it(shelf: Shelf) -> None:
    other = await enter(shelf.pg, None)
    bob = await enter(shelf.pg, shelf.user_id, 77)
    assert await enter(shelf.pg, other, 77) == bob
    assert await enter(shelf.pg, None, 77) == bob
    late = await enter(shelf.pg, None, 78)
    assert await enter(shelf.pg, shelf.user_id, 78) == late  # known before
    assert await enter(shelf.pg, late, 78) == late  # its own
    stray = await enter(shelf.pg, 10**15, 79)  # nobody
    query = "SELECT referrer_id FROM users WHERE id = ANY ($1::int8[]) ORDER BY id"
    assert await shelf.rows(query, [bob, late, stray]) == [(shelf.user_id,), (None,), (None,)]


async def test_postgres_refuses_a_circle_and_ones_own(shelf: Shelf) -> None:
    bob = await enter(shelf.pg, shelf.user_id)
    for user, referrer in ((bob, bob), (shelf.user_id, bob)):
        with pytest.raises(asyncpg.CheckViolationError):
            await shelf.pg.fetch("UPDATE users SET referrer_id = $2 WHERE id = $1", (user, referrer))


def test_a_code_is_read_back_and_nothing_else_is() -> None:
    dice = random.Random(5)
    ids = [1, 2, 35, 36, 2**63 - 1, *(dice.randint(1, 2**62) for _ in range(200))]
    codes = [referrals.code_of(user) for user in ids]
    assert [referrals.user_of(f"ref_{code}") for code in codes] == ids
    assert codes[0] == "hph1"  # on every machine
    assert max(map(len, codes)) <= 64 - len("ref_")  # of a start parameter
    for bad in ("", "ref_", codes[0], f"ref_{codes[0]} ", f"ref_{codes[0].upper()}", "ref_zzz", "ref_0000",
                "ref_\0", f"ref_{codes[0]}0", "ref_" + "z" * 16, "ref_" + "z" * 500, "ref_абв1", "ref_aaa-1",
                "ref_aaa\uff11"):  # fmt: skip
        assert referrals.user_of(bad) is None, bad
    mistyped = [
        referrals.user_of(f"ref_{code[:3]}{referrals._spelt(user + 1)}") for code, user in zip(codes, ids, strict=True)
    ]
    assert sum(user is not None for user in mistyped) <= 1


# ---- bonuses


async def test_three_levels_have_their_share_once(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(10_001)
    assert await family.reward(order_id) == Rewarded(3, 1000 + 700 + 300)  # rounded down
    assert await family.reward(order_id) is None
    one, two, three, four = family.ids[1:]
    assert await family.bonuses(order_id) == [(1, one, 1000, 0), (2, two, 700, 0), (3, three, 300, 0)]
    assert [await family.owned(user) for user in (one, two, three, four)] == [(1000, 0), (700, 0), (300, 0), (0, 0)]
    references = [row[0] for row in await shelf.rows("SELECT reference FROM postings ORDER BY id")]
    assert references == [f"bonus:{order_id}:{level}" for level in (1, 2, 3)]
    entry = (await ledger.statement(shelf.pg, one, before=2**62, size=9))[0]
    assert (entry.reason, entry.amount_minor, entry.order_id) == ("bonus", 1000, None)  # whose order it was is not told
    await family.check()


async def test_a_job_that_is_not_ours_pays_and_takes_nothing(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(10_000)
    lease = await leased(shelf.pg, "reward")
    stolen = Lease(lease.outbox_id, uuid4(), 5)
    assert await referrals.reward(shelf.pg, stolen, order_id, SHARES) is None
    assert await family.bonuses(order_id) == []
    assert await referrals.reward(shelf.pg, lease, order_id, SHARES) is not None
    assert not await outbox.finish(shelf.pg, lease)  # the statement itself did
    await family.refund(order_id, 10_000)
    assert await referrals.claw_back(shelf.pg, stolen, order_id) is None
    assert [row[3] for row in await family.bonuses(order_id)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("total", "shares", "amounts"),
    [(9, [1000, 700, 300], []), (10, [1000, 700, 300], [1]), (34, [1000, 700, 300], [3, 2, 1]), (10_000, [], []),
     (10_000, [0], []), (10_000, [0, 500], [500]), (10_000, [10_000], [10_000]), (5 * 10**13, [9999], [49995 * 10**9])],
)  # fmt: skip
async def test_a_share_of_nothing_makes_no_row(shelf: Shelf, total: int, shares: list[int], amounts: list[int]) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(total)
    await family.reward(order_id, shares)
    assert [row[2] for row in await family.bonuses(order_id)] == amounts


async def test_nothing_is_earned_by_what_is_unpaid_or_refunded_whole(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    unpaid, refunded = await family.sale(10_000, status="pending"), await family.sale(10_000)
    await family.refund(refunded, 10_000)
    assert [await family.reward(order) for order in (unpaid, refunded, new_id())] == [None] * 3
    nobodys = await family.sale(10_000, buyer=family.ids[-1])
    assert await family.reward(nobodys) is None
    assert await shelf.rows("SELECT count(*) FROM outbox WHERE state = 'owed'") == [(0,)]


async def test_a_debt_is_repaid_first(shelf: Shelf) -> None:
    family = await Family.made(shelf, 2)
    boss = family.ids[1]
    first = await family.sale(10_000)
    await family.reward(first)
    await family.spend(boss, 100)
    await family.refund(first, 10_000)
    assert await family.claw(first) == Clawed(100, 900)
    assert await family.owned(boss) == (0, 900)
    second, third = await family.sale(4000), await family.sale(6000)
    await family.reward(second)
    assert await family.owned(boss) == (0, 500)
    await family.reward(third)
    assert await family.owned(boss) == (100, 0)
    repaid = await shelf.rows("SELECT reference, amount_minor FROM postings WHERE credit LIKE 'debt:%' ORDER BY id")
    assert repaid == [(f"repaid:{second}:1", 400), (f"repaid:{third}:1", 500)]
    await family.check()


# ---- back again


async def test_a_refund_takes_back_exactly_its_part(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(9999)
    await family.reward(order_id)
    assert [row[2] for row in await family.bonuses(order_id)] == [999, 699, 299]
    taken = []
    for refunded in (1, 3333, 3333, 9998, 9999, 9999):
        await family.refund(order_id, refunded)
        await family.claw(order_id)
        taken.append([row[3] for row in await family.bonuses(order_id)])
    part = [999 * 3333 // 9999, 699 * 3333 // 9999, 299 * 3333 // 9999]
    assert taken == [[0, 0, 0], part, part, [998, 698, 298], [999, 699, 299], [999, 699, 299]]
    assert [await family.owned(user) for user in family.ids[1:4]] == [(0, 0)] * 3
    await family.check()


async def test_a_bonus_that_comes_after_a_part_refund_owes_its_clawback(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(10_000)
    await family.refund(order_id, 4000)
    assert await family.claw(order_id) is None  # the refund's own job was faster
    await family.reward(order_id)
    owed = await shelf.rows("SELECT kind, payload ->> 'order_id' FROM outbox WHERE state = 'owed'")
    assert owed == [("clawback", str(order_id))]
    await family.claw(order_id)
    assert [row[3] for row in await family.bonuses(order_id)] == [400, 280, 120]


async def test_whatever_meets_whatever_bonuses_are_there_once_and_back_exactly(shelf: Shelf) -> None:
    """Sales, refunds, spending and repeated jobs, all at once: afterwards everything is what the refunds say."""
    dice = random.Random(11)
    family = await Family.made(shelf, 4)
    sold = {await family.sale(total): total for total in [dice.randint(1, 100_000) for _ in range(12)]}
    back = {order: dice.choice([0, total, dice.randint(0, total)]) for order, total in sold.items()}

    async def one(order_id: UUID) -> None:
        async def refunds() -> None:
            for part in sorted({back[order_id] // 2, back[order_id]}):
                await family.refund(order_id, part)
                await family.claw(order_id)

        tries = [family.reward(order_id) for _ in range(2)] + [family.claw(order_id) for _ in range(2)]
        dice.shuffle(tries)
        await asyncio.gather(refunds(), *tries)

    await asyncio.gather(*(one(order_id) for order_id in sold))
    for order_id in sold:  # the jobs that are owed in the end
        await family.claw(order_id)
    for order_id, total in sold.items():
        rows = await family.bonuses(order_id)
        wanted = [(level, total * share // 10_000) for level, share in enumerate(SHARES, 1) if total * share >= 10_000]
        assert [(level, amount) for level, _, amount, _ in rows] in ([], wanted)
        assert rows or not wanted or back[order_id] == total
        assert [row[3] for row in rows] == [row[2] * back[order_id] // total for row in rows]
    for user in family.ids[1:]:
        balance, debt = await family.owned(user)
        assert [(balance - debt,)] == await shelf.rows(EARNED, user)
    await family.check()


async def test_random_lives_against_a_model(shelf: Shelf) -> None:
    dice = random.Random(3)
    family = await Family.made(shelf, 3)
    model = {user: [0, 0] for user in family.ids[1:]}  # balance, debt
    kept: dict[UUID, tuple[int, list[int]]] = {}  # total, clawed by level
    for _ in range(60):
        match dice.choice(["sale", "sale", "refund", "spend"]):
            case "sale":
                total = dice.randint(1, 5000)
                order_id = await family.sale(total)
                await family.reward(order_id)
                kept[order_id] = total, [0, 0]
                for (user, own), share in zip(model.items(), SHARES, strict=False):
                    amount = total * share // 10_000
                    repaid = min(amount, own[1])
                    model[user] = [own[0] + amount - repaid, own[1] - repaid]
            case "refund" if kept:
                order_id = dice.choice(list(kept))
                total, clawed = kept[order_id]
                refunded = dice.randint(0, total)
                await family.pg.fetch(
                    "UPDATE orders SET refunded_minor = greatest(refunded_minor, $2) WHERE id = $1",
                    (order_id, refunded),
                )
                await family.claw(order_id)
                for place, ((user, own), share) in enumerate(zip(model.items(), SHARES, strict=False)):
                    due = max(0, (total * share // 10_000) * refunded // total - clawed[place])
                    clawed[place] += due
                    taken = min(due, own[0])
                    model[user] = [own[0] - taken, own[1] + due - taken]
            case "spend":
                user = dice.choice(list(model))
                if model[user][0]:
                    model[user][0] = dice.randint(0, model[user][0] - 1)
                    await family.spend(user, model[user][0])
    assert {user: list(await family.owned(user)) for user in model} == model
    assert any(debt for _, debt in model.values()) or any(balance for balance, _ in model.values())
    await family.check()


# ---- one after another


async def meanwhile(url: str, change: str, args: tuple[object, ...], *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """What the calls give that begin before this change is committed and end after it."""
    holder = await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute(change, *args)
            tasks = [asyncio.create_task(call) for call in calls]
            while await holder.fetchval(WAITING) < len(calls) and not all(task.done() for task in tasks):
                pass
    finally:
        await holder.close()
    return await asyncio.gather(*tasks)


REFUND = "UPDATE orders SET refunded_minor = $2 WHERE id = $1"


async def test_a_bonus_that_meets_a_refund_owes_its_clawback(shelf: Shelf, pg_url: str) -> None:
    family = await Family.made(shelf)
    order_id = await family.sale(10_000)
    await meanwhile(pg_url, REFUND, (order_id, 4000), family.reward(order_id))
    assert await shelf.rows("SELECT kind FROM outbox WHERE state = 'owed'") == [("clawback",)]


async def test_clawbacks_that_meet_a_refund_and_each_other_take_once(shelf: Shelf, pg_url: str) -> None:
    family = await Family.made(shelf, 2)
    order_id = await family.sale(10_000)
    await family.reward(order_id)
    taken = await meanwhile(pg_url, REFUND, (order_id, 4000), family.claw(order_id), family.claw(order_id))
    assert sorted(taken, key=str) == [Clawed(400, 0), None]
    assert await family.owned(family.ids[1]) == (600, 0)
    await family.check()


async def test_money_that_is_being_spent_is_not_taken_and_becomes_a_debt(shelf: Shelf, pg_url: str) -> None:
    family = await Family.made(shelf, 2)
    order_id = await family.sale(10_000)
    await family.reward(order_id)
    await family.refund(order_id, 10_000)
    spend = "UPDATE balances SET balance_minor = 300 WHERE user_id = $1"
    assert await meanwhile(pg_url, spend, (family.ids[1],), family.claw(order_id)) == [Clawed(300, 700)]
    assert await family.owned(family.ids[1]) == (0, 700)
    clear = "UPDATE balances SET debt_minor = 200 WHERE user_id = $1"
    await meanwhile(pg_url, clear, (family.ids[1],), family.reward(await family.sale(10_000)))
    assert await family.owned(family.ids[1]) == (800, 0)


# ---- what one sees


async def test_what_was_brought_is_counted_by_level(shelf: Shelf) -> None:
    family = await Family.made(shelf)
    boss = family.ids[-1]
    for _ in range(2):
        await enter(shelf.pg, family.ids[-2])
    assert await referrals.invited(shelf.pg, boss) == [Invited(1, 1), Invited(2, 3), Invited(3, 1)]
    assert await referrals.invited(shelf.pg, family.ids[0]) == []
    for total, currency in ((10_000, "RUB"), (500, "RUB"), (1000, "USD")):
        await family.reward(await family.sale(total, currency=currency))
    earned = await referrals.earned(shelf.pg, family.ids[1])
    assert [(e.level, e.currency, e.earned_minor, e.clawed_minor) for e in earned] == [
        (1, "RUB", 1050, 0), (1, "USD", 100, 0),
    ]  # fmt: skip
