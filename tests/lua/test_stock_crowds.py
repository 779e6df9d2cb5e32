"""The stock scripts in a crowd: at each moment the free, the held and the sold units are all there are.

Each hold also takes one unit of a product of its own. That marker tells in the same look whether the hold is over
(marker gone, hold gone: committed), so the sum can be checked exactly, whatever is in flight at that moment.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from app.base.ids import new_id
from app.domain import stock
from app.domain.stock import Cold, Committed, Filled, Gone, Held, Moved, Released, Shared, Short, Units
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.lua.test_stock import SELLER, State, fill, look, reserve, shelve

GOODS = 1, 2, 3  # products that everybody wants
TOTAL = 150  # of each
BUYERS = 300
FIRST_MARKER = 1000

End = Callable[[Pipe, UUID, list[Units]], Awaitable[Released | Committed | Gone]]


def sell(pipe: Pipe, hold: UUID, lines: list[Units]) -> Awaitable[Committed | Gone]:
    return stock.commit(pipe, SELLER, hold, lines)


def give_back(pipe: Pipe, hold: UUID, _: list[Units]) -> Awaitable[Released | Gone]:
    return stock.release(pipe, SELLER, hold)


# One cart is sold once, by whom Postgres granted it; giving back may be tried by anybody at any time.
ENDS: dict[str, list[End]] = {
    "release": [give_back, give_back],
    "commit": [sell],
    "race": [give_back, sell, give_back],
    "keep": [],
}


@pytest.fixture
async def pipes(servers: Servers, redis: Pipe) -> AsyncIterator[list[Pipe]]:
    """Connections of five processes, as it were."""
    async with AsyncExitStack() as stack:
        opened = [Pipe(servers.redis_url, timeout_ms=10_000) for _ in range(5)]
        for pipe in opened:
            stack.push_async_callback(pipe.aclose)
        yield opened


class Buyer:
    """One checkout after another, each of its carts with the buyer's own marker in it."""

    def __init__(self, number: int, pipes: Sequence[Pipe]) -> None:
        self.marker, self.random, self.pipes = FIRST_MARKER + number, random.Random(number), pipes
        self.hold, self.cart = new_id(), dict[int, int]()
        self.sold = False

    def any_pipe(self) -> Pipe:
        return self.random.choice(self.pipes)

    async def shop(self) -> None:
        """Takes carts and gives them back, and ends with one that is bought, kept, or both bought and given back."""
        for ends_with in (*["release"] * self.random.randint(2, 8), self.random.choice(["commit", "race", "keep"])):
            self.hold = new_id()
            self.cart = {product: self.random.randint(1, 3) for product in self.random.sample(GOODS, 2)}
            if await self.take() == Held():
                await self.end(ends_with)

    def lines(self) -> list[Units]:
        return [Units(product, units) for product, units in {**self.cart, self.marker: 1}.items()]

    async def take(self) -> Held | Shared | Short | Cold:
        """The same hold is asked for twice at once, over two connections."""
        both = [stock.reserve(self.any_pipe(), SELLER, self.hold, self.lines()) for _ in range(2)]
        first, second = await asyncio.gather(*both)
        assert (first, second) in ((Held(), Shared()), (Shared(), Held())) or Shared() not in (first, second)
        return Held() if Held() in (first, second) else first

    async def end(self, how: str) -> None:
        """The hold ends once, however many say so at once."""
        ended = await asyncio.gather(*(end(self.any_pipe(), self.hold, self.lines()) for end in ENDS[how]))
        assert [end for end in ended if end != Gone()] in (
            [[Committed()], [Released(sum(self.cart.values()) + 1)]] if ENDS[how] else [[]]
        )
        self.sold = sell in ENDS[how]


