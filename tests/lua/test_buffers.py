"""The buffers: a message waits once, in order, in one living batch at most; a batch that comes back is the same."""

import asyncio
import random
from collections import defaultdict

import pytest

from app.base import keys
from app.domain import buffers
from app.domain.buffers import MOST, SHARDS, Batch, Heard, Taken
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

NOW = 1_800_000_000_000  # ms: these tests have a clock of their own
QUIET_MS, LEASE_MS = 8000, 3000
STEPS = 3000
CHANNEL, PEER = 7, "1001"
SHARD = buffers.shard_of(f"{CHANNEL}:{PEER}")


async def push(
    store: Redis, n: int | str, *, at_ms: int = 0, peer: str = PEER, quiet_ms: int = QUIET_MS, most: int = 5
) -> int | None:
    heard = Heard(f"u{n}", 1, text=f"word {n}")
    return await buffers.push(store, CHANNEL, peer, heard, quiet_ms=quiet_ms, most=most, now_ms=NOW + at_ms)


async def take(store: Redis, *, at_ms: int = 0, size: int = 8, shard: int = SHARD) -> Taken:
    return await buffers.take(store, shard, size=size, lease_ms=LEASE_MS, now_ms=NOW + at_ms)


async def one(store: Redis, *, at_ms: int = 0) -> Batch:
    (batch,) = (await take(store, at_ms=at_ms)).batches
    return batch


def ids(batch: Batch) -> list[str]:
    return [heard.external_id for heard in batch.heard]


def neighbours(count: int) -> list[str]:
    """Other peers whose conversations are of the same shard."""
    peers = (str(number) for number in range(2000, 9000))
    return [peer for peer in peers if buffers.shard_of(f"{CHANNEL}:{peer}") == SHARD][:count]


# ---- when a buffer is due


async def test_it_is_due_so_long_after_the_first_message_however_many_follow(store: Redis) -> None:
    assert await push(store, 1) == QUIET_MS
    assert await push(store, 2, at_ms=5000) == QUIET_MS - 5000
    assert await push(store, 3, at_ms=QUIET_MS - 1) == 1
    assert await take(store, at_ms=QUIET_MS - 1) == Taken([], 1)
    batch = await one(store, at_ms=QUIET_MS + 40)
    assert ids(batch) == ["u1", "u2", "u3"]
    assert (batch.channel_id, batch.peer, batch.tries, batch.died, batch.late_ms) == (CHANNEL, PEER, 1, 0, 40)
    assert [heard.text for heard in batch.heard] == ["word 1", "word 2", "word 3"]


async def test_it_is_due_at_once_with_the_last_message_that_may_wait(store: Redis) -> None:
    assert [await push(store, n, most=3) for n in range(3)] == [QUIET_MS, QUIET_MS, 0]
    assert ids(await one(store)) == ["u0", "u1", "u2"]


async def test_it_is_due_at_once_when_told_so_with_what_waits_already(store: Redis) -> None:
    await push(store, 1)
    assert await push(store, 2, at_ms=10, quiet_ms=0) == 0
    assert ids(await one(store, at_ms=10)) == ["u1", "u2"]


async def test_conversations_wait_for_themselves_and_the_longest_due_comes_first(store: Redis) -> None:
    first, second, third = neighbours(3)
    await push(store, 1, at_ms=300, peer=first)
    await push(store, 2, at_ms=100, peer=second)
    await push(store, 3, at_ms=200, peer=third)
    taken = await take(store, at_ms=QUIET_MS + 250, size=1)
    assert [batch.peer for batch in taken.batches] == [second]
    assert taken.next_ms == 0
    taken = await take(store, at_ms=QUIET_MS + 250)
    assert [batch.peer for batch in taken.batches] == [third]
    assert taken.next_ms == 50


async def test_an_empty_shard_has_nothing(store: Redis) -> None:
    assert await take(store) == Taken([], None)


# ---- repeats


async def test_a_repeat_waits_once_and_is_known_for_a_day(store: Redis) -> None:
    assert await push(store, 1) == QUIET_MS
    assert await push(store, 1, quiet_ms=0) is None  # and makes nothing due
    batch = await one(store, at_ms=QUIET_MS)
    assert await push(store, 1) is None
    await buffers.done(store, batch, now_ms=NOW + QUIET_MS)
    assert await push(store, 1) is None
    assert await take(store, at_ms=10 * QUIET_MS) == Taken([], None)


async def test_channels_do_not_know_each_others_messages(store: Redis) -> None:
    for channel_id in (1, 2):
        heard = Heard("u1", 1, text="word")
        assert await buffers.push(store, channel_id, PEER, heard, quiet_ms=5, most=5, now_ms=NOW) == 5


