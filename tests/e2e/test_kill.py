"""kill -9 and FLUSHALL between each two steps of a purchase: the end is always the same, one order, delivered once.

A step is a chunk that passes between a process and Postgres, Redis, the gateway, Telegram or its client. A request is
lost with its process before it has an effect; an answer is lost after the effect, before the process learns of it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import httpx
import pytest

from app.sandbox.crystalpay import ApiFault
from tests.e2e.conftest import OpenStage
from tests.e2e.stage import UNITS, Stage
from tests.e2e.traps import Stall, Trap, When, until
from tests.world import World, invoice_of, order_id_of

STAGES = 4  # side by side: most of a story is waiting for leases

Play = Callable[[Stage, When], Awaitable[bool]]


def round_trips(*asked: str) -> set[str]:
    return {f"{when} {what}" for what in asked for when in ("before", "answer of")}


# What an undisturbed story consists of; more steps come with retries and with what both processes do meanwhile.
CHECKOUT = round_trips(
    "web: POST /api/orders", "postgres: place_products", "redis: stock/reserve", "redis: stock/tally",
    "postgres: count_units", "redis: stock/fill", "postgres: create_order", "redis: stock/commit",
    "gateway: POST /v3/invoice/create/", "postgres: link_order",
)  # fmt: skip
WEBHOOK = round_trips("web: POST /api/webhook/payment/crystalpay", "postgres: store_event", "redis: queue/ring")
JOB = {"answer of redis: the bell"} | round_trips(
    "redis: MULTI", "postgres: claim_job", "gateway: POST /v3/invoice/info/", "postgres: settle_payment",
    "postgres: deliver_order", "postgres: find_recipient", "postgres: read_goods", "bot: POST /sendMessage",
    "postgres: finish_job",
)  # fmt: skip


async def at_every_step(open_stage: OpenStage, play: Play, stages: int = STAGES) -> set[str]:
    """The story was played again and again, struck each time at its first step that was spared before; those steps.

    It ends with a play that has no such step. Raises: what a play raised, with the step that was struck last.
    """
    struck = set[str]()
    over = False

    async def side() -> None:
        nonlocal over
        last = "nothing"

        def spared(step: str) -> bool:
            nonlocal last
            if step in struck:
                return False
            struck.add(step)
            last = step
            return True

        async with open_stage() as stage:
            await stage.start()
            while not over:
                if not (stage.web.warm and stage.worker.warm):
                    await stage.rehearse()
                try:
                    if not await play(stage, spared):
                        over = True
                except BaseException as error:
                    error.add_note(f"struck last: {last}")
                    raise

    async with asyncio.TaskGroup() as sides:
        for _ in range(stages):
            sides.create_task(side())
    return struck


async def test_web_killed_at_every_step_of_a_checkout(open_stage: OpenStage) -> None:
    async def play(stage: Stage, when: When) -> bool:
        run, trap = await stage.run(), Trap(when, stage.web.die)
        stage.arm(trap, stage.web)
        placed = await stage.buy(run)
        await stage.disarm()
        await stage.crystalpay.pay(invoice_of(placed))
        await stage.told(run)
        await stage.sold_once(run, placed["order"]["id"])
        return bool(trap.fired)

    assert await at_every_step(open_stage, play) >= CHECKOUT


async def test_web_killed_at_every_step_of_a_webhook(open_stage: OpenStage) -> None:
    async def play(stage: Stage, when: When) -> bool:
        run, trap = await stage.run(), Trap(when, stage.web.die)
        placed = await stage.buy(run)
        await stage.disarm()
        stage.arm(trap, stage.web)
        called = await stage.crystalpay.pay(invoice_of(placed))
        assert called[-1].status == 200
        await stage.told(run)
        await stage.disarm()
        await stage.sold_once(run, placed["order"]["id"])
        return bool(trap.fired)

    assert await at_every_step(open_stage, play, stages=2) >= WEBHOOK


async def test_worker_killed_at_every_step_of_its_job(open_stage: OpenStage) -> None:
    async def play(stage: Stage, when: When) -> bool:
        run, trap = await stage.run(), Trap(when, stage.worker.die)
        placed = await stage.buy(run)
        await stage.disarm()
        stage.arm(trap, stage.worker)
        await stage.crystalpay.pay(invoice_of(placed))
        await stage.told(run)
        await stage.disarm()
        await stage.sold_once(run, placed["order"]["id"])
        return bool(trap.fired)

    assert await at_every_step(open_stage, play) >= JOB


async def test_redis_flushed_at_every_step_of_a_purchase(open_stage: OpenStage) -> None:
    async def play(stage: Stage, when: When) -> bool:
        run, trap = await stage.run(), Trap(when, stage.flush)
        stage.arm(trap, stage.web, stage.worker)
        placed = await stage.buy(run)
        await stage.crystalpay.pay(invoice_of(placed))
        await stage.told(run)
        await stage.disarm()
        await stage.sold_once(run, placed["order"]["id"])
        return bool(trap.fired)

    assert await at_every_step(open_stage, play, stages=3) >= CHECKOUT | WEBHOOK | JOB


@pytest.mark.parametrize(("statement", "before"), [("settle_payment", "pending"), ("deliver_order", "paid")])
async def test_the_late_statement_of_a_worker_that_lost_its_lease_writes_nothing(
    open_stage: OpenStage, statement: str, before: str
) -> None:
    """One worker's way to Postgres stalls until its lease is over and another worker is just as far."""
    async with open_stage() as stage:
        await stage.start()
        await stage.rehearse()  # so that the statement is prepared, and what stalls is the statement itself
        first, second = Stall(f"before postgres: {statement}"), Stall(f"before postgres: {statement}")
        refused = Stall(f"answer of postgres: {statement}")
        stage.arm(first.trap, stage.worker)
        run = await stage.run()
        placed = await stage.buy(run)
        await stage.crystalpay.pay(invoice_of(placed))
        await first.reached()

        stage.arm(second.trap, stage.second)
        stage.second.start()
        await second.reached()
        stage.arm(refused.trap, stage.worker)
        first.go_on.set()
        await refused.reached()
        assert await stage.rows("SELECT status FROM orders WHERE seller_id = $1", run.seller_id) == [(before,)]

        for stall in (refused, second):
            stall.go_on.set()
        await stage.told(run)
        await stage.disarm()
        await stage.sold_once(run, placed["order"]["id"])


