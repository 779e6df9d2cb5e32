"""Counting anew: what Postgres says, less the live holds and what was sold meanwhile; never too much."""

import asyncio
from typing import cast

import pytest

from app.base.ids import new_id
from app.domain import stock
from app.domain.stock import Cold, Committed, Filled, Forgotten, Gone, Held, Moved, Released, Short
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import commands_run, stated
from tests.lua.test_stock import (
    DOUBT,
    DUE,
    FREE,
    HELD,
    SELLER,
    SOLD,
    State,
    commit,
    fill,
    held_cart,
    lapse,
    look,
    reserve,
    shelve,
)  # fmt: skip


async def doubts(store: Redis) -> dict[int, int]:
    """From when each product in doubt may be counted anew."""
    flat = cast(list[bytes], await store.command("EVAL", 'return redis.call("HGETALL", KEYS[1])', 1, DOUBT))
    return {int(product): int(ms) for product, ms in zip(flat[::2], flat[1::2], strict=True)}


async def waited(store: Redis) -> None:
    """The time is over in which others believe a counter in doubt."""
    for product in await doubts(store):
        await store.command("HSET", DOUBT, product, 1)


# ---- fill


async def test_a_fill_counts_what_was_not_counted_and_corrects_what_was(store: Redis) -> None:
    assert await fill(store, {1: 5, 2: 0}) == Filled(2, over=0, under=0, doubted=0)
    assert await fill(store, {1: 9, 2: 9, 3: 1}) == Filled(1, over=0, under=4 + 9, doubted=0)
    assert await fill(store, {1: 2, 3: 2}) == Filled(0, over=7, under=1, doubted=0)
    assert (await look(store)).free == {1: 2, 2: 9, 3: 2}
    assert await fill(store, {1: 2, 2: 9, 3: 2}) == Filled(0, over=0, under=0, doubted=0)


async def test_a_fill_leaves_out_what_is_held(store: Redis) -> None:
    await shelve(store, 5, 5, 5)
    await held_cart(store, (1, 2), (2, 5))
    await held_cart(store, (1, 1))
    await store.command("DEL", FREE)
    assert await shelve(store, 5, 4, 5) == Filled(3, over=0, under=0, doubted=2)
    assert (await look(store)).free == {1: 2, 2: -1, 3: 5}


async def test_units_that_were_withdrawn_under_a_hold_do_not_come_back_with_it(store: Redis) -> None:
    await shelve(store, 5)
    hold = await held_cart(store, (1, 5))
    await shelve(store, 2)
    assert (await look(store)).free == {1: -3}
    assert await reserve(store, (1, 1)) == Cold((1,))
    assert await reserve(store, (1, 1)) == Short((1, 0))
    assert await stock.release(store, SELLER, hold) == Released(5)
    assert (await look(store)).free == {1: 2}


async def test_twenty_lines_are_filled_beside_a_hold_of_twenty(store: Redis) -> None:
    await shelve(store, *[9] * 20)
    await held_cart(store, *((product, 2) for product in range(1, 21)))
    await store.command("DEL", FREE)
    assert await shelve(store, *[9] * 20) == Filled(20, over=0, under=0, doubted=20)
    assert (await look(store)).free == dict.fromkeys(range(1, 21), 7)


async def test_what_was_sold_since_the_tally_is_left_out(store: Redis) -> None:
    """Whether Postgres was asked before or after the claim: the counter is never above it."""
    await shelve(store, 5, 5)
    tallied = await stock.tally(store, SELLER, [1, 2])
    assert await commit(store, await held_cart(store, (1, 2)), (1, 2)) == Committed()
    assert await stock.fill(store, SELLER, tallied, {1: 5, 2: 5}) == Filled(0, over=0, under=0, doubted=1)
    assert (await look(store)).free == {1: 3, 2: 5}


async def test_what_was_sold_before_the_tally_is_in_postgres(store: Redis) -> None:
    await shelve(store, 5)
    assert await commit(store, await held_cart(store, (1, 2)), (1, 2)) == Committed()
    assert await shelve(store, 3) == Filled(0, over=0, under=0, doubted=0)
    assert (await look(store)).free == {1: 3}


async def test_what_is_sold_without_a_hold_is_left_out_as_well(store: Redis) -> None:
    tallied = await stock.tally(store, SELLER, [1])
    assert await commit(store, new_id(), (1, 2)) == Gone()
    assert await stock.fill(store, SELLER, tallied, {1: 5}) == Filled(1, over=0, under=0, doubted=1)
    assert (await look(store)).free == {1: 3}


