"""The stock scripts: each reply, each boundary, each key's life, each stated cost."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, cast
from uuid import UUID

import pytest

from app.base import keys
from app.base.ids import new_id
from app.domain import stock
from app.domain.stock import Cold, Committed, Filled, Gone, Held, Moved, Released, Shared, Short, Units
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

SELLER = 7
FREE, HELD, DUE = KEYS = [keys.stock_free(SELLER), keys.stock_held(SELLER), keys.stock_due(SELLER)]
SOLD, DOUBT = keys.stock_sold(SELLER), keys.stock_doubt(SELLER)
LOOK = 'return {redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2]), redis.call("ZRANGE", KEYS[3], 0, -1)}'


class State(NamedTuple):
    """All that Redis knows of one seller's stock, at one moment."""

    free: dict[int, int]
    held: dict[str, str]
    due: set[str]


async def look(store: Redis) -> State:
    free, held, due = cast(list[list[bytes]], await store.command("EVAL", LOOK, 3, *KEYS))
    return State(
        {int(p): int(n) for p, n in zip(free[::2], free[1::2], strict=True)},
        {h.decode(): c.decode() for h, c in zip(held[::2], held[1::2], strict=True)},
        {h.decode() for h in due},
    )


async def shelve(store: Redis, *units: int) -> Filled:
    """Products 1, 2, 3 … are counted with so many units, as if Postgres had said so."""
    filled = await fill(store, dict(enumerate(units, 1)))
    assert isinstance(filled, Filled)
    return filled


async def fill(store: Redis, units: dict[int, int], *, renew: bool = False) -> Filled | Moved:
    """A count that nothing overtakes."""
    tallied = await stock.tally(store, SELLER, list(units))
    return await stock.fill(store, SELLER, tallied, {**units}, renew=renew)


async def commit(store: Redis, hold: UUID, *cart: tuple[int, int], again: bool = False) -> Committed | Gone:
    return await stock.commit(store, SELLER, hold, [Units(product, units) for product, units in cart], again=again)


async def reserve(store: Redis, *cart: tuple[int, int], hold: UUID | None = None) -> Held | Shared | Short | Cold:
    return await stock.reserve(store, SELLER, hold or new_id(), [Units(product, units) for product, units in cart])


async def held_cart(store: Redis, *cart: tuple[int, int]) -> UUID:
    hold = new_id()
    assert await reserve(store, *cart, hold=hold) == Held()
    return hold


async def lapse(store: Redis, hold: UUID) -> None:
    """The hold's time is over, though its keys are still there."""
    await store.command("ZADD", DUE, 1, str(hold))


# ---- reserve


async def test_an_exact_fit_is_held(store: Redis) -> None:
    await shelve(store, 2, 3)
    hold = await held_cart(store, (1, 2), (2, 3))
    assert await look(store) == State({1: 0, 2: 0}, {str(hold): "1 2 2 3"}, {str(hold)})


@pytest.mark.parametrize(
    ("units", "cart", "left"),
    [
        ([2], [(1, 3)], (1, 2)),
        ([0], [(1, 1)], (1, 0)),
        ([5, 1, 5], [(1, 1), (2, 2), (3, 1)], (2, 1)),
        ([1, 5, 0], [(3, 1), (2, 5), (1, 2)], (3, 0, 1, 1)),
        ([3] * 20, [(product, 3 + (product == 11)) for product in range(1, 21)], (11, 3)),
        (
            [3] * 20,
            [(product, 4) for product in range(20, 0, -1)],
            tuple(part for product in range(20, 0, -1) for part in (product, 3)),
        ),
    ],
    ids=["one too many", "none left", "one line of three", "in the cart's order", "one of twenty", "all of twenty"],
)
async def test_a_cart_that_does_not_fit_holds_nothing(
    store: Redis, units: Sequence[int], cart: Sequence[tuple[int, int]], left: tuple[int, ...]
) -> None:
    await shelve(store, *units)
    before = await look(store)
    assert await reserve(store, *cart) == Short(left)
    assert await look(store) == before == State(dict(enumerate(units, 1)), {}, set())


