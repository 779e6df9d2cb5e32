"""Circuits in Redis: opened by failures that come together, tried by one call at a time, and as the rules state."""

import asyncio
import random

import pytest

from app.base import keys
from app.base.circuit import Circuit, Closed, Counted, Left, Open, Opened, Probe, Rules, Stale
from app.domain import circuits
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from app.settings import BadSettings
from tests.lua.measure import check_life, commands_run, stated

NOW = 1_800_000_000_000  # ms: these tests have a clock of their own
RULES = Rules()
LEASE_MS = 21_000
STEPS = 3000


async def admit(store: Redis, call: bytes = b"a", *, at_ms: int = 0) -> Closed | Probe | Open:
    return await circuits.admit(store, "gate", call, RULES, LEASE_MS, now_ms=NOW + at_ms)


async def fail(
    store: Redis, generation: int = 0, call: bytes = b"", *, at_ms: int = 0, good: int = 0, jitter: int = 1000
) -> Counted | Opened | Stale:
    return await circuits.fail(store, "gate", generation, call, RULES, good=good, jitter=jitter, now_ms=NOW + at_ms)


async def opened(store: Redis) -> Opened:
    """Five failures at once have opened it, for 2 s."""
    for _ in range(4):
        await fail(store)
    last = await fail(store)
    assert isinstance(last, Opened)
    return last


# ---- closed


async def test_the_fifth_failure_within_half_a_minute_opens_it(store: Redis) -> None:
    assert await admit(store) == Closed(0)
    for number in range(1, 5):
        assert await fail(store, at_ms=number * 7500) == Counted(number)
    assert await admit(store, at_ms=30_000) == Closed(0)
    assert await fail(store, at_ms=37_500) == Opened(NOW + 37_500, 2000)
    assert await admit(store, at_ms=37_501) == Open(NOW + 37_500, 1999)


async def test_failures_that_are_far_apart_do_not(store: Redis) -> None:
    for number in range(50):
        assert await fail(store, at_ms=number * 7501) == Counted(min(number + 1, 4))


async def test_failures_among_many_good_calls_do_not(store: Redis) -> None:
    for number in range(50):
        assert await fail(store, at_ms=number, good=2) == Counted(min(number + 1, 5))
    # A peer that fails altogether is noticed as soon as the last five say so.
    told = [await fail(store, at_ms=100 + number) for number in range(3)]
    assert told == [Counted(5), Opened(NOW + 101, 2000), Stale()]


async def test_what_went_well_long_ago_does_not_help(store: Redis) -> None:
    assert await fail(store, good=1_000_000_000) == Counted(1)
    for number in range(2, 5):
        assert await fail(store, at_ms=number) == Counted(number)
    assert isinstance(await fail(store, at_ms=5), Opened)


async def test_one_process_alone_is_enough_and_several_add_up(redis: Pipe) -> None:
    told = await asyncio.gather(*(circuits.fail(redis, "gate", 0, b"", RULES, jitter=0) for _ in range(20)))
    assert [type(answer) for answer in told].count(Opened) == 1
    assert [type(answer) for answer in told].count(Stale) == 15


# ---- open


@pytest.mark.parametrize(("jitter", "waits_ms"), [
    (1000, [2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]), (0, [1000] * 7),
    (500, [1500, 2500, 4500, 8500, 16_500, 30_500, 30_500]),
])  # fmt: skip
async def test_the_cool_down_grows_with_every_probe_that_fails(store: Redis, jitter: int, waits_ms: list[int]) -> None:
    for _ in range(4):
        await fail(store)
    told, call, at_ms, found = await fail(store, jitter=jitter), b"", 0, []
    for number in range(7):
        assert isinstance(told, Opened)
        found.append(told.wait_ms)
        at_ms, call = at_ms + told.wait_ms, b"%d" % number
        assert isinstance(await admit(store, call, at_ms=at_ms - 1), Open)
        assert await admit(store, call, at_ms=at_ms) == Probe(told.generation)
        told = await fail(store, told.generation, call, at_ms=at_ms, jitter=jitter)
    assert found == waits_ms


