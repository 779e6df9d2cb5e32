"""The counters and the truth, over random interleavings of everything that happens to them.

Each seller is a little shop of its own: a Postgres of plain numbers, checkouts that go one step at a time and may die
between any two, counts that are overtaken, keys that vanish. After each step no counter is above what Postgres has,
less the units that are held and not claimed. What it may have too many are only units whose hold was lost and whose
claim or withdrawal has not been told yet. When all is quiet, a count is exact and nobody is refused wrongly.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from app.base.ids import derived_id
from app.domain import stock
from app.domain.stock import (
    Cold,
    Committed,
    Filled,
    Forgotten,
    Gone,
    Held,
    Moved,
    Released,
    Shared,
    Short,
    Tallied,
    Units,
)  # fmt: skip
from app.infra.lua import Redis, Script
from app.infra.pipe import Pipe

SELLERS = 80
DAYS, STEPS = 5, 35  # each day ends in quiet
PRODUCTS = 1, 2, 3
LOOK = 'return {redis.call("HGETALL", KEYS[1]), redis.call("HGETALL", KEYS[2])}'

Steps = AsyncIterator[None]  # what may happen between two of them is anything
Cart = dict[int, int]


class Wrong(Exception):
    """A counter says what it must not say."""


class Seller:
    """One seller's Redis keys, and the Postgres that they are about."""

    def __init__(self, store: Redis, seller_id: int, seed: int) -> None:
        self.store, self.id, self.random = store, seller_id, random.Random(seed)
        self.name = f"seed {seed}"
        self.postgres = {product: self.random.randint(1, 6) for product in PRODUCTS}
        self.claimed: dict[UUID, Cart] = {}  # in Postgres, by hold, and not told to Redis yet
        self.ordered: set[UUID] = set()
        self.withdrawn: list[Cart] = []  # out of Postgres, and not told yet
        self.running: list[Steps] = []
        self.keys = stock._keys(seller_id)
        self.fills = self.doubted = 0

    # ---- what happens, step by step

    async def checkout(self, hold: UUID, cart: Cart) -> Steps:
        """As flows/checkout.py: hold, claim, and tell."""
        lines = [Units(product, units) for product, units in cart.items()]
        answer: Any = None
        for _ in range(3):
            answer = await stock.reserve(self.store, self.id, hold, lines)
            yield
            if isinstance(answer, Cold):
                async for _step in self.count(list(answer.products)):
                    yield
                continue
            if isinstance(answer, Short):
                return
            break
        if hold not in self.ordered and all(self.postgres[product] >= units for product, units in cart.items()):
            self.ordered.add(hold)
            self.claimed[hold] = cart
            for product, units in cart.items():
                self.postgres[product] -= units
            yield
            await self.tell(hold, lines)
        elif answer == Held():
            yield
            await stock.release(self.store, self.id, hold)
        elif answer == Shared() and hold in self.ordered:
            yield
            await self.tell(hold, lines, again=True)

    async def tell(self, hold: UUID, lines: list[Units], *, again: bool = False) -> None:
        told = await stock.commit(self.store, self.id, hold, lines, again=again)
        if told == Committed() or not again:
            self.claimed.pop(hold, None)

    async def count(self, products: list[int], *, renew: bool = False) -> Steps:
        for _ in range(2):
            tallied = await stock.tally(self.store, self.id, products)
            yield
            counts: dict[int, int | None] = {product: self.postgres[product] for product in products}
            yield
            filled = await stock.fill(self.store, self.id, tallied, counts, renew=renew)
            if isinstance(filled, Filled):
                self.fills += 1
                self.doubted += filled.doubted
                return

    async def restock(self, product: int) -> Steps:
        """Units come, as from an import or an order that expired."""
        self.postgres[product] += self.random.randint(1, 4)
        yield
        await stock.forget(self.store, self.id, [product])

    async def withdraw(self, product: int) -> Steps:
        gone = {product: self.random.randint(0, self.postgres[product])}
        self.postgres[product] -= gone[product]
        self.withdrawn.append(gone)
        yield
        await stock.forget(self.store, self.id, [product])
        self.withdrawn.remove(gone)

    async def vanish(self) -> Steps:
        """A flush, or what its own life ends: the counters' is over before that of the holds."""
        free, held, due, _, sold = self.keys
        lost = self.random.choice([[*self.keys], [free], [free], [sold], [free, held, due]])
        await self.store.command("DEL", *lost)
        return
        yield

    async def lapse(self) -> Steps:
        holds = cast(list[bytes], await self.store.command("ZRANGE", self.keys[2], 0, -1))
        if holds:
            await self.store.command("ZADD", self.keys[2], 1, self.random.choice(holds))
        return
        yield

    # ---- the run

    def begin(self) -> Steps:
        some = self.random.sample(PRODUCTS, self.random.randint(1, 3))
        match self.random.choices(["buy", "count", "restock", "withdraw", "vanish", "lapse"], [60, 15, 4, 3, 3, 4])[0]:
            case "buy":
                cart = {product: self.random.randint(1, 2) for product in sorted(some)}
                key = f"{self.random.randint(1, 25)}/{cart}".encode()  # often a repeat, at times of one that runs
                return self.checkout(derived_id(key), cart)
            case "count":
                return self.count(some, renew=self.random.random() < 0.5)
            case "restock":
                return self.restock(some[0])
            case "withdraw":
                return self.withdraw(some[0])
            case "vanish":
                return self.vanish()
        return self.lapse()

    async def live(self) -> None:
        for _ in range(DAYS):
            for _ in range(STEPS):
                if len(self.running) < 8 and self.random.random() < 0.5:
                    self.running.append(self.begin())
                await self.step(dies=0.02)
            while self.running:
                await self.step(dies=0)
            await self.check_quiet()

    async def step(self, *, dies: float) -> None:
        if not self.running:
            return
        one = self.random.choice(self.running)
        # Only checkouts die: who changed the stock by hand tells Redis in the end.
        dead = self.random.random() < dies and cast(Any, one).ag_code.co_name == "checkout"
        if dead or await anext(one, self) is self:
            self.running.remove(one)
        await self.check()

    async def look(self) -> tuple[Cart, dict[UUID, Cart]]:
        free, held = cast(list[list[bytes]], await self.store.command("EVAL", LOOK, 2, *self.keys[:2]))
        holds = {}
        for hold, text in zip(held[::2], held[1::2], strict=True):
            parts = [int(part) for part in text.split()]
            holds[UUID(hold.decode())] = dict(zip(parts[::2], parts[1::2], strict=True))
        return {int(p): int(n) for p, n in zip(free[::2], free[1::2], strict=True)}, holds

    async def check(self) -> None:
        """Raises: Wrong when a counter is above the truth."""
        free, holds = await self.look()
        for product, units in free.items():
            held = sum(cart.get(product, 0) for hold, cart in holds.items() if hold not in self.claimed)
            lost = [cart for hold, cart in self.claimed.items() if hold not in holds]
            untold = sum(cart.get(product, 0) for cart in (*lost, *self.withdrawn))
            if units > self.postgres[product] - held + untold:
                raise Wrong(f"{self.name}: {units} of {product}; {self.postgres}, held {held}, untold {untold}")

    async def check_quiet(self) -> None:
        """Raises: Wrong when somebody is refused what is there, or a count is not exact."""
        await stock.reserve(self.store, self.id, derived_id(b"dead"), [Units(product, 1) for product in PRODUCTS])
        for hold in cast(list[bytes], await self.store.command("ZRANGE", self.keys[2], 0, -1)):
            await self.store.command("ZADD", self.keys[2], 1, hold)  # of the dead
        await stock.tally(self.store, self.id, [99])
        for doubted in cast(list[bytes], await self.store.command("HKEYS", self.keys[3])):
            await self.store.command("HSET", self.keys[3], doubted, 1)  # the time to believe is over
        for product, units in self.postgres.items():
            if not units:
                continue
            answer = await stock.reserve(self.store, self.id, derived_id(b"all"), [Units(product, units)])
            if isinstance(answer, Short):
                raise Wrong(f"{self.name}: {answer} and no doubt; Postgres has {self.postgres}")
            await stock.release(self.store, self.id, derived_id(b"all"))
        self.claimed.clear()  # of the dead; the count makes up for them
        tallied = await stock.tally(self.store, self.id, list(PRODUCTS))
        filled = await stock.fill(self.store, self.id, tallied, {**self.postgres})
        if not isinstance(filled, Filled) or filled.doubted or (await self.look()) != (self.postgres, {}):
            raise Wrong(f"{self.name}: {filled}, {await self.look()}; Postgres has {self.postgres}")


