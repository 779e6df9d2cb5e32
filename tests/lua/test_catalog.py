"""The catalog scripts: who may load, what is kept, and what a change makes worthless."""

import asyncio
from typing import cast

import pytest

from app.base import keys
from app.domain import catalog
from app.domain.catalog import Dropped, Hit, Kept, Load, Lost, Stale, Wait
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

ENTRY, OTHER = catalog.product_entry(1), catalog.product_entry(2)
LIFE_MS = 30_000


async def lease(store: Redis, token: str = "one", entry: str = ENTRY) -> Load:
    """The caller loads."""
    found = await catalog.look(store, entry, token)
    assert isinstance(found, Load), found
    return found


async def warm(store: Redis, body: bytes = b"1", entry: str = ENTRY) -> None:
    assert await catalog.keep(store, entry, await lease(store, "warm", entry), "warm", body, LIFE_MS) == Kept()


async def generation(store: Redis) -> bytes:
    return cast(bytes, await store.command("HGET", keys.CATALOG_GENERATION, "now"))


async def later(store: Redis, age_us: int) -> None:
    """The present generation began so long ago."""
    now = b"%d" % (int(await generation(store)) - age_us)
    await store.command("HSET", keys.CATALOG_GENERATION, "now", now)
    holder = await store.command("GET", keys.catalog_lease(ENTRY))
    if isinstance(holder, bytes):
        await store.command("SET", keys.catalog_lease(ENTRY), now + b" " + holder.partition(b" ")[2], "PX", 2000)


# ---- look and keep


async def test_one_loads_and_the_others_wait_until_it_is_kept(store: Redis) -> None:
    first = await lease(store)
    assert [await catalog.look(store, ENTRY, "two") for _ in range(3)] == [Wait()] * 3
    assert await catalog.keep(store, ENTRY, first, "one", b"\0\xff{}", LIFE_MS) == Kept()
    assert [await catalog.look(store, ENTRY, token) for token in ("one", "two")] == [Hit(b"\0\xff{}")] * 2


async def test_entries_are_loaded_apart(store: Redis) -> None:
    await lease(store)
    await warm(store, b"2", OTHER)
    assert await catalog.look(store, ENTRY, "two") == Wait()
    assert await catalog.look(store, OTHER, "two") == Hit(b"2")


async def test_nothing_can_be_kept_too(store: Redis) -> None:
    await warm(store, b"")
    assert await catalog.look(store, ENTRY, "two") == Hit(b"")


async def test_a_crowd_has_one_loader(redis: Pipe) -> None:
    found = await asyncio.gather(*(catalog.look(redis, ENTRY, f"{number}") for number in range(500)))
    assert sorted(type(one).__name__ for one in found) == ["Load"] + ["Wait"] * 499


async def test_the_first_to_be_done_keeps_and_only_once(store: Redis) -> None:
    mine = await lease(store)
    assert await catalog.keep(store, ENTRY, mine, "one", b"1", LIFE_MS) == Kept()
    assert await catalog.keep(store, ENTRY, mine, "one", b"2", LIFE_MS) == Lost()
    assert await catalog.look(store, ENTRY, "two") == Hit(b"1")


async def test_a_slow_loader_keeps_what_it_has_also_when_another_has_its_lease(store: Redis) -> None:
    slow = await lease(store)
    await store.command("DEL", keys.catalog_lease(ENTRY))
    second = await lease(store, "two")
    assert await catalog.keep(store, ENTRY, slow, "one", b"1", LIFE_MS) == Kept()
    assert await catalog.look(store, ENTRY, "three") == Hit(b"1")
    assert await catalog.keep(store, ENTRY, second, "two", b"2", LIFE_MS) == Lost()
    assert await store.command("EXISTS", keys.catalog_lease(ENTRY)) == 0


async def test_a_slow_loader_keeps_nothing_from_before_a_change(store: Redis) -> None:
    slow = await lease(store)
    await store.command("DEL", keys.catalog_lease(ENTRY))
    await catalog.bump(store)
    assert await catalog.keep(store, ENTRY, slow, "one", b"old", LIFE_MS) == Lost()
    assert await catalog.look(store, ENTRY, "two") != Hit(b"old")


# ---- drop


async def test_a_dropped_lease_is_the_next_ones(store: Redis) -> None:
    first = await lease(store)
    assert await catalog.drop(store, ENTRY, first, "two") == Lost()
    assert await catalog.look(store, ENTRY, "two") == Wait()
    assert await catalog.drop(store, ENTRY, first, "one") == Dropped()
    assert await catalog.drop(store, ENTRY, first, "one") == Lost()
    await lease(store, "two")


# ---- bump


async def test_a_change_makes_every_entry_worthless(store: Redis) -> None:
    await warm(store)
    await warm(store, b"2", OTHER)
    await catalog.bump(store)
    await lease(store)
    await lease(store, "two", OTHER)


async def test_a_change_while_loading_kills_the_lease(store: Redis) -> None:
    early = await lease(store)
    await catalog.bump(store)
    late = await lease(store, "two")  # and nobody waits for the dead one
    assert await catalog.keep(store, ENTRY, early, "one", b"old", LIFE_MS) == Lost()
    assert await catalog.drop(store, ENTRY, early, "one") == Lost()
    assert await catalog.keep(store, ENTRY, late, "two", b"new", LIFE_MS) == Kept()
    assert await catalog.look(store, ENTRY, "three") == Hit(b"new")


