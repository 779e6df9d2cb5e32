"""The ring: a job stands in arq's queue, whoever waits is woken, and nothing piles up that nobody hears."""

import asyncio
from typing import cast

from arq.constants import job_key_prefix
from arq.jobs import deserialize_job

from app.base import keys
from app.infra import queue
from app.infra.lua import Redis
from app.infra.pipe import Pipe
from app.infra.queue import BELL_MS, HEAD_START_MS, RECORD_MS, RING, Queue, Rung
from tests.lua.measure import check_life, commands_run, stated

JOB = keys.arq_job_id(5, 0)
MOST_UNHEARD = 10_000  # the length that the script keeps of the bell


async def ring(store: Redis, job_id: str = JOB, record: bytes = b"record") -> Rung:
    rung_keys = [keys.ARQ_QUEUE, keys.ARQ_BELL, job_key_prefix + job_id]
    return await RING(store, keys=rung_keys, args=[job_id, record, RECORD_MS, HEAD_START_MS, BELL_MS])


async def scores(store: Redis) -> dict[str, int]:
    """The queue: job ids with the moment (ms) from which polling may start them."""
    look = 'return redis.call("ZRANGE", KEYS[1], 0, -1, "WITHSCORES")'
    flat = cast(list[bytes], await store.command("EVAL", look, 1, keys.ARQ_QUEUE))
    return {job.decode(): int(score) for job, score in zip(flat[::2], flat[1::2], strict=True)}


async def heard(store: Redis) -> list[str]:
    rung = cast(list[bytes], await store.command("LRANGE", keys.ARQ_BELL, 0, -1))
    return [job.decode() for job in rung]


async def now_ms(redis: Pipe) -> int:
    seconds, microseconds = cast(list[bytes], await redis.command("TIME"))
    return int(seconds) * 1000 + int(microseconds) // 1000


async def test_a_ring_leaves_the_job_its_place_and_its_sound(store: Redis) -> None:
    assert await ring(store) == Rung()
    assert list(await scores(store)) == [JOB]
    assert await heard(store) == [JOB]
    assert await store.command("GET", job_key_prefix + JOB) == b"record"


async def test_the_bell_has_a_head_start_before_polling(redis: Pipe) -> None:
    before = await now_ms(redis)
    await ring(redis)
    assert before + HEAD_START_MS <= (await scores(redis))[JOB] <= await now_ms(redis) + HEAD_START_MS


async def test_jobs_are_heard_in_the_order_of_their_rings(store: Redis) -> None:
    jobs = [keys.arq_job_id(number, 0) for number in range(20)]
    for job in jobs:
        await ring(store, job)
    assert await heard(store) == jobs
    assert (await scores(store)).keys() == set(jobs)


async def test_a_second_ring_for_the_same_try_changes_nothing(store: Redis) -> None:
    await ring(store, record=b"one")
    before = await scores(store)
    await asyncio.sleep(0.01)
    assert await ring(store, record=b"two") == Rung()
    assert await scores(store) == before
    assert await heard(store) == [JOB]
    assert await store.command("GET", job_key_prefix + JOB) == b"one"


async def test_a_job_that_left_the_queue_is_rung_for_again(store: Redis) -> None:
    await ring(store, record=b"one")
    await store.command("ZREM", keys.ARQ_QUEUE, JOB)
    await ring(store, record=b"two")
    assert await heard(store) == [JOB, JOB]
    assert await store.command("GET", job_key_prefix + JOB) == b"two"


async def test_an_unheard_bell_keeps_the_latest_rings_only(store: Redis) -> None:
    await store.command("RPUSH", keys.ARQ_BELL, *(f"old-{number}" for number in range(MOST_UNHEARD)))
    await ring(store)
    assert await store.command("LLEN", keys.ARQ_BELL) == MOST_UNHEARD
    assert await store.command("LINDEX", keys.ARQ_BELL, 0) == b"old-1"
    assert await store.command("LINDEX", keys.ARQ_BELL, -1) == JOB.encode()


async def test_a_ring_after_everything_vanished(store: Redis) -> None:
    await ring(store)
    await store.command("FLUSHALL")
    assert await ring(store) == Rung()
    assert await heard(store) == [JOB]


async def test_keys_live_as_long_as_their_rows_say(redis: Pipe) -> None:
    await ring(redis)
    await check_life(redis, job_key_prefix + JOB, "arq:job:<job>")
    await check_life(redis, keys.ARQ_BELL, "{arq}bell")
    await check_life(redis, keys.ARQ_QUEUE, "{arq}queue")
    await redis.command("PEXPIRE", keys.ARQ_BELL, 1000)
    await ring(redis, keys.arq_job_id(6, 0))
    await check_life(redis, keys.ARQ_BELL, "{arq}bell")  # a bell that is rung is not forgotten


async def test_arq_reads_what_was_rung(redis: Pipe) -> None:
    await Queue(redis).ring(41)
    (job_id,) = await heard(redis)
    record = cast(bytes, await redis.command("GET", job_key_prefix + job_id))
    job = deserialize_job(record, deserializer=queue.deserialize)
    assert (job.function, list(job.args), job.kwargs) == (queue.JOB, [41], {})
    assert job_id.startswith("{arq}41:")


async def test_no_ring_of_a_crowd_is_lost(redis: Pipe) -> None:
    bell = Queue(redis)
    await asyncio.gather(*(bell.ring(number % 100, number // 200) for number in range(300)))
    rung = await heard(redis)
    assert len(rung) == len(set(rung)) == 200  # each try of a row once, however often it is rung for
    assert (await scores(redis)).keys() == set(rung)


async def test_it_costs_what_it_states(redis: Pipe) -> None:
    assert await commands_run(redis, ring(redis)) == stated(RING).most()
    assert await commands_run(redis, ring(redis)) < stated(RING).most()
