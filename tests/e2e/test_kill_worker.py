"""A worker killed at every step of its job, or late with it: another does the rest, and nothing twice; see steps.py."""

import pytest

from tests.e2e.conftest import OpenStage
from tests.e2e.stage import Stage
from tests.e2e.steps import JOB, at_every_step
from tests.e2e.traps import Stall, Trap, When
from tests.world import invoice_of


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