async def test_a_change_while_the_only_loader_loads_leaves_nothing_behind(store: Redis) -> None:
    early = await lease(store)
    await catalog.bump(store)
    assert await catalog.keep(store, ENTRY, early, "one", b"old", LIFE_MS) == Lost()
    await lease(store, "two")


async def test_generations_go_up_also_when_the_clock_goes_back(store: Redis) -> None:
    seen = [int((await catalog.bump(store)).generation) for _ in range(50)]
    assert seen == sorted(set(seen))
    ahead = seen[-1] + 10**12
    await store.command("HSET", keys.CATALOG_GENERATION, "now", ahead)
    assert int((await catalog.bump(store)).generation) == ahead + 1


async def test_a_flush_begins_a_generation_that_never_was(store: Redis) -> None:
    early = await lease(store)
    before = int(await generation(store))
    await store.command("FLUSHALL")
    late = await lease(store, "two")
    assert int(late.generation) > before
    assert await catalog.keep(store, ENTRY, early, "one", b"old", LIFE_MS) == Lost()
    assert await catalog.keep(store, ENTRY, late, "two", b"new", LIFE_MS) == Kept()


async def test_entries_that_outlive_their_generation_are_worthless(store: Redis) -> None:
    await warm(store)
    await store.command("DEL", keys.CATALOG_GENERATION)
    await lease(store)


# ---- the last value


async def test_the_value_before_a_change_is_shown_while_another_loads(store: Redis) -> None:
    await warm(store)
    await catalog.bump(store)
    await lease(store)
    assert await catalog.look(store, ENTRY, "two") == Stale(b"1")


@pytest.mark.parametrize(
    ("age_ms", "shown"), [(0, True), (catalog.STALE_MS - 100, True), (catalog.STALE_MS, False), (-1000, False)]
)
async def test_it_is_shown_for_so_long_and_no_longer(store: Redis, age_ms: int, shown: bool) -> None:
    await warm(store)
    await catalog.bump(store)
    await lease(store)
    await later(store, age_ms * 1000)
    assert await catalog.look(store, ENTRY, "two") == (Stale(b"1") if shown else Wait())


async def test_a_value_of_two_changes_ago_is_not_shown(store: Redis) -> None:
    await warm(store)
    await catalog.bump(store)
    await catalog.bump(store)
    await lease(store)
    assert await catalog.look(store, ENTRY, "two") == Wait()


# ---- life and cost


async def test_every_key_lives_as_long_as_its_row_says(redis: Pipe) -> None:
    first = await lease(redis)
    await check_life(redis, keys.catalog_lease(ENTRY), "{catalog}lease:<entry>")
    await check_life(redis, keys.CATALOG_GENERATION, "{catalog}generation")
    await catalog.keep(redis, ENTRY, first, "one", b"", catalog.UNKNOWN_MS)
    await check_life(redis, ENTRY, "{catalog}product:<id>")
    page = catalog.page_entry(["word"], "", 0, 0, 24)
    await catalog.keep(redis, page, await lease(redis, "two", page), "two", b"[]", catalog.PAGE_MS)
    await check_life(redis, page, "{catalog}search:<digest>")
    await redis.command("PEXPIRE", keys.CATALOG_GENERATION, 1000)
    await catalog.bump(redis)
    await check_life(redis, keys.CATALOG_GENERATION, "{catalog}generation")


async def test_a_hit_changes_nothing_at_all(redis: Pipe) -> None:
    await warm(redis)
    before = await everything(redis)
    await catalog.look(redis, ENTRY, "two")
    assert await everything(redis) == before


async def test_they_cost_what_they_state(redis: Pipe) -> None:
    assert await commands_run(redis, catalog.look(redis, ENTRY, "one")) == stated(catalog.LOOK).most()
    mine = await lease(redis, "two", OTHER)
    assert await commands_run(redis, catalog.keep(redis, OTHER, mine, "two", b"1", 1000)) == stated(catalog.KEEP).most()
    assert await commands_run(redis, catalog.look(redis, OTHER, "one")) == 2  # a hit
    mine = await lease(redis, "two", catalog.product_entry(3))
    dropped = catalog.drop(redis, catalog.product_entry(3), mine, "two")
    assert await commands_run(redis, dropped) == stated(catalog.DROP).most()
    assert stated(catalog.BUMP).exact
    assert await commands_run(redis, catalog.bump(redis)) == stated(catalog.BUMP).most()


async def test_ending_twenty_thousand_entries_costs_as_much_as_ending_one(redis: Pipe) -> None:
    fill = """for i = 1, tonumber(ARGV[1]) do
      redis.call("HSET", KEYS[1] .. i, "generation", "1", "body", "x")
      redis.call("PEXPIRE", KEYS[1] .. i, 60000) end"""
    await redis.command("EVAL", fill, 1, keys.catalog_product(0), 20_000)
    assert await commands_run(redis, catalog.bump(redis)) == stated(catalog.BUMP).most()