# ---- a batch, and what comes meanwhile


async def test_a_batch_is_ten_messages_and_the_others_have_their_turn_when_it_is_done(store: Redis) -> None:
    for n in range(13):
        await push(store, n)
    batch = await one(store)
    assert ids(batch) == [f"u{n}" for n in range(MOST)]
    assert await take(store, at_ms=1) == Taken([], LEASE_MS - 1)  # one of a conversation at a time
    assert await buffers.done(store, batch, now_ms=NOW + 5) == 0
    rest = await one(store, at_ms=5)
    assert ids(rest) == ["u10", "u11", "u12"]
    assert rest.id != batch.id
    assert await buffers.done(store, rest, now_ms=NOW + 5) is None


async def test_what_comes_during_a_batch_waits_its_own_time_behind_it(store: Redis) -> None:
    await push(store, 1, quiet_ms=0)
    batch = await one(store)
    assert await push(store, 2, at_ms=100) == LEASE_MS - 100  # if the worker dies; else it is looked at then
    assert await push(store, 3, at_ms=200, quiet_ms=0) == LEASE_MS - 200
    assert await buffers.keep(store, batch, LEASE_MS, now_ms=NOW + 1000)
    assert await take(store, at_ms=LEASE_MS + 999) == Taken([], 1)
    assert await buffers.done(store, batch, now_ms=NOW + 2000) == 0
    assert ids(await one(store, at_ms=2000)) == ["u2", "u3"]


async def test_what_is_not_yet_due_when_the_batch_is_done_stays_until_it_is(store: Redis) -> None:
    await push(store, 1, quiet_ms=0)
    batch = await one(store)
    await push(store, 2, at_ms=100)
    assert await buffers.done(store, batch, now_ms=NOW + 2000) == QUIET_MS - 1900
    assert await take(store, at_ms=2000) == Taken([], QUIET_MS - 1900)
    assert ids(await one(store, at_ms=QUIET_MS + 100)) == ["u2"]


# ---- workers that die, and late ones


async def test_a_batch_of_a_dead_worker_comes_back_the_same(store: Redis) -> None:
    await push(store, 1, quiet_ms=0)
    await push(store, 2)
    dead = await one(store)
    await push(store, 3, at_ms=10)
    heirs = [await one(store, at_ms=n * LEASE_MS + 20) for n in (1, 2)]
    assert [(heir.id, ids(heir), heir.tries, heir.died) for heir in heirs] == [
        (dead.id, ["u1", "u2"], 1, 1), (dead.id, ["u1", "u2"], 1, 2),
    ]  # fmt: skip
    assert len({batch.token for batch in (dead, *heirs)}) == 3


async def test_the_late_word_of_a_worker_that_lost_its_lease_changes_nothing(redis: Pipe) -> None:
    await push(redis, 1, quiet_ms=0)
    late = await one(redis)
    assert (await one(redis, at_ms=LEASE_MS)).id == late.id
    before = await everything(redis)
    assert not await buffers.keep(redis, late, LEASE_MS)
    assert not await buffers.give_back(redis, late, 0, failed=True)
    assert await buffers.done(redis, late) is None
    assert await everything(redis) == before


async def test_a_lease_that_is_over_is_still_its_workers_while_nobody_else_has_it(store: Redis) -> None:
    await push(store, 1, quiet_ms=0)
    batch = await one(store)
    assert await buffers.keep(store, batch, LEASE_MS, now_ms=NOW + 2 * LEASE_MS)
    assert await take(store, at_ms=2 * LEASE_MS) == Taken([], LEASE_MS)


async def test_a_try_that_failed_is_counted_and_one_that_was_given_back_is_not(store: Redis) -> None:
    await push(store, 1, quiet_ms=0)
    first = await one(store)
    assert await buffers.give_back(store, first, 500, failed=True, now_ms=NOW)
    assert await take(store, at_ms=499) == Taken([], 1)
    second = await one(store, at_ms=500)
    assert (second.id, second.tries, second.died) == (first.id, 2, 0)
    assert not await buffers.keep(store, first, LEASE_MS)
    third = await one(store, at_ms=500 + LEASE_MS)
    assert (third.id, third.tries, third.died) == (first.id, 2, 1)
    assert await buffers.give_back(store, third, 0, failed=False, now_ms=NOW + 4000)
    fourth = await one(store, at_ms=4000)
    assert (fourth.id, ids(fourth), fourth.tries, fourth.died) == (first.id, ["u1"], 2, 0)
    assert await buffers.done(store, third, now_ms=NOW + 4000) is None
    assert ids(await one(store, at_ms=4000 + LEASE_MS)) == ["u1"]