async def test_a_late_failure_of_a_call_that_began_before_changes_nothing(store: Redis) -> None:
    was = await opened(store)
    assert await fail(store, 0, at_ms=10) == Stale()
    assert await admit(store, b"p", at_ms=2000) == Probe(was.generation)
    healed = await circuits.heal(store, "gate", was.generation, b"p", now_ms=NOW + 2100)
    assert healed == Closed(NOW + 2100)
    for generation in (0, was.generation):
        for _ in range(10):
            assert await fail(store, generation, at_ms=2200) == Stale()
    assert await admit(store, at_ms=2200) == healed
    assert await fail(store, NOW + 2100, at_ms=2200) == Counted(1)


# ---- half-open


async def test_one_call_is_the_probe_and_all_others_wait(redis: Pipe) -> None:
    was = await opened(redis)
    calls = [b"%d" % number for number in range(100)]
    told = await asyncio.gather(*(admit(redis, call, at_ms=was.wait_ms) for call in calls))
    assert [answer for answer in told if isinstance(answer, Probe)] == [Probe(was.generation)]
    assert set(told) == {Probe(was.generation), Open(was.generation, 1000)}


async def test_a_probe_that_is_not_heard_of_is_given_up(store: Redis) -> None:
    was = await opened(store)
    await admit(store, b"dead", at_ms=2000)
    assert await admit(store, b"b", at_ms=2000 + LEASE_MS - 300) == Open(was.generation, 300)
    assert await admit(store, b"b", at_ms=2000 + LEASE_MS) == Probe(was.generation)
    # What the first one tells now is of no account: another is at it.
    assert await circuits.heal(store, "gate", was.generation, b"dead", now_ms=NOW + 30_000) == Stale()
    assert await fail(store, was.generation, b"dead", at_ms=30_000) == Stale()
    assert await circuits.leave(store, "gate", b"dead") == Stale()
    assert await circuits.heal(store, "gate", was.generation, b"b", now_ms=NOW + 30_000) == Closed(NOW + 30_000)


async def test_a_probe_that_was_cancelled_lets_the_next_one_try_at_once(store: Redis) -> None:
    was = await opened(store)
    await admit(store, b"a", at_ms=2000)
    assert await circuits.leave(store, "gate", b"a") == Left()
    assert await admit(store, b"b", at_ms=2001) == Probe(was.generation)


async def test_a_clock_that_is_set_back_keeps_nobody_out(store: Redis) -> None:
    was = await opened(store)
    assert await admit(store, b"a", at_ms=-3_600_000) == Probe(was.generation)


async def test_a_flush_closes_it_and_breaks_nothing(store: Redis) -> None:
    was = await opened(store)
    await store.command("FLUSHALL")
    assert await fail(store, was.generation) == Stale()
    assert await circuits.heal(store, "gate", was.generation, b"a") == Stale()
    assert await circuits.leave(store, "gate", b"a") == Stale()
    assert await admit(store) == Closed(0)


# ---- as the rules state


async def test_thousands_of_random_steps_are_the_same_in_memory(store: Redis) -> None:
    """The script and `app/base/circuit.py`, which a process goes by while Redis is away, decide alike."""
    chance, own, now_ms = random.Random(7), Circuit(RULES), NOW
    known, probes, seen = [0], [b"none"], set()
    for step in range(STEPS):
        now_ms += chance.choice([0, 1, 50, 900, 3000, 20_000])
        call, generation = chance.choice([b"%d" % step, probes[-1]]), chance.choice(known[-3:])
        mine: object
        told: object
        match chance.choice(["admit", "fail", "fail", "heal", "leave"]):
            case "admit":
                mine = own.admit(call, LEASE_MS, now_ms)
                told = await circuits.admit(store, "gate", call, RULES, LEASE_MS, now_ms=now_ms)
                probes += [call] if isinstance(mine, Probe) else []
            case "fail":
                name, good, jitter = (
                    chance.choice([b"", probes[-1]]),
                    chance.choice([0, 0, 0, 3]),
                    chance.randint(0, 1000),
                )
                mine = own.fail(generation, name, good, jitter, now_ms)
                told = await circuits.fail(
                    store, "gate", generation, name, RULES, good=good, jitter=jitter, now_ms=now_ms
                )
            case "heal":
                mine = own.heal(generation, probes[-1], now_ms)
                told = await circuits.heal(store, "gate", generation, probes[-1], now_ms=now_ms)
            case _:
                mine, told = own.leave(probes[-1]), await circuits.leave(store, "gate", probes[-1])
        assert told == mine
        seen.add(type(told))
        if isinstance(told, Closed | Opened):
            known.append(told.generation)
    assert seen == {Closed, Probe, Open, Counted, Opened, Left, Stale}