def check_balance(state: State, buyers: Sequence[Buyer]) -> None:
    """Not one unit more or less than at the start. Raises: AssertionError.

    A counter below zero is right when a cart was given back, held by another, and then sold all the same.
    """
    gone = dict.fromkeys(GOODS, 0)
    live = {hold: [int(part) for part in cart.split()] for hold, cart in state.held.items()}
    for cart in live.values():
        for product, units in zip(cart[::2], cart[1::2], strict=True):
            gone[product] = gone.get(product, 0) + units
    for buyer in buyers:
        if state.free[buyer.marker] == 0 and buyer.marker not in gone:  # its last hold: only that one is committed
            gone[buyer.marker] = 1
            for product, units in buyer.cart.items():
                gone[product] += units
    assert {product: state.free[product] + gone[product] for product in GOODS} == dict.fromkeys(GOODS, TOTAL)
    assert all(state.free[buyer.marker] + gone.get(buyer.marker, 0) == 1 for buyer in buyers)
    assert state.due == live.keys()


async def test_nothing_is_lost_or_made_in_a_crowd(redis: Pipe, pipes: list[Pipe]) -> None:
    buyers = [Buyer(number, pipes) for number in range(BUYERS)]
    await fill(redis, dict.fromkeys(GOODS, TOTAL) | {buyer.marker: 1 for buyer in buyers})
    crowd = asyncio.gather(*(buyer.shop() for buyer in buyers))
    looks = 0
    while not crowd.done():
        check_balance(await look(redis), buyers)
        looks += 1
    await crowd
    check_balance(state := await look(redis), buyers)
    assert looks > 10
    assert sum(state.free[product] for product in GOODS) < 3 * TOTAL / 2  # there was something to fight for
    sold = sum(sum(buyer.cart.values()) for buyer in buyers if buyer.sold)
    held = sum(sum(buyer.cart.values()) for buyer in buyers if str(buyer.hold) in state.held)
    assert sold + held + sum(state.free[product] for product in GOODS) == 3 * TOTAL


async def test_five_hundred_buyers_for_a_hundred_units(redis: Pipe, pipes: list[Pipe]) -> None:
    await shelve(redis, 100)
    answers = await asyncio.gather(*(reserve(pipes[n % 5], (1, 1)) for n in range(500)))
    assert (answers.count(Held()), answers.count(Short((1, 0)))) == (100, 400)
    state = await look(redis)
    assert (state.free, len(state.held), len(state.due)) == ({1: 0}, 100, 100)


async def test_one_hold_asked_for_by_a_hundred_takes_its_units_once(redis: Pipe, pipes: list[Pipe]) -> None:
    await shelve(redis, 100)
    hold = new_id()
    answers = await asyncio.gather(*(reserve(pipes[n % 5], (1, 3), hold=hold) for n in range(100)))
    assert (answers.count(Held()), answers.count(Shared())) == (1, 99)
    assert await look(redis) == State({1: 97}, {str(hold): "1 3"}, {str(hold)})


async def test_a_hundred_fills_count_once(redis: Pipe, pipes: list[Pipe]) -> None:
    answers = await asyncio.gather(*(fill(pipes[n % 5], {1: n, 2: n}) for n in range(100)))
    assert sorted(filled.products for filled in answers if isinstance(filled, Filled)) == [0] * 99 + [2]
    state = await look(redis)
    assert state.free[1] == state.free[2]


async def test_counting_anew_while_others_buy_counts_right(redis: Pipe, pipes: list[Pipe]) -> None:
    """Postgres still has all units, because none of these holds becomes an order."""

    async def buy(number: int) -> None:
        for _ in range(10):
            match await reserve(pipes[number % 5], (1, 1 + number % 3), hold=(hold := new_id())):
                case Cold():
                    assert isinstance(await fill(pipes[number % 4], {1: TOTAL}), Filled | Moved)
                case Held():
                    await stock.release(pipes[number % 3], SELLER, hold)

    await fill(redis, {1: TOTAL})
    crowd = asyncio.gather(*(buy(number) for number in range(100)))
    counted = colds = 0
    while not crowd.done():
        state = await look(redis)
        held = sum(int(cart.split()[1]) for cart in state.held.values())
        assert state.free.get(1, TOTAL - held) + held == TOTAL
        counted += 1 in state.free
        colds += 1 not in state.free
        await stock.forget(redis, SELLER, [1])
    await crowd
    assert min(counted, colds) >= 1
    assert (await look(redis)).held == {}
