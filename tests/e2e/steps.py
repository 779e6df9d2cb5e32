"""kill -9 and FLUSHALL between each two steps of a purchase: the end is always the same, one order, delivered once.

A step is a chunk that passes between a process and Postgres, Redis, the gateway, Telegram or its client. A request is
lost with its process before it has an effect; an answer is lost after the effect, before the process learns of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tests.e2e.conftest import OpenStage
from tests.e2e.stage import Stage
from tests.e2e.traps import When

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
