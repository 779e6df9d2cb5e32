"""The leaderboard says what Postgres says: after sales in a crowd, after FLUSHALL, after a death in between."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.base import clock
from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import leaderboard, outbox
from app.domain.leaderboard import Standing
from app.flows import rank
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.shop import Shop, opened
from tests.web.test_shop import NO_REDIS
from tests.world import settings_for

USER = "INSERT INTO users (telegram_id, name) VALUES ($1, $2) RETURNING id"
SHELF = """
WITH s AS (INSERT INTO sellers (name) VALUES ('Seller') RETURNING id)
INSERT INTO products (seller_id, title, category, kind, currency, list_price_minor, lead_time_h)
SELECT id, 'Key', 'Keys', 'made', 'RUB', 100, 1 FROM s RETURNING id"""
ORDER = """
WITH o AS (
    INSERT INTO orders
        (id, user_id, seller_id, status, currency, total_minor, idempotency_key, request_hash, expires_at, paid_at)
    SELECT $1, $2, min(id), 'delivered', $3, 100, gen_random_uuid()::text, sha256('x'), now(), now() FROM sellers
    RETURNING id)
INSERT INTO order_items
    (order_id, position, product_id, title, kind, list_price_minor, price_minor, state, delivered_at)
SELECT o.id, 1, (SELECT min(id) FROM products), 'Key', 'made', 1000000, 1000000 - $4::int8, 'delivered', $5 FROM o"""
REFUND = "UPDATE orders SET status = 'refunded' WHERE id = $1"
JOB = "INSERT INTO outbox (kind, key, payload) VALUES ('rank', $1, $2::text::jsonb) RETURNING id"


class Board:
    """A shop whose buyers save."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.pg = shop, shop.deps.pg
        self.users: dict[int, str] = {}

    async def buyers(self, *names: str) -> list[int]:
        if not self.users:
            await self.pg.fetch(SHELF, ())
        made = [(await self.pg.fetch(USER, (uuid4().int >> 80, name)))[0][0] for name in names]
        self.users |= dict(zip(made, names, strict=True))
        return made

    async def sale(self, user: int, saved: int, *, at: datetime | None = None, currency: str = "RUB") -> UUID:
        order_id = new_id()
        await self.pg.fetch(ORDER, (order_id, user, currency, saved, at or datetime.now(UTC)))
        return order_id

    async def refund(self, order_id: UUID) -> None:
        await self.pg.fetch(REFUND, (order_id,))

    async def job(self, order_id: UUID, shop: Shop | None = None) -> None:
        """The rank job of this sale or refund, as a worker runs it."""
        (row,) = await self.pg.fetch(JOB, (str(uuid4()), f'{{"order_id": "{order_id}"}}'))
        lease = Lease(row["id"], uuid4(), 5)
        claimed = await outbox.claim(self.pg, lease)
        assert claimed
        await rank.rank(shop or self.shop, lease, claimed)
        assert not await outbox.extend(self.pg, lease)  # it is done

    async def seen(self, period: str = "all", *, shop: Shop | None = None, currency: str = "RUB") -> dict[int, int]:
        found = await rank.ranking(shop or self.shop, period, currency, user_id=0, size=100)
        return {line.user_id: line.saved_minor for line in found.lines}


