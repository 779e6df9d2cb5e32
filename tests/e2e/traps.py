"""Processes that can be killed between two chunks of their traffic, and the counting of those chunks."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Self

from app.base import keys
from app.domain import inbox, stock
from app.infra import queue
from app.infra.lua import Script
from bench.proxy import Direction

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0  # a story that takes longer has stopped
# Of a step in one story: a purchase has eight jobs, and each is claimed and finished as the others are.
REPEATS = int(os.environ.get("TORG_REPEATS", "1"))

STATEMENT = re.compile(rb"-- name: (\w+)")
PREPARED = re.compile(rb"__asyncpg_stmt_[0-9a-f]+__")
SHA = re.compile(rb"\$7\r\nEVALSHA\r\n\$40\r\n([0-9a-f]{40})\r\n")
BOT = re.compile(rb"/bot[^/]+")  # and its token
WORD = re.compile(rb"\$\d+\r\n([^\r]+)\r\n")
BELL = b"\r\n" + keys.ARQ_BELL.encode() + b"\r\n"
SCRIPTS = {s.sha: s.name for noun in (inbox, queue, stock) for s in vars(noun).values() if isinstance(s, Script)}
BODY = "body"  # of a request whose head went before
LISTENING = ("BLPOP", "BLMPOP")
CLOCKS = ("due_jobs", "expire_orders", "ZRANGEBYSCORE", "PSETEX", *LISTENING)
AUDIT = ("list_sellers", "stock/counted", "stock/tally", "count_units", "stock/fill")  # a clock in a worker
REPLIES = {  # of the audit's scripts, which come over the same door as arq's own
    b"$7\r\ncounted\r\n": "stock/counted", b"$7\r\ntallied\r\n": "stock/tally", b"$6\r\nfilled\r\n": "stock/fill",
}  # fmt: skip

Deed = Callable[[], Awaitable[bool]]  # False: the chunk that is passing is lost
When = Callable[[str], bool]  # told the step that is passing


class Zygote:
    """The process that forks the others; see zygote.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        command, pipe = [sys.executable, "-m", "tests.e2e.zygote"], subprocess.PIPE
        # In a session of its own: a Ctrl-C is for us, and the end of our pipe tells it.
        with subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        ) as process:  # fmt: skip
            zygote = cls(process)
            assert zygote.answer() == "ready"
            yield zygote

    def ask(self, *command: object) -> int:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        assert isinstance(answer, int)
        return answer

    def answer(self) -> object:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


class Trap:
    """Does its deed once, at the first step that suits, of the first of a kind; every other step passes."""

    def __init__(self, when: When, deed: Deed) -> None:
        self.when, self.deed = when, deed
        self.seen = Counter[str]()
        self.fired = ""  # the step

    async def step(self, what: str) -> bool:
        self.seen[what] += 1
        if self.fired or self.seen[what] > REPEATS:
            return True
        if self.seen[what] > 1:
            what += f" ({self.seen[what]})"
        if not self.when(what):
            return True
        self.fired = what
        return await self.deed()


class Stall:
    """Holds one step on its way until told to let it go on."""

    def __init__(self, step: str) -> None:
        self.came, self.go_on = asyncio.Event(), asyncio.Event()
        self.trap = Trap(lambda passing: passing == step, self.hold)

    async def hold(self) -> bool:
        self.came.set()
        await self.go_on.wait()
        return True

    async def reached(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.came.wait()


class Doors:
    """The proxies of one process: which chunks are steps of a story, and which only the ticking of its clocks."""

    def __init__(self, clocks: Sequence[str] = ()) -> None:
        self.clocks = {*CLOCKS, *clocks}
        self.trap: Trap | None = None
        self.listened = False  # the worker has asked for its bell
        self.last_s = monotonic()
        self.asked: dict[str, str] = {}  # the last request, by door
        self.statements: dict[bytes, str] = {}  # by asyncpg's name, which is unique in a process

    def forget(self) -> None:
        """A new process is behind the doors."""
        self.listened = False
        self.statements.clear()

    async def on_chunk(self, door: str, direction: Direction, data: bytes) -> bool:
        what = self._request(door, data) if direction == "up" else self._answer(door, data)
        self.listened |= what in LISTENING
        if what in ("", BODY) or what in self.clocks:
            return True
        self.last_s = monotonic()
        if self.trap is None:
            return True
        return await self.trap.step(f"{'before' if direction == 'up' else 'answer of'} {door}: {what}")

    def _request(self, door: str, data: bytes) -> str:
        what = BOT.sub(b"", data.partition(b" HTTP/")[0]).decode(errors="replace") if b" HTTP/" in data[:200] else BODY
        if door == "postgres":
            statement, prepared = STATEMENT.search(data), PREPARED.search(data)
            if statement and prepared:
                self.statements[prepared[0]] = statement[1].decode()
            what = self.statements.get(prepared[0], "?") if prepared else "?"
        elif door == "redis":
            script, word = SHA.search(data), WORD.search(data)
            what = SCRIPTS.get(script[1].decode(), "?") if script else word[1].decode() if word else "?"
        if what != BODY and not (door == "redis" and what in self.clocks):
            self.asked[door] = what
        return what

    def _answer(self, door: str, data: bytes) -> str:
        """What this answers: of Redis by its look, of the others what was asked last (Postgres has one connection)."""
        if door != "redis":
            return self.asked.get(door, "?")
        if data in (b"*-1\r\n", b"*0\r\n"):
            return ""  # nothing was rung, nothing is queued
        audit = next((script for reply, script in REPLIES.items() if reply in data[:40]), "")
        return "the bell" if BELL in data else audit or self.asked.get(door, "?")


class Process:
    """`torg web` or `torg worker` behind its doors."""

    def __init__(self, name: str, zygote: Zygote, doors: Doors, environment: dict[str, str], log: Path) -> None:
        self.name, self.zygote, self.doors, self.environment, self.log = name, zygote, doors, environment, log
        self.pid = 0
        self.warm = False  # it has done its part of a purchase once

    def start(self) -> None:
        self.warm = False
        self.doors.forget()
        self.pid = self.zygote.ask("start", [self.name], self.environment, str(self.log))

    def kill(self) -> None:
        """It is gone, its last bytes are on the way. Raises: AssertionError when it had ended by itself."""
        pid, self.pid = self.pid, 0
        if pid:
            code = self.zygote.ask("kill", pid)
            assert code == -9, f"{self.name} had ended with {code}:\n{self.tail()}"

    async def die(self) -> bool:
        """A deed: killed, and started anew as any supervisor would; the chunk is lost."""
        self.kill()
        self.start()
        return False

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def tail(self) -> str:
        return "\n".join(self.lines()[-20:])


async def until(
    true: Callable[[], Awaitable[bool]], what: str, why_not: Callable[[], str], within_s: float = PATIENCE_S
) -> None:
    deadline_s = monotonic() + within_s
    while not await true():
        assert monotonic() < deadline_s, f"not after {within_s:.0f} s: {what}\n{why_not()}"
        await asyncio.sleep(0.03)
