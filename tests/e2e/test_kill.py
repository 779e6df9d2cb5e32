"""Web killed at every step, and a repeat of the request ends what it began; see steps.py."""

import asyncio
import contextlib

import httpx

from app.sandbox.crystalpay import ApiFault
from tests.e2e.conftest import OpenStage
from tests.e2e.stage import UNITS, Stage
from tests.e2e.steps import CHECKOUT, WEBHOOK, at_every_step
from tests.e2e.traps import Trap, When, until
from tests.world import World, invoice_of, order_id_of


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
