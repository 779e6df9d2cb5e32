"""Redis flushed at every step of a purchase: nothing that it had forgotten was needed; see steps.py."""

from tests.e2e.conftest import OpenStage
from tests.e2e.stage import Stage
from tests.e2e.steps import CHECKOUT, JOB, WEBHOOK, at_every_step
from tests.e2e.traps import Trap, When
from tests.world import invoice_of


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