# ---- seen, life and cost


async def test_the_list_tells_each_circuits_state(store: Redis) -> None:
    for _ in range(3):
        await circuits.fail(store, "shaky", 0, b"", RULES, jitter=0)
    for _ in range(5):
        await circuits.fail(store, "gone", 0, b"", RULES, jitter=1000)
    shaky, gone, fine = await circuits.listed(store, ["shaky", "gone", "fine"], RULES)
    assert (shaky.name, shaky.state, shaky.failures, shaky.opened_at, shaky.retry_after_s) == (
        "shaky", "closed", 3, None, None,
    )  # fmt: skip
    assert (gone.state, gone.failures, gone.retry_after_s) == ("open", 5, 2)
    assert gone.opened_at is not None
    assert (fine.state, fine.failures) == ("closed", 0)


async def test_the_list_tells_of_a_probe_and_counts_on(store: Redis) -> None:
    was = await opened(store)  # long before now, by the server's clock, or long after it
    await circuits.admit(store, "gate", b"p", RULES, LEASE_MS, now_ms=NOW + 2000)
    assert (await circuits.listed(store, ["gate"], RULES))[0].state == "half_open"
    await circuits.fail(store, "gate", was.generation, b"p", RULES, jitter=0, now_ms=NOW + 2000)
    (state,) = await circuits.listed(store, ["gate"], RULES)
    assert state.failures == 6
    assert state.opened_at is not None
    assert int(state.opened_at.timestamp() * 1000) == NOW


async def test_a_circuit_lives_an_hour_from_its_last_change(redis: Pipe) -> None:
    await fail(redis)
    await check_life(redis, keys.circuit("gate"), "{circuits}<peer>")
    for _ in range(4):
        await fail(redis)
    await check_life(redis, keys.circuit("gate"), "{circuits}<peer>")
    await admit(redis, b"p", at_ms=2000)
    await circuits.heal(redis, "gate", NOW, b"p", now_ms=NOW + 2001)
    await check_life(redis, keys.circuit("gate"), "{circuits}<peer>")


async def test_each_script_costs_what_it_states(redis: Pipe) -> None:
    by = Rules(most=2, first_ms=1)
    assert await commands_run(redis, circuits.admit(redis, "g", b"p", by, 100)) <= stated(circuits.ADMIT).commands
    for _ in range(2):
        spent = await commands_run(redis, circuits.fail(redis, "g", 0, b"", by, jitter=0))
        assert spent <= stated(circuits.FAIL).commands
    assert spent == stated(circuits.FAIL).commands
    told: Closed | Probe | Open = Closed(0)
    while not isinstance(told, Probe):
        told = await circuits.admit(redis, "g", b"p", by, 60_000)
    assert await commands_run(redis, circuits.leave(redis, "g", b"p")) == stated(circuits.LEAVE).commands
    assert await commands_run(redis, circuits.admit(redis, "g", b"q", by, 60_000)) == stated(circuits.ADMIT).commands
    spent = await commands_run(redis, circuits.heal(redis, "g", told.generation, b"q"))
    assert spent == stated(circuits.HEAL).commands
    assert await commands_run(redis, circuits.listed(redis, ["g", "h"], by)) == stated(circuits.LIST).most(lines=2)


@pytest.mark.parametrize("text", ["", "5", "0/30", "5/0", "5/30/1", "1000/1", "-1/30", "５/30"])
def test_figures_that_are_none_stop_the_start(text: str) -> None:
    with pytest.raises(BadSettings, match="TORG_CIRCUITS"):
        circuits.rules(text)


def test_figures_are_failures_and_seconds() -> None:
    assert circuits.rules("7/60") == Rules(most=7, window_ms=60_000)