async def live(store: Redis, sellers: int) -> list[Seller]:
    base = random.getrandbits(32)
    living = [Seller(store, number, base + number) for number in range(1, sellers + 1)]
    try:
        async with asyncio.TaskGroup() as lives:
            for seller in living:
                lives.create_task(seller.live())
    except ExceptionGroup as found:
        raise found.exceptions[0] from None
    return living


async def test_no_counter_is_ever_above_the_truth(redis: Pipe) -> None:
    lived = await live(redis, SELLERS)
    assert sum(seller.fills for seller in lived) > 5 * SELLERS
    assert sum(seller.doubted for seller in lived) > SELLERS
    assert sum(len(seller.ordered) for seller in lived) > 5 * SELLERS


FAULTS = {
    "what was sold meanwhile is counted":
        ("fill", "tonumber(sold_now[i + 1] or 0) - tonumber(ARGV[3 + 3 * i])", "0"),
    "what is held is counted": ("fill", "(less[product] or 0) + tonumber(units)", "(less[product] or 0)"),
    "any epoch will do": ("fill", "sold_now[1] ~= epoch or", "sold_now[1] ~= epoch and"),
    "a fill is always sure": ("fill", "if less[product] == 0 then", "if less[product] >= 0 then"),
    "a sale without a hold is not taken off": ("commit", "-tonumber(ARGV[i + 1])", "0"),
    "a sale is not told": ("commit", 'sold, ARGV[i], ARGV[i + 1]', "sold, ARGV[i], 0"),
    "a lapse leaves no doubt": ("tally", 'redis.call("HSET", doubt, unpack(lines))', ""),
    "a change is told to the counters alone": ("forget", 'redis.call("DEL", sold)', 'redis.call("EXISTS", sold)'),
    "what is given back stays held": ("release", 'redis.call("HDEL", held, hold)', ""),
}  # fmt: skip
REPLIES: dict[str, Any] = {
    "fill": (Filled, Moved), "commit": (Committed, Gone), "tally": (Tallied,), "forget": (Forgotten,),
    "release": (Released, Gone),
}  # fmt: skip


@pytest.fixture(params=FAULTS)
def planted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One script with one fault in it."""
    verb, right, wrong = FAULTS[request.param]
    script: Script[Any] = getattr(stock, verb.upper())
    assert right in script.body
    (tmp_path / "stock").mkdir()
    (tmp_path / f"stock/{verb}.lua").write_text(script.body.replace(right, wrong))
    monkeypatch.setattr(stock, verb.upper(), Script(script.name, *REPLIES[verb], root=tmp_path))


@pytest.mark.usefixtures("planted")
async def test_each_fault_of_a_script_would_be_seen(redis: Pipe) -> None:
    with pytest.raises(Wrong):
        await live(redis, SELLERS)