async def test_a_counter_below_zero_has_nothing_left(store: Redis) -> None:
    await shelve(store, 1)
    await store.command("HSET", FREE, 1, -3)
    assert await reserve(store, (1, 1)) == Short((1, 0))


async def test_what_is_not_counted_is_cold_and_nothing_is_held(store: Redis) -> None:
    assert await reserve(store, (1, 1), (2, 1)) == Cold((1, 2))
    await fill(store, {2: 0})
    before = await look(store)
    assert await reserve(store, (3, 1), (2, 1), (1, 1)) == Cold((3, 1))  # before anything is called short
    assert await look(store) == before


async def test_a_repeat_of_the_same_hold_takes_nothing_more(store: Redis) -> None:
    await shelve(store, 1, 9)
    hold = await held_cart(store, (1, 1))
    before = await look(store)
    assert await reserve(store, (1, 1), hold=hold) == Shared()
    assert await reserve(store, (2, 5), hold=hold) == Shared()
    assert await look(store) == before


async def test_twenty_lines_are_one_hold(store: Redis) -> None:
    await shelve(store, *range(1, 21))
    cart = [(product, product) for product in range(20, 0, -1)]
    hold = await held_cart(store, *cart)
    assert (await look(store)).free == dict.fromkeys(range(1, 21), 0)
    assert await stock.release(store, SELLER, hold) == Released(sum(range(1, 21)))
    assert await look(store) == State({product: product for product in range(1, 21)}, {}, set())


async def test_sellers_do_not_touch_each_other(store: Redis) -> None:
    await shelve(store, 1)
    other = await stock.reserve(store, SELLER + 1, new_id(), [Units(1, 1)])
    assert other == Cold((1,))
    assert (await look(store)).free == {1: 1}


# ---- release and commit


async def test_a_release_gives_back_once(store: Redis) -> None:
    await shelve(store, 3, 4)
    hold = await held_cart(store, (1, 2), (2, 4))
    assert await stock.release(store, SELLER, hold) == Released(6)
    after = await look(store)
    assert after == State({1: 3, 2: 4}, {}, set())
    assert await stock.release(store, SELLER, hold) == Gone()
    assert await look(store) == after


async def test_a_released_hold_may_be_taken_again(store: Redis) -> None:
    await shelve(store, 2)
    hold = await held_cart(store, (1, 2))
    await stock.release(store, SELLER, hold)
    assert await reserve(store, (1, 1), hold=hold) == Held()
    assert await look(store) == State({1: 1}, {str(hold): "1 1"}, {str(hold)})


async def test_a_release_after_the_counters_vanished(store: Redis) -> None:
    await shelve(store, 3)
    hold = await held_cart(store, (1, 2))
    await store.command("DEL", FREE)
    assert await stock.release(store, SELLER, hold) == Released(2)
    assert await look(store) == State({}, {}, set())


async def test_a_commit_ends_the_hold_and_keeps_the_units(store: Redis) -> None:
    await shelve(store, 3)
    hold, other = await held_cart(store, (1, 1)), await held_cart(store, (1, 1))
    assert await commit(store, hold, (1, 1)) == Committed()
    after = await look(store)
    assert after == State({1: 1}, {str(other): "1 1"}, {str(other)})
    assert await stock.release(store, SELLER, hold) == Gone()
    assert await look(store) == after


async def test_a_commit_whose_hold_is_gone_takes_its_units_off(store: Redis) -> None:
    await shelve(store, 5, 5)
    hold = await held_cart(store, (1, 2), (2, 1))
    await stock.release(store, SELLER, hold)  # by its maker, while a repeat that shared it has claimed the units
    assert await commit(store, hold, (1, 2), (2, 1)) == Gone()
    assert await look(store) == State({1: 3, 2: 4}, {}, set())


