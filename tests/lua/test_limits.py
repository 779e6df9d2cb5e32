"""Rate limits: exact in Redis whoever asks, the same in a process's own buckets, and never a part of a token lost."""

import asyncio
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import count, islice
from typing import cast

import pytest
import uvloop

from app.domain import limits
from app.domain.limits import Admitted, Buckets, Charge, Policy, Refused, Who, Without
from app.infra.embedded import Servers
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import commands_run, everything, stated

NOW = 1_800_000_000_000  # ms: these tests have a clock of their own
PROCESSES, CALLERS, REQUESTS, LIMIT, RUNS = 4, 5, 2000, 100, 50
BUCKETS, DECISIONS = 200, int(os.environ.get("TORG_DECISIONS", "20000"))  # a million take two minutes


def policy(burst: int = 5, refill: int = 5, period_s: int = 10, *, name: str = "test") -> Policy:
    return Policy(name, burst, refill, period_s, Who.CALLER, Without.OPEN)


FIVE = policy()  # a token every 2 s


async def ask(store: Redis, *charges: Charge, at_ms: int = 0) -> Admitted | Refused:
    return await limits.admit(store, charges, now_ms=NOW + at_ms)


def one(subject: str = "user:1", tokens: int = 1, of: Policy = FIVE) -> Charge:
    return Charge(of, subject, tokens)


# ---- one bucket


async def test_a_burst_is_admitted_and_then_one_by_one(store: Redis) -> None:
    for left in (4, 3, 2, 1, 0):
        assert await ask(store, one()) == Admitted((left, (5 - left) * 2000))
    assert await ask(store, one()) == Refused(2000, (0, 10_000))
    assert await ask(store, one(), at_ms=1999) == Refused(1, (0, 8001))
    assert await ask(store, one(), at_ms=2000) == Admitted((0, 10_000))
    assert await ask(store, one(), at_ms=2000) == Refused(2000, (0, 10_000))


async def test_there_is_no_second_burst_at_the_edge_of_a_window(store: Redis) -> None:
    for _ in range(5):
        await ask(store, one(), at_ms=9_999)
    assert await ask(store, one(), at_ms=10_000) == Refused(1999, (0, 9999))


async def test_who_sleeps_as_told_is_admitted(store: Redis) -> None:
    awkward = policy(3, 7, 11)
    now_ms = 0
    for _ in range(50):
        match await ask(store, one(of=awkward), at_ms=now_ms):
            case Refused(wait_ms=wait_ms):
                assert isinstance(await ask(store, one(of=awkward), at_ms=now_ms + wait_ms - 1), Refused)
                now_ms += wait_ms
                assert isinstance(await ask(store, one(of=awkward), at_ms=now_ms), Admitted)
            case Admitted():
                pass


async def test_refused_calls_eat_nothing(redis: Pipe) -> None:
    await limits.admit(redis, [one(tokens=5)])
    before = await everything(redis)
    for _ in range(100):
        assert isinstance(await limits.admit(redis, [one(tokens=2)]), Refused)
    assert await everything(redis) == before


async def test_an_unused_bucket_is_never_more_than_full(store: Redis) -> None:
    await ask(store, one())
    assert await ask(store, one(tokens=5), at_ms=10**9) == Admitted((0, 10_000))
    assert isinstance(await ask(store, one(), at_ms=10**9), Refused)


async def test_a_clock_that_goes_back_gives_nothing_and_bans_nobody(store: Redis) -> None:
    await ask(store, one(tokens=5), at_ms=100_000)
    assert await ask(store, one(), at_ms=0) == Refused(2000, (0, 10_000))
    assert await ask(store, one(), at_ms=1999) == Refused(1, (0, 8001))
    assert await ask(store, one(), at_ms=2000) == Admitted((0, 10_000))
    await ask(store, one(of=FIVE, subject="user:2", tokens=4), at_ms=100_000)
    assert await ask(store, one(subject="user:2"), at_ms=0) == Admitted((0, 10_000))
    assert await ask(store, one(subject="user:2"), at_ms=2000) == Admitted((0, 10_000))


@pytest.mark.parametrize("tokens", [0, -1, 6, 10**12])
async def test_a_charge_that_is_none_or_could_never_fit_is_a_defect(store: Redis, tokens: int) -> None:
    with pytest.raises(ValueError, match="tokens of a bucket of 5"):
        await ask(store, one(tokens=tokens))


async def test_a_user_is_not_the_address_of_the_same_name(store: Redis) -> None:
    await ask(store, one("user:1", 5))
    assert await ask(store, one("address:1", 5)) == Admitted((0, 10_000))


# ---- several buckets


async def test_all_are_charged_or_none(store: Redis) -> None:
    wide = policy(100, 100, 60, name="wide")
    await ask(store, one(tokens=5))
    assert await ask(store, Charge(wide, "user:1", 7), one()) == Refused(2000, (100, 0, 0, 10_000))
    assert await ask(store, Charge(wide, "user:1", 7)) == Admitted((93, 4200))
    assert await ask(store, Charge(wide, "user:1", 94), one()) == Refused(2000, (93, 4200, 0, 10_000))
    # The longest wait is the one that helps.
    assert await ask(store, Charge(wide, "user:1", 100), one()) == Refused(4200, (93, 4200, 0, 10_000))


async def test_new_figures_begin_new_buckets(store: Redis) -> None:
    await ask(store, one(tokens=5))
    assert await ask(store, one(of=policy(5, 5, 86_400))) == Admitted((4, 17_280_000))
    await ask(store, one("user:2", 5, policy(5)))
    assert await ask(store, one("user:2", 1, policy(2))) == Refused(8000, (0, 10_000))  # a burst that was cut


