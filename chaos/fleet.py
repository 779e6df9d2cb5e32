"""Real `torg worker` processes under a supervisor that starts anew whatever ends.

They are forked from a process that has the imports loaded (tests/e2e/zygote.py): from `python -m app.cli worker` a
start would cost seconds of processor time, and a storm that kills every 2 s would measure imports.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.e2e.traps import Zygote

LOOK_S = 0.1
NO_POSTGRES = "torg: Postgres does not answer"  # the last word of one that met none at its start


class Life(msgspec.Struct):
    """One worker process from start to end."""

    name: str  # as its connections to Postgres call themselves
    pid: int
    killed_s: float | None = None  # on the clock of the machine, which Postgres goes by too
    frozen: bool = False


class Fleet:
    """So many workers at any time."""

    def __init__(self, zygote: Zygote, environ: Mapping[str, str], log: Path, size: int) -> None:
        self.zygote, self.environ, self.log, self.size = zygote, dict(environ), log, size
        self.lives: dict[str, Life] = {}
        self.alive: list[Life] = []
        self.ended_by_themselves: list[int] = []  # exit codes

    def start(self) -> None:
        name = f"worker-{len(self.lives) + 1}"
        url = self.environ["TORG_DATABASE_URL"]
        url += f"{'&' if '?' in url else '?'}application_name={name}"
        pid = self.zygote.ask("start", ["worker"], self.environ | {"TORG_DATABASE_URL": url}, str(self.log))
        self.lives[name] = life = Life(name, pid)
        self.alive.append(life)

    def kill(self) -> None:
        """One of those that are not frozen is gone, and another has started in its place."""
        awake = [life for life in self.alive if not life.frozen]
        if awake:
            self._end(random.choice(awake))
            self.start()

    async def freeze(self, seconds: float) -> None:
        """One of them does nothing for so long, and then goes on as if nothing had been."""
        life = random.choice(self.alive)
        life.frozen = True
        os.kill(life.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):  # it had ended by itself just before
                os.kill(life.pid, signal.SIGCONT)
            life.frozen = False

    async def supervise(self) -> None:
        """Until cancelled: one that has ended by itself, because it met no Postgres at its start, is started again."""
        while True:
            for life in [life for life in self.alive if _ended(life.pid)]:
                self.ended_by_themselves.append(self._end(life))
                self.start()
            await asyncio.sleep(LOOK_S)

    def stop(self) -> None:
        for life in tuple(self.alive):
            self._end(life)

    def _end(self, life: Life) -> int:
        self.alive.remove(life)
        life.killed_s = time.time()
        return self.zygote.ask("kill", life.pid)

    def errors(self) -> list[str]:
        """Lines of the log that tell of a defect."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        odd = [line for line in lines if '"level": "error"' in line or not line.startswith("{")]
        # An empty one is half of two that two workers wrote at the same moment.
        return [line for line in odd if line and not line.startswith(NO_POSTGRES)]


def _ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