async def test_a_repeat_ends_a_hold_that_is_left_and_nothing_else(store: Redis) -> None:
    await shelve(store, 5)
    hold = await held_cart(store, (1, 2))
    assert await commit(store, hold, (1, 2), again=True) == Committed()
    after = await look(store)
    assert after == State({1: 3}, {str(hold): ""}, {str(hold)})  # an empty cart, for the first to find
    assert await commit(store, hold, (1, 2), again=True) == Gone()
    assert await stock.release(store, SELLER, hold) == Gone()
    assert await look(store) == after


async def test_a_commit_after_its_repeats_takes_nothing_off_once_more(store: Redis) -> None:
    await shelve(store, 5)
    hold = await held_cart(store, (1, 2))
    assert await commit(store, hold, (1, 2), again=True) == Committed()
    assert await commit(store, hold, (1, 2)) == Gone()
    assert await look(store) == State({1: 3}, {}, set())
    assert await store.command("HGET", keys.stock_sold(SELLER), 1) == b"2"


async def test_a_commit_does_not_count_what_nobody_counts(store: Redis) -> None:
    await shelve(store, 5)
    assert await commit(store, new_id(), (1, 2), (2, 2)) == Gone()
    assert await look(store) == State({1: 3}, {}, set())


async def test_what_is_held_for_a_dead_checkout_is_its_retrys_to_sell(store: Redis) -> None:
    await shelve(store, 1)
    hold = await held_cart(store, (1, 1))
    assert await reserve(store, (1, 1), hold=hold) == Shared()
    assert await commit(store, hold, (1, 1)) == Committed()
    assert await look(store) == State({1: 0}, {}, set())


async def test_a_release_of_a_hold_that_never_was_changes_nothing(store: Redis) -> None:
    assert await stock.release(store, SELLER, new_id()) == Gone()
    assert await look(store) == State({}, {}, set())


# ---- life


async def test_every_key_lives_as_long_as_its_row_says(redis: Pipe) -> None:
    await shelve(redis, 5)
    await check_life(redis, FREE, "{s:<seller>}free")
    await check_life(redis, SOLD, "{s:<seller>}sold")
    hold, other = await held_cart(redis, (1, 1)), await held_cart(redis, (1, 1))
    await check_life(redis, HELD, "{s:<seller>}held")
    await check_life(redis, DUE, "{s:<seller>}due")
    await redis.command("DEL", SOLD)
    await stock.release(redis, SELLER, hold)
    await commit(redis, other, (1, 1))
    await check_life(redis, SOLD, "{s:<seller>}sold")
    assert set(await names(redis)) == {FREE, SOLD}  # and `redis` finds that each of its keys expires


async def test_what_a_doubt_is_written_by_gives_it_its_life(redis: Pipe) -> None:
    async def by_a_commit() -> None:
        await commit(redis, new_id(), (1, 1))

    async def by_a_lapse() -> None:
        await lapse(redis, await held_cart(redis, (1, 1)))
        await stock.tally(redis, SELLER, [2])

    async def by_a_fill() -> None:
        await held_cart(redis, (1, 1))
        await shelve(redis, 5)

    for doubted in (by_a_commit, by_a_lapse, by_a_fill):
        await shelve(redis, 5)
        await redis.command("DEL", DOUBT)
        await doubted()
        await check_life(redis, DOUBT, "{s:<seller>}doubt")


async def names(redis: Pipe) -> list[str]:
    return [name.decode() for name in cast(list[bytes], await redis.command("KEYS", "*"))]


async def test_a_hold_lapses_when_its_checkout_must_be_over(redis: Pipe) -> None:
    await shelve(redis, 5)
    time = cast(list[bytes], await redis.command("TIME"))
    now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
    hold = await held_cart(redis, (1, 1))
    due_ms = int(cast(bytes, await redis.command("ZSCORE", DUE, str(hold))))
    assert now_ms + stock.HOLD_MS <= due_ms < now_ms + stock.HOLD_MS + 5000


async def test_sharing_a_hold_does_not_keep_it_alive(store: Redis) -> None:
    """A client that repeats for ever would keep units that it never orders."""
    await shelve(store, 5)
    await lapse(store, hold := await held_cart(store, (1, 1)))
    assert await reserve(store, (1, 1), hold=hold) == Shared()
    await shelve(store, 5)
    assert await look(store) == State({1: 5}, {}, set())