@pytest.mark.parametrize("lost", [[SOLD], [SOLD, FREE, HELD, DUE, DOUBT]], ids=["expired", "flushed"])
@pytest.mark.parametrize("sold", [False, True])
async def test_a_count_that_cannot_know_what_was_sold_starts_over(store: Redis, lost: list[str], sold: bool) -> None:
    await shelve(store, 5)
    tallied = await stock.tally(store, SELLER, [1])
    await store.command("DEL", *lost)
    if sold:  # which begins a new epoch
        await commit(store, new_id(), (1, 1))
    before = await look(store)
    assert await stock.fill(store, SELLER, tallied, {1: 5}) == Moved()
    assert await look(store) == before


async def test_a_server_that_lost_its_last_writes_is_counted_anew(store: Redis) -> None:
    """A failover may lead to a Redis that has the epoch and fewer sold."""
    await commit(store, new_id(), (1, 3))
    tallied = await stock.tally(store, SELLER, [1])
    await store.command("HSET", SOLD, 1, 2)
    assert await stock.fill(store, SELLER, tallied, {1: 5}) == Moved()


async def test_two_counts_at_once_are_both_right(store: Redis) -> None:
    await shelve(store, 5)
    first, second = [await stock.tally(store, SELLER, [1]) for _ in range(2)]
    await commit(store, await held_cart(store, (1, 1)), (1, 1))
    await stock.fill(store, SELLER, second, {1: 4})  # asked after the claim
    await stock.fill(store, SELLER, first, {1: 5})  # asked before it
    assert (await look(store)).free == {1: 4}


# ---- lapse


async def test_a_tally_ends_lapsed_holds(store: Redis) -> None:
    await shelve(store, 5, 5)
    dead, alive = await held_cart(store, (1, 3), (2, 1)), await held_cart(store, (1, 1))
    await lapse(store, dead)
    assert await shelve(store, 5) == Filled(0, over=0, under=0, doubted=1)
    assert await look(store) == State({1: 4, 2: 4}, {str(alive): "1 1"}, {str(alive)})
    assert await stock.release(store, SELLER, dead) == Gone()
    assert await doubts(store) == {1: 0, 2: 0}  # nobody gave the unit of 2 back: who wants it counts anew
    assert await reserve(store, (2, 5)) == Cold((2,))


# ---- doubt


async def test_a_buyer_is_not_refused_on_the_word_of_a_counter_in_doubt(store: Redis) -> None:
    await shelve(store, 5, 5)
    hold = await held_cart(store, (1, 3))
    assert (await shelve(store, 2, 5)).doubted == 1  # the claim is in Postgres, and its hold still here
    assert await commit(store, hold, (1, 3)) == Committed()
    assert (await look(store)).free == {1: -1, 2: 5}
    assert await reserve(store, (2, 9), (1, 1)) == Cold((1,))
    assert await reserve(store, (2, 9), (1, 1)) == Short((2, 5, 1, 0))  # one counts, the others believe it meanwhile
    assert await shelve(store, 2, 5) == Filled(0, over=0, under=0, doubted=0)  # too few, as was known
    assert await doubts(store) == {}
    assert await reserve(store, (1, 2)) == Held()
    assert await reserve(store, (1, 1)) == Short((1, 0))


async def test_what_stays_in_doubt_is_counted_now_and_then(store: Redis) -> None:
    await shelve(store, 1)
    await held_cart(store, (1, 1))
    await shelve(store, 1)
    for _ in range(3):
        assert await reserve(store, (1, 1)) == Cold((1,))
        await shelve(store, 1)  # the hold is live: still in doubt
        assert await reserve(store, (1, 1)) == Short((1, 0))
        await waited(store)


async def test_a_commit_without_a_hold_may_be_counted_twice(store: Redis) -> None:
    await shelve(store, 5)
    await store.command("FLUSHALL")
    await shelve(store, 4, 9)  # the claim is in Postgres, the flush took its hold
    assert await commit(store, new_id(), (1, 1), (2, 1), (3, 1)) == Gone()
    assert (await look(store)).free == {1: 3, 2: 8}
    assert set(await doubts(store)) == {1, 2}
    assert await reserve(store, (1, 4)) == Cold((1,))