# ---- what Redis loses, and what nobody can read


async def test_bytes_that_nobody_can_read_stop_nothing(store: Redis) -> None:
    await push(store, 1)
    await push(store, 2, quiet_ms=0)
    for n, rubbish in ((1, b"\xc1\xff"), (2, "no message")):
        await store.command("HSET", keys.buffer_heard(SHARD), f"{n} {CHANNEL}:{PEER}", rubbish)
    batch = await one(store)
    assert batch.heard == []
    await push(store, 3, quiet_ms=0)
    assert await buffers.done(store, batch, now_ms=NOW) == 0
    assert ids(await one(store)) == ["u3"]


@pytest.mark.parametrize("lost", ["talks", "heard", "due", "seen"])
@pytest.mark.parametrize("under_way", [False, True])
async def test_whatever_key_vanishes_the_next_message_is_heard(store: Redis, lost: str, under_way: bool) -> None:
    await push(store, 1, quiet_ms=0)
    batch = await one(store) if under_way else None
    seen = keys.buffer_seen(SHARD, CHANNEL, "u1")
    await store.command("DEL", seen if lost == "seen" else f"{{c:{SHARD}}}{lost}")
    await push(store, 2, at_ms=1, quiet_ms=0)
    if batch:
        await buffers.keep(store, batch, LEASE_MS, now_ms=NOW)
        await buffers.done(store, batch, now_ms=NOW + 1)
    assert "u2" in ids(await one(store, at_ms=1))


# ---- thousands of steps


class Witness:
    """What may be said of every batch, whoever has it."""

    def __init__(self) -> None:
        self.pushed: dict[str, list[str]] = defaultdict(list)  # by peer, in order
        self.done: dict[str, list[str]] = defaultdict(list)
        self.batches: dict[str, tuple[object, list[str]]] = {}  # by peer: the one that is not done yet
        self.leases: dict[str, tuple[str, int]] = {}  # by peer: whose it is, until when
        self.lapsed = 0

    def took(self, batch: Batch, now_ms: int) -> None:
        known = self.batches.setdefault(batch.peer, (batch.id, ids(batch)))
        assert known == (batch.id, ids(batch))  # the same again, or the only one
        held = self.leases.get(batch.peer)
        assert held is None or held[1] <= now_ms, "two workers have it"
        self.lapsed += held is not None
        self.leases[batch.peer] = batch.token, now_ms + LEASE_MS
        assert 1 <= len(batch.heard) <= MOST
        at = len(self.done[batch.peer])
        assert ids(batch) == self.pushed[batch.peer][at : at + len(batch.heard)]

    def mine(self, batch: Batch) -> bool:
        return self.leases.get(batch.peer, ("", 0))[0] == batch.token

    def ended(self, batch: Batch) -> None:
        if self.mine(batch):
            del self.leases[batch.peer], self.batches[batch.peer]
            self.done[batch.peer] += ids(batch)


async def step(store: Redis, chance: random.Random, witness: Witness, hands: list[Batch], now_ms: int) -> None:
    """One thing that a door or some worker does, or does too late."""
    match chance.choice(["push", "push", "push", "again", "take", "keep", "fail", "free", "done", "done", "die"]):
        case "push" | "again" as how:
            peer = chance.choice(PEERS)
            old = how == "again" and witness.pushed[peer]
            name = chance.choice(old) if old else f"{peer}-{len(witness.pushed[peer])}"
            quiet_ms, most = chance.choice([0, 500, 8000]), chance.choice([1, 3, 30])
            heard = Heard(name, 1, text=name)
            told = await buffers.push(store, CHANNEL, peer, heard, quiet_ms=quiet_ms, most=most, now_ms=now_ms)
            assert (told is None) is bool(old)
            witness.pushed[peer] += [] if old else [name]
        case "take":
            taken = await buffers.take(
                store, SHARD, size=chance.randint(1, 4), lease_ms=LEASE_MS, now_ms=now_ms
            )  # fmt: skip
            for batch in taken.batches:
                witness.took(batch, now_ms)
            hands += taken.batches
        case "die" if hands:
            hands.pop(chance.randrange(len(hands)))
        case deed if hands:
            batch = hands[chance.randrange(len(hands))]
            if deed == "keep":
                assert await buffers.keep(store, batch, LEASE_MS, now_ms=now_ms) is witness.mine(batch)
                if witness.mine(batch):
                    witness.leases[batch.peer] = batch.token, now_ms + LEASE_MS
                return
            hands.remove(batch)
            if deed == "done":
                await buffers.done(store, batch, now_ms=now_ms)
                witness.ended(batch)
            else:
                failed = deed == "fail"
                assert await buffers.give_back(store, batch, 0, failed=failed, now_ms=now_ms) is witness.mine(batch)
                if witness.mine(batch):
                    del witness.leases[batch.peer]