@pytest.fixture
async def board(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[Board]:
    async with opened(settings_for(pg_url, servers.redis_url)) as shop:
        yield Board(shop)


@pytest.fixture
async def other(board: Board, pg_url: str, servers: Servers) -> AsyncIterator[Shop]:
    """Another process."""
    async with opened(settings_for(pg_url, servers.redis_url)) as shop:
        yield shop


@pytest.fixture
async def without(board: Board, pg_url: str) -> AsyncIterator[Shop]:
    """A process whose Redis is away."""
    async with opened(settings_for(pg_url, NO_REDIS)) as shop:
        yield shop


async def test_who_saved_most_stands_first(board: Board) -> None:
    ann, bob, eve = await board.buyers("Ann  Mary Smith", "Bob", "Eve d'Or")
    for user, saved in ((ann, 300), (bob, 500), (ann, 300), (eve, 0)):
        await board.job(await board.sale(user, saved))
    found = await rank.ranking(board.shop, "all", "RUB", user_id=bob, size=10)
    assert [(line.rank, line.name, line.saved_minor) for line in found.lines] == [(1, "Ann M.", 600), (2, "Bob", 500)]
    assert (found.board, found.own_rank, found.own_saved_minor) == ("all", 2, 500)
    nobody = await rank.ranking(board.shop, "all", "RUB", user_id=eve, size=1)
    assert ([line.user_id for line in nobody.lines], nobody.own_rank, nobody.own_saved_minor) == ([ann], 0, 0)
    assert await board.seen(currency="USD") == {}


async def test_a_refund_takes_its_savings_away(board: Board) -> None:
    (ann,) = await board.buyers("Ann")
    first, second = await board.sale(ann, 300), await board.sale(ann, 200)
    await board.job(second)
    assert await board.seen() == {ann: 500}
    for order_id, left in ((first, {ann: 200}), (second, {})):
        await board.refund(order_id)
        await board.job(order_id)
        assert await board.seen() == left


async def test_boards_of_a_month_and_a_week_begin_with_them(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    (ann,) = await board.buyers("Ann")
    moments = {  # a Saturday, New Year's Eve, a Monday in the ISO year's first week, and now
        datetime(2029, 12, 1, 0, 0, tzinfo=UTC): 1, datetime(2029, 12, 30, 23, 59, tzinfo=UTC): 10,
        datetime(2029, 12, 31, 0, 0, tzinfo=UTC): 100, datetime(2030, 1, 1, 0, 0, tzinfo=UTC): 1000,
    }  # fmt: skip
    for at, saved in moments.items():
        await board.sale(ann, saved, at=at)
    monkeypatch.setattr(clock, "now", lambda: datetime(2030, 1, 2, 12, 0, tzinfo=UTC))
    assert [(await board.seen(period))[ann] for period in leaderboard.PERIODS] == [1111, 1000, 1100]
    names = [leaderboard.which(period, "RUB", clock.now()).board for period in leaderboard.PERIODS]
    assert names == ["all", "2030-01", "2030-W01"]
    monkeypatch.setattr(clock, "now", lambda: datetime(2029, 12, 31, 23, 0, tzinfo=UTC))
    assert [(await board.seen(period))[ann] for period in leaderboard.PERIODS[1:]] == [1111, 1100]


async def test_postgres_and_this_process_name_the_boards_alike(board: Board) -> None:
    (ann,) = await board.buyers("Ann")
    order_id = await board.sale(ann, 5)
    now = (await board.pg.fetch("SELECT now()", ()))[0][0]
    names = {leaderboard.which(period, "RUB", now).board for period in leaderboard.PERIODS}
    assert {standing.board for standing in await leaderboard.standings(board.pg, order_id)} == names


async def test_a_crowd_of_sales_refunds_and_lost_boards_ends_as_postgres_says(board: Board, other: Shop) -> None:
    dice = random.Random(2)
    users = await board.buyers(*(f"Buyer {n}" for n in range(6)))
    truth, sold = dict.fromkeys(users, 0), dict[UUID, tuple[int, int]]()

    async def life(user: int) -> None:
        for _ in range(6):
            saved = dice.randint(0, 500)
            order_id = await board.sale(user, saved)
            sold[order_id] = user, saved
            truth[user] += saved
            tasks = [board.job(order_id, dice.choice([board.shop, other])) for _ in range(2)]
            if dice.random() < 0.4:
                back = dice.choice([order for order, (whose, _) in sold.items() if whose == user])
                await board.refund(back)
                truth[user] -= sold.pop(back)[1]
                tasks.append(board.job(back, dice.choice([board.shop, other])))
            await asyncio.gather(*tasks)

    async def losses() -> None:
        for _ in range(12):
            await board.shop.deps.redis.command("FLUSHALL")
            await asyncio.gather(*(board.seen(shop=shop) for shop in (board.shop, other)))

    await asyncio.gather(*(life(user) for user in users), losses())
    left = {user: saved for user, saved in truth.items() if saved}
    assert await board.seen() == left
    assert await board.seen("week", shop=other) == left
    await board.shop.deps.redis.command("FLUSHALL")
    assert await board.seen() == left


async def test_a_writer_that_had_read_too_early_mends_what_it_wrote(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ann,) = await board.buyers("Ann")
    order_id = await board.sale(ann, 1)
    assert await board.seen() == {ann: 1}  # the boards are there
    read, go_on = asyncio.Event(), asyncio.Event()
    real = leaderboard.standings

    async def slow(pg: Any, order: UUID) -> list[Standing]:
        found = await real(pg, order)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(leaderboard, "standings", slow)
    early = asyncio.create_task(board.job(order_id))
    await read.wait()
    await board.job(await board.sale(ann, 10))
    assert await board.seen() == {ann: 11}
    go_on.set()
    await early
    assert await board.seen() == {ann: 11}


async def test_what_is_sold_between_the_builders_reading_and_its_opening_is_there(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = await board.buyers("Ann", "Bob")
    await board.sale(ann, 1)
    real = leaderboard.savings

    async def meanwhile(*args: Any) -> Any:
        found = await real(*args)
        await board.job(await board.sale(bob, 7))
        await board.job(await board.sale(ann, 4))
        return found

    monkeypatch.setattr(leaderboard, "savings", meanwhile)
    assert await board.seen() == {bob: 7, ann: 5}


async def test_a_lost_board_is_built_once_for_all(board: Board, other: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (ann,) = await board.buyers("Ann")
    await board.sale(ann, 5)
    reads = counted(monkeypatch, "savings")
    for _ in range(3):
        await board.shop.deps.redis.command("FLUSHALL")
        reads.clear()
        seen = await asyncio.gather(*(board.seen(shop=shop) for shop in (board.shop, other) for _ in range(20)))
        assert seen == [{ann: 5}] * 40
        assert len(reads) == 1


async def test_a_builder_that_died_holds_nobody_up(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    (ann,) = await board.buyers("Ann")
    await board.sale(ann, 5)
    which = leaderboard.which("all", "RUB", datetime.now(UTC))
    await leaderboard.build(board.shop.deps.redis, which, "dead")
    monkeypatch.setattr(rank, "LOOKS", 2)
    found = await rank.ranking(board.shop, "all", "RUB", user_id=ann, size=9)
    assert ([line.saved_minor for line in found.lines], found.own_rank, found.own_saved_minor) == ([5], 1, 5)
    assert await leaderboard.top(board.shop.deps.redis, which, 0, 1) == leaderboard.Absent()
    await board.shop.deps.redis.command("FLUSHALL")  # its lease is over
    assert await board.seen() == {ann: 5}
    assert isinstance(await leaderboard.top(board.shop.deps.redis, which, 0, 1), leaderboard.Board)


async def test_without_redis_postgres_answers_the_same(
    board: Board, without: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = await board.buyers(*(f"Buyer {n}" for n in range(12)))
    for place, user in enumerate(users):
        await board.sale(user, (5, 5, 0, 70)[place % 4])
    shown = [
        await rank.ranking(shop, "month", "RUB", user_id=user, size=5)
        for shop in (board.shop, without) for user in (0, *users)
    ]  # fmt: skip
    assert shown[:13] == shown[13:]
    reads = counted(monkeypatch, "best")
    await asyncio.gather(*(board.seen(shop=without) for _ in range(50)))
    assert len(reads) == 1
    monkeypatch.setattr(leaderboard, "MOST", 2)
    beyond = [(await rank.ranking(without, "all", "RUB", user_id=user, size=2)).own_rank for user in users[:4]]
    assert beyond == [None, None, 0, 1]  # it may be any place after the list


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """The calls of this read, from now on."""
    calls: list[str] = []
    real: Callable[..., Awaitable[Any]] = getattr(leaderboard, name)

    async def counting(*args: Any) -> Any:
        calls.append(name)
        return await real(*args)

    monkeypatch.setattr(leaderboard, name, counting)
    return calls


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Anna Doe", "Anna D."), ("Anna", "Anna"), ("  anna  maria doe ", "anna M."), ("", ""), ("Ё ж", "Ё Ж."),
     ("x" * 200, "x" * 32), ("A 😀b", "A 😀.")],
)  # fmt: skip
def test_others_see_a_first_name_and_one_letter(name: str, shown: str) -> None:
    assert leaderboard.short_name(name) == shown