async def test_what_fits_is_held_in_doubt_or_not(store: Redis) -> None:
    await shelve(store, 5)
    await held_cart(store, (1, 1))
    assert (await shelve(store, 5)).doubted == 1
    assert await reserve(store, (1, 4)) == Held()


async def test_a_crowd_sends_one_to_count(store: Redis) -> None:
    await shelve(store, 1)
    await held_cart(store, (1, 1))
    await shelve(store, 1)
    answers = await asyncio.gather(*(reserve(store, (1, 1)) for _ in range(20)))
    assert (answers.count(Cold((1,))), answers.count(Short((1, 0)))) == (1, 19)


# ---- forget


async def test_what_is_forgotten_is_cold(store: Redis) -> None:
    await shelve(store, 1, 2, 3)
    assert await stock.forget(store, SELLER, [1, 3, 4]) == Forgotten(2)
    assert await stock.forget(store, SELLER, [1]) == Forgotten(0)
    assert await reserve(store, (1, 1), (2, 1), (3, 1)) == Cold((1, 3))


async def test_a_count_that_began_before_a_change_is_not_believed(store: Redis) -> None:
    """Postgres may have been asked before units were withdrawn, or before others came back."""
    await shelve(store, 5)
    tallied = await stock.tally(store, SELLER, [1])
    await stock.forget(store, SELLER, [1])
    assert await stock.fill(store, SELLER, tallied, {1: 5}) == Moved()
    assert (await look(store)).free == {}


async def test_a_release_does_not_count_what_nobody_counts(store: Redis) -> None:
    await shelve(store, 3, 4)
    hold = await held_cart(store, (1, 2), (2, 1))
    await stock.forget(store, SELLER, [1])
    assert await stock.release(store, SELLER, hold) == Released(3)
    assert await look(store) == State({2: 4}, {}, set())  # 1 would have been counted as two units of many


async def test_every_key_may_vanish_between_two_calls(store: Redis) -> None:
    await shelve(store, 3)
    hold = await held_cart(store, (1, 1))
    await store.command("FLUSHALL")
    assert await stock.release(store, SELLER, hold) == Gone()
    assert await stock.forget(store, SELLER, [1]) == Forgotten(0)
    assert await stock.counted(store, SELLER) == []
    assert await reserve(store, (1, 1), hold=hold) == Cold((1,))
    assert await look(store) == State({}, {}, set())
    assert await shelve(store, 2) == Filled(1, over=0, under=0, doubted=0)
    assert await reserve(store, (1, 2), hold=hold) == Held()


async def test_what_is_counted_can_be_asked_for(store: Redis) -> None:
    await shelve(store, 3, 0)
    assert sorted(await stock.counted(store, SELLER)) == [1, 2]
    assert await stock.counted(store, SELLER + 1) == []


# ---- cost


@pytest.mark.parametrize("lines", [1, 500])
async def test_fill_costs_what_it_states(redis: Pipe, lines: int) -> None:
    await shelve(redis, *[2] * lines)
    await held_cart(redis, (1, 1))
    tallied = await stock.tally(redis, SELLER, list(range(1, lines + 1)))
    assert stated(stock.FILL).exact
    ran = await commands_run(redis, stock.fill(redis, SELLER, tallied, dict.fromkeys(range(1, lines + 1), 5)))
    assert ran == stated(stock.FILL).most(lines=lines)


@pytest.mark.parametrize(("products", "lapsed"), [(1, 0), (500, 0), (1, 3), (20, 10)])
async def test_tally_costs_what_it_states(redis: Pipe, products: int, lapsed: int) -> None:
    await shelve(redis, *[lapsed + 1] * products)
    for _ in range(lapsed):
        await lapse(redis, await held_cart(redis, (1, 1)))
    await held_cart(redis, (1, 1))
    assert stated(stock.TALLY).exact
    ran = await commands_run(redis, stock.tally(redis, SELLER, list(range(1, products + 1))))
    assert ran == stated(stock.TALLY).most(lapsed=lapsed)


@pytest.mark.parametrize("products", [1, 50])
async def test_forget_and_counted_cost_what_they_state(redis: Pipe, products: int) -> None:
    await shelve(redis, *[1] * products)
    assert stated(stock.FORGET).exact
    assert stated(stock.COUNTED).exact
    assert await commands_run(redis, stock.counted(redis, SELLER)) == stated(stock.COUNTED).most()
    ran = await commands_run(redis, stock.forget(redis, SELLER, list(range(1, products + 1))))
    assert ran == stated(stock.FORGET).most()