async def test_units_of_an_order_that_nobody_paid_go_to_the_next_buyer(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.start()
        stage.worker.kill()
        run = await stage.run(pieces=UNITS)
        trap = Trap(lambda step: step.startswith("before gateway"), stage.web.die)
        stage.arm(trap, stage.web)
        with contextlib.suppress(httpx.TransportError):
            await run.buyer.order((run.product_id, UNITS), key=run.key)
        assert trap.fired
        await stage.ready()
        ((order_id, status),) = await stage.rows("SELECT id::text, status FROM orders")
        assert status == "pending"

        # The window passes; with it every hold that the dead process left in Redis.
        await stage.rows("UPDATE orders SET expires_at = now() - interval '1 second' RETURNING id")
        await stage.half_a_minute_later(run)
        stage.worker.start()

        async def expired() -> bool:
            return await stage.rows("SELECT status FROM orders") == [("expired",)]

        await until(expired, "the order expires", stage.log)
        await stage.redis_agrees(run, UNITS)

        first, run.buyer, run.key = (run.buyer, run.key), await stage.buyer(), "next"
        placed = await stage.buy(run)
        await stage.later()
        again = await first[0].order((run.product_id, UNITS), key=first[1])
        assert (again.json()["order"]["id"], again.json()["order"]["status"]) == (order_id, "expired")
        await stage.crystalpay.pay(invoice_of(placed))
        await stage.told(run)
        states = await stage.rows("SELECT state FROM stock_items WHERE product_id = $1", run.product_id)
        assert states == [("sold",)] * UNITS
        assert len(set(await run.buyer.goods(placed["order"]["id"]))) == UNITS


async def test_a_gateway_that_is_down_leaves_an_order_that_a_repeat_completes(world: World) -> None:
    product = await world.product("KEY-1")
    ann = await world.buyer()
    world.crystalpay.faults.append(ApiFault(on="create", status=502))
    refused = await ann.order((product, 1), key="k")
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/provider-down"

    placed = await ann.order((product, 1), key="k")
    assert placed.status_code == 201
    assert placed.headers["Idempotency-Replayed"] == "true"
    assert placed.json()["order"]["id"] == refused.json()["order_id"]
    assert await world.scalar("SELECT count(*) FROM orders") == 1

    await world.crystalpay.pay(invoice_of(placed.json()))
    await world.drain()
    assert await ann.goods(placed.json()["order"]["id"]) == ["KEY-1"]


async def test_two_requests_with_one_key_at_once_make_one_order(world: World) -> None:
    product = await world.product(*(f"KEY-{n}" for n in range(5)))
    ann = await world.buyer()
    answers = await asyncio.gather(*(ann.order((product, 1), key="k") for _ in range(2)))
    assert {a.status_code for a in answers} <= {201, 409}, [a.text for a in answers]
    assert {a.json()["type"] for a in answers if a.status_code == 409} <= {"/problems/in-progress"}
    placed = [a.json() for a in answers if a.status_code == 201]
    later = await ann.order((product, 1), key="k")
    assert {order_id_of(p) for p in placed} == {order_id_of(later.json())}
    assert await world.scalar("SELECT count(*) FROM orders") == 1
    assert await world.scalar("SELECT count(*) FROM stock_items WHERE state <> 'available'") == 1