@pytest.mark.parametrize("again", [{2: 5}, {1: 5}], ids=["a new product", "the same product"])
async def test_only_the_first_fill_starts_the_clock(redis: Pipe, again: dict[int, int]) -> None:
    await shelve(redis, 5)
    await redis.command("PEXPIRE", FREE, 2000)
    await fill(redis, again)
    left_ms = cast(int, await redis.command("PTTL", FREE))
    assert 0 < left_ms <= 2000


async def test_a_fill_that_ends_an_audit_starts_the_clock_anew(redis: Pipe) -> None:
    await fill(redis, {1: 5}, renew=True)
    await check_life(redis, FREE, "{s:<seller>}free")
    await redis.command("PEXPIRE", FREE, 2000)
    await fill(redis, {1: 5}, renew=True)
    await check_life(redis, FREE, "{s:<seller>}free")


async def test_buying_does_not_keep_the_counters_alive(redis: Pipe) -> None:
    await shelve(redis, 5)
    await redis.command("PEXPIRE", FREE, 2000)
    await stock.release(redis, SELLER, await held_cart(redis, (1, 1)))
    await commit(redis, await held_cart(redis, (1, 1)), (1, 1))
    assert 0 < cast(int, await redis.command("PTTL", FREE)) <= 2000


async def test_a_read_refusal_changes_nothing_at_all(redis: Pipe) -> None:
    await shelve(redis, 1)
    before = await everything(redis)
    await asyncio.gather(reserve(redis, (1, 2)), reserve(redis, (2, 1)), stock.release(redis, SELLER, new_id()))
    assert await everything(redis) == before


# ---- cost


@pytest.mark.parametrize("lines", [1, 20])
async def test_reserve_costs_what_it_states(redis: Pipe, lines: int) -> None:
    cost, cart = stated(stock.RESERVE), [(product, 1) for product in range(1, lines + 1)]
    assert await commands_run(redis, reserve(redis, *cart)) < cost.most(lines=lines)  # cold
    await shelve(redis, *[1] * lines)
    hold = new_id()
    assert await commands_run(redis, reserve(redis, *cart, hold=hold)) == cost.most(lines=lines)
    assert await commands_run(redis, reserve(redis, *cart, hold=hold)) < cost.most(lines=lines)  # a repeat
    assert await commands_run(redis, reserve(redis, *cart)) < cost.most(lines=lines)  # short
    await shelve(redis, *[1] * lines)  # beside the hold: in doubt
    assert await commands_run(redis, reserve(redis, *cart)) < cost.most(lines=lines)


@pytest.mark.parametrize("lines", [1, 20])
async def test_release_costs_what_it_states(redis: Pipe, lines: int) -> None:
    await shelve(redis, *[1] * lines)
    hold = await held_cart(redis, *((product, 1) for product in range(1, lines + 1)))
    cost = stated(stock.RELEASE)
    assert await commands_run(redis, stock.release(redis, SELLER, hold)) == cost.most(lines=lines)
    assert await commands_run(redis, stock.release(redis, SELLER, hold)) < cost.most(lines=lines)


@pytest.mark.parametrize("lines", [1, 20])
async def test_commit_costs_what_it_states(redis: Pipe, lines: int) -> None:
    await shelve(redis, *[3] * lines)
    cost, cart = stated(stock.COMMIT), [(product, 1) for product in range(1, lines + 1)]
    hold = await held_cart(redis, *cart)
    assert await commands_run(redis, commit(redis, hold, *cart)) < cost.most(lines=lines)
    assert await commands_run(redis, commit(redis, hold, *cart)) == cost.most(lines=lines)  # it is gone
    kept = await held_cart(redis, *cart)
    assert await commands_run(redis, commit(redis, kept, *cart, again=True)) < cost.most(lines=lines)
    assert await commands_run(redis, commit(redis, kept, *cart)) < cost.most(lines=lines)
