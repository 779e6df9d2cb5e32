"""A short storm over the guaranteed tier: nothing is lost, nothing has happened twice, and orphans are soon back.

TORG_CHAOS_S=600 is the whole one, as `make chaos NAME=jobs` runs it.
"""

import os
import tempfile
from pathlib import Path

from app.infra import embedded
from chaos import claims
from chaos.fleet import Life
from chaos.jobs import stormed
from tests.e2e.traps import Zygote

SECONDS = int(os.environ.get("TORG_CHAOS_S", "18"))


async def test_a_storm_loses_nothing_and_doubles_nothing(zygote: Zygote) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as home, embedded.serve(Path(home)) as servers:
        verdict = await stormed(zygote, Path(home), servers, SECONDS)
    told = "\n".join(verdict.lines())
    print(told)
    assert [str(promise) for promise in verdict.effects if not promise.kept] == []
    assert verdict.orphans.kept, told


def test_an_orphan_is_told_from_a_row_that_was_overtaken_or_given_up() -> None:
    lives = {"dead": Life("dead", 1, killed_s=10.0), "late": Life("late", 2, killed_s=99.0), "heir": Life("heir", 3)}
    steps = [
        (1, "tell", "free", "shop", 9.0), (1, "tell", "claimed", "dead", 9.5), (1, "tell", "claimed", "heir", 13.5),
        (1, "tell", "done", "heir", 14.0),
        (2, "tell", "claimed", "dead", 10.1), (2, "tell", "claimed", "heir", 15.5),  # committed after its sender's end
        (3, "rank", "claimed", "late", 9.5), (3, "rank", "claimed", "heir", 13.0), (3, "rank", "done", "heir", 13.1),
        (4, "rank", "claimed", "dead", 9.0), (4, "rank", "done", "dead", 9.1),
        (5, "settle", "free", "shop", 9.0), (5, "settle", "claimed", "dead", 9.002), (5, "settle", "free", "dead", 9.2),
        (5, "settle", "claimed", "heir", 20.0),
    ]  # fmt: skip
    told = claims.told(steps, lives)
    assert [round(orphan.wait_s, 3) for orphan in told.orphans] == [3.5, 5.4]
    assert told.overtaken == 1
    assert [round(start_ms) for start_ms in told.starts_ms] == [2]
