"""What a script costs and how long its keys live: as stated, and as a real server has it."""

import re
from collections.abc import Awaitable
from typing import Any, NamedTuple

import msgspec

from app.base.keys import KEYS
from app.infra.lua import Script
from app.infra.pipe import Pipe

COST = re.compile(
    r"O\([a-z +0-9]+\), (at most )?(\d+) commands?(?: \+ (\d+) per (?:line|batch))?"
    r"(?: (?:and|\+) (\d+) per lapsed hold)?",
)
CALLING = {"evalsha", "eval", "evalsha_ro", "eval_ro", "script|load", "config|resetstat", "info"}
UNIT_MS = {"s": 1000, "h": 3_600_000}


class Cost(NamedTuple):
    """One `-- cost` line, read; a statement that no test can read is refused here."""

    exact: bool
    commands: int
    per_line: int
    per_lapsed: int

    def most(self, *, lines: int = 0, lapsed: int = 0) -> int:
        return self.commands + self.per_line * lines + self.per_lapsed * lapsed


def stated(script: Script[Any]) -> Cost:
    found = COST.fullmatch(script.cost)
    assert found, f"{script.name}: the cost {script.cost!r} cannot be tested"
    return Cost(not found[1], *(int(number or 0) for number in found.groups()[1:]))


async def commands_run(redis: Pipe, call: Awaitable[object]) -> int:
    """How many commands the scripts of this call ran inside the server, as `INFO commandstats` counts them."""
    await redis.command("CONFIG", "RESETSTAT")
    await call
    info = await redis.command("INFO", "commandstats")
    assert isinstance(info, bytes)
    ran = re.findall(r"cmdstat_([\w|-]+):calls=(\d+)", info.decode())
    return sum(int(calls) for command, calls in ran if command not in CALLING)


async def everything(redis: Pipe) -> dict[str, bytes]:
    """Every key with its serialised value: two of these are equal when nothing changed but the clock."""
    names = await redis.command("KEYS", "*")
    assert isinstance(names, list)
    return {name.decode(): msgspec.convert(await redis.command("DUMP", name), bytes) for name in names}


def life_ms(pattern: str) -> int:
    """The life that the key map gives this pattern; 0 for a permanent one."""
    (row,) = (key for key in KEYS if key.pattern == pattern)
    if row.ttl == "permanent":
        return 0
    number, unit = row.ttl.split(" ")
    return int(number) * UNIT_MS[unit]


async def check_life(redis: Pipe, name: str, pattern: str) -> None:
    """The key was just written and lives as long as its row says, not a moment more."""
    left_ms = await redis.command("PTTL", name)
    assert isinstance(left_ms, int)
    life = life_ms(pattern)
    if life:
        assert life - 5000 < left_ms <= life, f"{name} lives {left_ms} ms, the map says {life}"
    else:
        assert left_ms == -1, f"{name} is permanent on the map and lives {left_ms} ms"