async def test_a_flush_forgives_and_breaks_nothing(store: Redis) -> None:
    await ask(store, one(tokens=5))
    await store.command("FLUSHALL")
    assert await ask(store, one(tokens=5)) == Admitted((0, 10_000))


# ---- exact


async def test_random_decisions_lose_no_part_of_a_token(redis: Pipe) -> None:
    """Against exact fractions; the process's own buckets make the same decisions."""
    chance = random.Random(5)
    drawn = (
        policy(chance.randint(1, 50), chance.randint(1, 97), chance.randint(1, 600), name=f"p{n}") for n in count()
    )
    # Redis forgets by its own clock, which goes on while a busy machine stands still.
    shapes = list(islice((shape for shape in drawn if shape.window_s() >= 60), 40))
    of = [shapes[n % len(shapes)] for n in range(BUCKETS)]
    level = [shape.burst * shape.period_s * 1000 for shape in of]  # numerators; the denominator is the period
    now, own, wrong = [NOW + n for n in range(BUCKETS)], Buckets(), 0
    for _ in range(DECISIONS // BUCKETS):
        asked = []
        for n, shape in enumerate(of):
            step_ms = chance.randint(0, 2 * shape.window_s() * 1000 // shape.burst)
            now[n] += step_ms
            level[n] = min(shape.burst * shape.period_s * 1000, level[n] + step_ms * shape.refill)
            asked.append(Charge(shape, f"user:{n}", chance.randint(1, max(1, shape.burst // 3))))
        answers = await asyncio.gather(*(limits.admit(redis, [c], now_ms=t) for c, t in zip(asked, now, strict=True)))
        for n, (charge, answer) in enumerate(zip(asked, answers, strict=True)):
            token = charge.policy.period_s * 1000
            fits = level[n] >= charge.tokens * token
            level[n] -= charge.tokens * token if fits else 0
            wrong += isinstance(answer, Admitted) != fits or answer.figures[0] != level[n] // token
            wrong += own.admit([charge], now[n]) != answer
    assert wrong == 0


def be_there() -> None:
    time.sleep(1)


def crowd(url: str, start_s: float) -> list[int]:
    """How many this process was admitted in each run."""

    async def run() -> list[int]:
        redis = Pipe(url, timeout_ms=30_000)
        limit = policy(LIMIT, 1, 86_000 // LIMIT, name="crowd")
        admitted = []

        async def caller(charge: Charge) -> int:
            answers = [await limits.admit(redis, [charge]) for _ in range(REQUESTS // PROCESSES // CALLERS)]
            return sum(isinstance(answer, Admitted) for answer in answers)

        for number in range(RUNS):
            await asyncio.sleep(max(0, start_s + number / 20 - time.time()))  # all processes at once
            charge = Charge(limit, f"user:{number}")
            admitted.append(sum(await asyncio.gather(*(caller(charge) for _ in range(CALLERS)))))
        await redis.aclose()
        return admitted

    return uvloop.run(run())


async def test_two_thousand_requests_from_four_processes_are_exactly_a_hundred(redis: Pipe, servers: Servers) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        # Each process is up, and has this module, before the first run.
        await asyncio.gather(*(loop.run_in_executor(pool, be_there) for _ in range(PROCESSES)))
        start_s = time.time() + 0.2
        runs = await asyncio.gather(
            *(loop.run_in_executor(pool, crowd, servers.redis_url, start_s) for _ in range(PROCESSES))
        )
    assert [sum(of_each) for of_each in zip(*runs, strict=True)] == [LIMIT] * RUNS
    assert any(sum(n > 0 for n in of_each) > 1 for of_each in zip(*runs, strict=True)), "they never met"


async def test_a_slow_trickle_keeps_every_token(redis: Pipe) -> None:
    """1.5 tokens a second, asked for every 100 ms: a limiter that rounds loses a third of them."""
    trickle = policy(2, 3, 2)
    answers = [await ask(redis, one(of=trickle), at_ms=100 * n) for n in range(10_000)]
    assert sum(isinstance(answer, Admitted) for answer in answers) == 2 + int(Fraction(3, 2) * Fraction(9999, 10))


# ---- life and cost


async def test_a_bucket_lives_until_it_is_full_and_a_second_more(redis: Pipe) -> None:
    await limits.admit(redis, [one(tokens=2)])
    left_ms = cast(int, await redis.command("PTTL", limits.bucket(one())))
    assert 4000 < left_ms <= 5000


@pytest.mark.parametrize("buckets", [1, 3])
async def test_admit_costs_what_it_states(redis: Pipe, buckets: int) -> None:
    charges = [one(f"user:{n}", 5) for n in range(buckets)]
    cost = stated(limits.ADMIT)
    assert await commands_run(redis, limits.admit(redis, charges)) == cost.most(lines=buckets)
    assert await commands_run(redis, limits.admit(redis, charges)) < cost.most(lines=buckets)


# ---- this process alone


def test_own_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT", 3)
    own = Buckets()
    for n in range(3):
        own.admit([one(f"user:{n}", 5)], NOW)
    assert isinstance(own.admit([one("user:0")], NOW), Refused)
    for n in range(3, 6):
        own.admit([one(f"user:{n}", 5)], NOW)
    assert len(own.missing) == 3
    assert isinstance(own.admit([one("user:0")], NOW), Admitted)  # forgotten: generous, and bounded
