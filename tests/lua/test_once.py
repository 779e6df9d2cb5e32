"""Idempotency claims: one owner, one reply, leases that end, and nothing kept by whoever lost them."""

import asyncio
import random
from collections import defaultdict
from typing import cast

import pytest

from app.base import keys
from app.domain import once
from app.domain.once import Abandoned, Claimed, Finished, Lost, Mismatch, Replay, Running, Ticket
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

KEYS, CALLS = 2_000, 5  # each key is asked for by so many callers at once


def ticket(key: str = "key", *, user_id: int = 7, route: str = "POST /api/orders", body: bytes = b"{}") -> Ticket:
    return once.ticket(user_id, key, route, body)


async def lapse(store: Redis, one: Ticket) -> None:
    """The lease is over: the key is gone, as Redis does it."""
    await store.command("DEL", one.entry)


async def test_one_works_and_the_others_are_told(store: Redis) -> None:
    first, second = ticket(), ticket()
    assert await once.claim(store, first) == Claimed()
    told = await once.claim(store, second)
    assert isinstance(told, Running)
    assert 0 < told.left_ms <= once.LEASE_MS
    assert await once.finish(store, first, b"reply \x00\xff") == Finished()
    assert await once.claim(store, second) == Replay(b"reply \x00\xff")
    assert await once.claim(store, first) == Replay(b"reply \x00\xff")


@pytest.mark.parametrize(
    "other",
    [{"body": b"{ }"}, {"route": "POST /api/orders/1/payments"}, {"body": b""}],
    ids=["another body", "another route", "no body"],
)
@pytest.mark.parametrize("finished", [False, True])
async def test_a_key_belongs_to_one_request(store: Redis, other: dict[str, str], finished: bool) -> None:
    first = ticket()
    await once.claim(store, first)
    if finished:
        await once.finish(store, first, b"reply")
    assert await once.claim(store, ticket(**other)) == Mismatch()  # type: ignore[arg-type]


async def test_a_key_belongs_to_one_user(store: Redis) -> None:
    first = ticket()
    await once.claim(store, first)
    await once.finish(store, first, b"reply of user 7")
    assert await once.claim(store, ticket(user_id=8)) == Claimed()


async def test_an_abandoned_key_is_free_also_for_another_body(store: Redis) -> None:
    first = ticket()
    await once.claim(store, first)
    assert await once.abandon(store, first) == Abandoned()
    assert await once.abandon(store, first) == Lost()
    assert await once.finish(store, first, b"reply") == Lost()
    assert await once.claim(store, ticket(body=b"[]")) == Claimed()


async def test_a_holder_past_its_lease_keeps_nothing(store: Redis) -> None:
    paused, next_one = ticket(), ticket()
    await once.claim(store, paused)
    await lapse(store, paused)
    assert await once.finish(store, paused, b"late") == Lost()
    assert await once.claim(store, next_one) == Claimed()
    assert await once.finish(store, paused, b"late") == Lost()
    assert await once.abandon(store, paused) == Lost()
    assert await once.finish(store, next_one, b"in time") == Finished()
    assert await once.finish(store, paused, b"late") == Lost()
    assert await once.claim(store, ticket()) == Replay(b"in time")


async def test_a_kept_reply_cannot_be_changed_or_abandoned(store: Redis) -> None:
    first = ticket()
    await once.claim(store, first)
    await once.finish(store, first, b"reply")
    assert await once.finish(store, first, b"another") == Finished()
    assert await once.abandon(store, first) == Lost()
    assert await once.claim(store, ticket()) == Replay(b"reply")


async def test_a_flush_between_claim_and_finish_keeps_nothing(store: Redis) -> None:
    first = ticket()
    await once.claim(store, first)
    await store.command("FLUSHALL")
    assert await once.finish(store, first, b"reply") == Lost()
    assert await once.claim(store, ticket()) == Claimed()


class Mortals:
    """Callers of keys who die at every step; a lease ends with its owner. What was answered is noted.

    The effect is a unique key elsewhere (Postgres), as in the shop: here a dict, written between claim and finish.
    """

    def __init__(self, store: Redis) -> None:
        self.store, self.chance, self.tries = store, random.Random(11), 0
        self.effects: dict[int, int] = {}
        self.answers: dict[int, set[bytes]] = defaultdict(set)

    async def client(self, n: int) -> None:
        while not await self.request(n):
            pass

    async def request(self, n: int) -> bool:
        """One try; False when it must be repeated."""
        self.tries += 1
        one = ticket(f"key-{n}", user_id=n % 100)
        match await once.claim(self.store, one):
            case Replay(reply=reply):
                self.answers[n].add(reply)
                return True
            case Claimed():
                return await self.work(n, one)
            case Running():
                await asyncio.sleep(0)
        return False

    async def work(self, n: int, one: Ticket) -> bool:
        if self.dies():
            await lapse(self.store, one)
            return False
        self.effects.setdefault(n, self.tries)  # granted once, to whoever came first
        if self.dies():
            await lapse(self.store, one)
            return False
        reply = b"order %d, said %d" % (self.effects[n], self.tries)  # were two of them kept, they would differ
        if await once.finish(self.store, one, reply) == Lost() or self.dies():
            return False  # also with the answer in hand: the client asks again
        self.answers[n].add(reply)
        return True

    def dies(self) -> bool:
        return self.chance.random() < 0.2


async def test_thousands_of_keys_have_one_effect_each_whoever_dies(store: Redis) -> None:
    """tests/e2e/test_once_kills.py does it with processes and kill -9."""
    mortals, keys_here = Mortals(store), KEYS if isinstance(store, Pipe) else KEYS // 10
    for start in range(0, keys_here, 200):
        some = range(start, min(start + 200, keys_here))
        await asyncio.gather(*(mortals.client(n) for n in some for _ in range(CALLS)))
    assert sorted(mortals.effects) == list(range(keys_here))
    assert {n: len(said) for n, said in mortals.answers.items()} == dict.fromkeys(range(keys_here), 1)


async def test_a_lease_ends_by_itself_within_fifteen_seconds(redis: Pipe) -> None:
    one = ticket()
    await once.claim(redis, one)
    left_ms = cast(int, await redis.command("PTTL", one.entry))
    assert once.LEASE_MS - 5000 < left_ms <= once.LEASE_MS < 15_000


async def test_a_kept_reply_lives_as_long_as_the_map_says(redis: Pipe) -> None:
    one = ticket()
    await once.claim(redis, one)
    await once.finish(redis, one, b"reply")
    await check_life(redis, one.entry, "{u:<user>}once:<key>")
    assert one.entry == keys.once(7, one.entry.rpartition(":")[2])


async def test_being_told_changes_nothing(redis: Pipe) -> None:
    first = ticket()
    await once.claim(redis, first)
    before = await everything(redis)
    await asyncio.gather(
        once.claim(redis, ticket()), once.claim(redis, ticket(body=b"x")), once.abandon(redis, ticket()),
        once.finish(redis, ticket(), b"reply"),
    )  # fmt: skip
    assert await everything(redis) == before


async def test_each_costs_what_it_states(redis: Pipe) -> None:
    first = ticket()
    assert await commands_run(redis, once.claim(redis, first)) == stated(once.CLAIM).most()
    assert await commands_run(redis, once.claim(redis, ticket())) <= stated(once.CLAIM).most()
    assert await commands_run(redis, once.finish(redis, first, b"reply")) == stated(once.FINISH).most()
    other = ticket("other")
    await once.claim(redis, other)
    assert await commands_run(redis, once.abandon(redis, other)) == stated(once.ABANDON).most()