PEERS = neighbours(5)


@pytest.mark.parametrize("seed", [1, 2])
async def test_thousands_of_random_steps_lose_nothing_double_nothing_and_keep_the_order(
    store: Redis, seed: int
) -> None:
    chance, witness, hands, now_ms = random.Random(seed), Witness(), list[Batch](), NOW
    for _ in range(STEPS):
        now_ms += chance.choice([0, 0, 10, 200, 1000])
        await step(store, chance, witness, hands, now_ms)
    for _ in range(STEPS):
        now_ms += 8000
        taken = await buffers.take(store, SHARD, size=9, lease_ms=LEASE_MS, now_ms=now_ms)
        for batch in taken.batches:
            witness.took(batch, now_ms)
            await buffers.done(store, batch, now_ms=now_ms)
            witness.ended(batch)
        if taken.next_ms is None:
            break
    assert witness.done == witness.pushed
    assert sum(map(len, witness.pushed.values())) > STEPS // 10
    assert witness.lapsed > 5
    assert await store.command("EXISTS", *(f"{{c:{SHARD}}}{part}" for part in ("talks", "heard", "due"))) == 0


async def test_many_workers_at_once_share_the_batches_and_nobody_has_one_twice(redis: Pipe) -> None:
    peers = [str(n) for n in range(300)]
    for n in range(3):
        await asyncio.gather(*(push(redis, f"{peer}-{n}", peer=peer, quiet_ms=0) for peer in peers))

    async def worker() -> list[Batch]:
        found = await asyncio.gather(*(take(redis, shard=shard, size=9) for shard in range(SHARDS)))
        return [batch for taken in found for batch in taken.batches]

    hands = [batch for taken in await asyncio.gather(*(worker() for _ in range(20))) for batch in taken]
    assert sorted(batch.peer for batch in hands) == sorted(peers)
    assert all(ids(batch) == [f"u{batch.peer}-{n}" for n in range(3)] for batch in hands)
    assert len({batch.id for batch in hands}) == 300


# ---- life and cost


async def test_everything_lives_a_day_from_the_last_word(redis: Pipe) -> None:
    parts = ("talks", "heard", "due")
    await push(redis, 1, quiet_ms=0)
    await check_life(redis, keys.buffer_seen(SHARD, CHANNEL, "u1"), "{c:<shard>}seen:<channel>:<message>")

    async def shorten() -> None:
        for part in parts:
            await redis.command("PEXPIRE", f"{{c:{SHARD}}}{part}", 60_000)

    async def check(*names: str) -> None:
        for part in names:
            await check_life(redis, f"{{c:{SHARD}}}{part}", f"{{c:<shard>}}{part}")

    await check(*parts)
    await shorten()
    batch = await one(redis)
    await check(*parts)
    await shorten()
    await buffers.keep(redis, batch, LEASE_MS)
    await check("talks", "due")
    await push(redis, 2)
    await shorten()
    await buffers.done(redis, batch)
    await check(*parts)


async def test_each_costs_what_it_states(redis: Pipe) -> None:
    for n, peer in enumerate([PEER, *neighbours(2)]):
        heard = Heard(f"u{n}", 1)
        pushed = buffers.push(redis, CHANNEL, peer, heard, quiet_ms=0, most=5)
        assert await commands_run(redis, pushed) == stated(buffers.PUSH).most() - 1
    taken: list[Batch] = []

    async def take_three() -> None:
        taken.extend((await buffers.take(redis, SHARD, size=9, lease_ms=LEASE_MS)).batches)

    assert await commands_run(redis, take_three()) == stated(buffers.TAKE).most(lines=3)
    assert await commands_run(redis, take_three()) == 3  # nothing is due
    heard = Heard("another", 1)
    pushed = buffers.push(redis, CHANNEL, PEER, heard, quiet_ms=0, most=5)
    assert await commands_run(redis, pushed) == stated(buffers.PUSH).most() - 1  # one more when the lease is lost
    batch = next(batch for batch in taken if batch.peer == PEER)
    assert await commands_run(redis, buffers.keep(redis, batch, LEASE_MS)) == stated(buffers.KEEP).most() - 1
    assert await commands_run(redis, buffers.done(redis, batch)) == stated(buffers.DONE).most()
