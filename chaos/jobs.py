"""The guaranteed tier in a storm: `make chaos NAME=jobs SECONDS=600`.

Three real `torg worker` processes, a real Postgres and Redis, a gateway and a Bot API over HTTP that take 0.1 to 1 s to
answer. While 1,112 orders are paid at an even pace, which owes 10,008 jobs of eight kinds, `weather.py` kills, freezes,
empties and cuts what it can. Settings are those of production, but for three: the bot sends without a pace, a buyer may
have 100 open orders, and a day to pay them. Afterwards everything must be there, and once. Telegram alone is told at
least once: how often twice, is counted.

Orphans: from the kill -9 of a worker until another attempt has each row that it held. Those that could not be taken
because Postgres itself was away meanwhile are counted apart.
"""

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from app.infra import embedded, observe
from app.infra.embedded import Servers
from app.settings import Settings
from chaos import sales, verdict
from chaos.scene import WORKERS, Scene
from chaos.verdict import Verdict
from tests.e2e.traps import Zygote

JOBS, FULL_S = 10_000, 600  # so many jobs in so long


def main(seconds: int) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (
        tempfile.TemporaryDirectory(prefix="t-") as folder,
        Zygote.running() as zygote,
        embedded.serve(Path(folder)) as servers,
    ):
        observe.configure(Settings(log_level="error"))
        found = uvloop.run(stormed(zygote, Path(folder), servers, seconds))
    print("\n".join(found.lines()))
    return 0 if found.kept() else 1


async def stormed(zygote: Zygote, home: Path, servers: Servers, seconds: int) -> Verdict:
    """What became of the promises. The servers are of `home` and nobody else's: they are killed."""
    orders = -(-JOBS * seconds // FULL_S // sum(sales.JOBS.values()))
    async with Scene.opened(zygote, home, servers) as scene:
        sold = await sales.placed(scene.shop, orders)
        for _ in range(WORKERS):
            scene.fleet.start()
        watching = (scene.fleet.supervise(), scene.ear.listen(), scene.look_at_boards())
        beside = [asyncio.create_task(each) for each in watching]
        try:
            defects, _ = await asyncio.gather(
                sales.paid_evenly(scene.shop, scene.crystalpay, sold, seconds), scene.weather.rage(seconds)
            )
            calm_s = await scene.calm()
            await scene.ear.look()
        finally:
            for task in beside:
                task.cancel()
            done = await asyncio.gather(*beside, return_exceptions=True)
        for failed in done:
            if isinstance(failed, Exception):
                raise failed
        await scene.look()  # Redis may have lost them a moment ago
        return await verdict.given(scene, sold, seconds, calm_s, defects)
