"""A thousand listeners who come and go while ten thousand events happen: no gap, no repeat, and nothing left of them.

Against a real `torg web`. Its subscription is cut again and again. TORG_LISTENERS=1000 is the whole run.
"""

import asyncio
import os
import random
import resource
import signal
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from app.base import clock
from app.domain import events
from app.domain.events import Event
from app.flows.follow import MOST_OF_USER
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.secrets import Session, Tokens
from tests.e2e.stage import environment_of
from tests.e2e.traps import Doors, Process, Zygote, until
from tests.tabs import Tab
from tests.world import reserved_port, settings_for

LISTENERS = int(os.environ.get("TORG_LISTENERS", "300"))
EVENTS = 10 * LISTENERS
TABS = 4  # of each user
USERS = LISTENERS // TABS
AT_ONCE = 20  # events
PAUSE_S = 0.03
STAY_S = 5.0  # on average, until a listener comes back anew
CUT_S = 1.0
SOON_S = 5.0
AT_LAST_S = 10.0
WITHIN_S = 90.0
HELD = ("01", "08")  # established, or left by the client alone, as /proc/net/tcp spells it


class Web:
    """`torg web` and what is needed to listen to it and to speak through it."""

    def __init__(self, process: Process, port: int, redis: Pipe, tokens: Tokens) -> None:
        self.process, self.port, self.redis, self.tokens = process, port, redis, tokens

    def session(self, user_id: int) -> Session:
        return Session(user_id, "buyer", clock.unix_s() + 3600)

    async def tab(self, user_id: int, last_id: str = "") -> Tab:
        """By token or by ticket, the id in the header or in the URL. Raises: OSError, TimeoutError."""
        how: dict[str, Any] = {random.choice(("last_id", "header")): last_id}
        if random.random() < 0.3:
            return await Tab.open(self.port, ticket=await events.grant(self.redis, self.session(user_id)), **how)
        return await Tab.open(self.port, token=self.tokens.issue(self.session(user_id)), **how)

    def connections(self) -> int:
        """Those that the process holds, whatever their clients think."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] in HELD for row in rows)

    def state(self) -> str:
        """Z: it has ended."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    async def heard(self) -> list[bytes]:
        """The channels to which anybody listens."""
        found = await self.redis.command("PUBSUB", "CHANNELS")
        assert isinstance(found, list)
        return found


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
async def web(zygote: Zygote, servers: Servers, pg_url: str, redis: Pipe, tmp_path: Path) -> AsyncIterator[Web]:
    async with AsyncExitStack() as stack:
        port = reserved_port(stack)
        settings = settings_for(pg_url, servers.redis_url, port=port, log_level="debug")
        process = Process("web", zygote, Doors(), environment_of(settings), tmp_path / "web.log")
        process.start()
        stack.callback(process.kill)
        one = Web(process, port, redis, Tokens(settings.session_secret))

        async def listens() -> bool:
            with socket.socket() as peer:
                return peer.connect_ex(("127.0.0.1", port)) == 0

        await until(listens, "web listens", process.tail)
        yield one
        assert '"exception"' not in "\n".join(process.lines()), process.tail()


class Listener:
    """Somebody who listens all the time, though seldom for long over one connection."""

    def __init__(self, web: Web, user_id: int) -> None:
        self.web, self.user_id = web, user_id
        self.took: list[str] = []
        self.kinds: list[str] = []
        self.connections = self.refused = 0
        self.tab: Tab | None = None
        self.ready = asyncio.Event()

    async def listen(self) -> None:
        """Until cancelled."""
        last_id = ""
        while True:
            try:
                self.tab = tab = await self.web.tab(self.user_id, last_id)
            except (OSError, TimeoutError):
                self.refused += 1
                continue
            try:
                await self.stay(tab)
            finally:
                tab.reset()
                self.take(tab)
                last_id = tab.last_id() or last_id

    async def stay(self, tab: Tab) -> None:
        """For as long as it pleases, or the server does."""
        if tab.status != 200:
            self.refused += 1
            await asyncio.sleep(random.random())
            return
        self.connections += 1
        if not self.ready.is_set():
            await tab.events(1)
            self.ready.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(random.expovariate(1 / STAY_S)):
                await tab.lost.wait()
        if random.random() < 0.3:
            await asyncio.sleep(random.random())  # away for a moment; the server still writes

    def take(self, tab: Tab) -> None:
        self.kinds += [one.kind for one in tab.said if one.kind != "message"]
        self.took += [one.event_id() for one in tab.said if one.kind == "message"]
        tab.said, self.tab = tab.said[-1:], None


@asynccontextmanager
async def listening(web: Web) -> AsyncIterator[list[Listener]]:
    """All of them are ready; at the end of the block they vanish, at once."""
    listeners = [Listener(web, user_id) for user_id in range(1, USERS + 1) for _ in range(TABS)]
    tasks = [asyncio.create_task(one.listen()) for one in listeners]
    try:
        await asyncio.gather(*(one.ready.wait() for one in listeners))
        yield listeners
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert [task for task in tasks if not task.cancelled() and task.exception()] == []


async def speak(web: Web) -> dict[int, list[str]]:
    """The ids of what each user was told, in order; each event is for two, as for a buyer and a seller."""
    told = defaultdict[int, list[str]](list)
    for start in range(0, EVENTS, AT_ONCE):
        several = []
        for n in range(start, start + AT_ONCE):
            users = random.sample(range(1, USERS + 1), 2)
            event = Event(id=f"order:{n}", type="order.status", at=clock.now(), data={"order_id": str(n)})
            several.append(events.publish(web.redis, users, event))
            for user_id in users:
                told[user_id].append(event.id)
        await asyncio.gather(*several)
        await asyncio.sleep(PAUSE_S)
    return told


async def cut(web: Web) -> None:
    """The process's subscription is lost, again and again."""
    while True:
        await asyncio.sleep(CUT_S)
        await web.redis.command("CLIENT", "KILL", "TYPE", "pubsub")


async def test_nobody_misses_anything_or_hears_it_twice(web: Web) -> None:
    assert TABS <= MOST_OF_USER
    started_s = monotonic()
    async with listening(web) as listeners:
        ready_s = monotonic() - started_s
        cutting = asyncio.create_task(cut(web))
        told = await speak(web)
        spoken_s = monotonic() - started_s - ready_s
        cutting.cancel()

        async def complete() -> bool:
            return all(len(heard_by(one)) >= len(told[one.user_id]) for one in listeners)

        await until(complete, "everybody has heard everything", web.process.tail, WITHIN_S)
        late_s = monotonic() - started_s - ready_s - spoken_s
    vanished_s = monotonic()
    wrong = [one.user_id for one in listeners if one.took != told[one.user_id]]
    assert wrong == []
    assert {tuple(one.kinds) for one in listeners} == {("ready",)}  # a reset would excuse a gap

    async def forgotten() -> bool:
        return not await web.heard() and not web.connections()

    await until(forgotten, "nothing is left of them", lambda: f"{web.connections()} connections", SOON_S)
    print(
        f"{LISTENERS} listeners ready in {ready_s:.1f} s; {EVENTS} events in {spoken_s:.1f} s, the last heard"
        f" {late_s:.1f} s later; {sum(len(one.took) for one in listeners)} deliveries over"
        f" {sum(one.connections for one in listeners)} connections ({sum(one.refused for one in listeners)} refused);"
        f" nothing left after {monotonic() - vanished_s:.1f} s"
    )


def heard_by(one: Listener) -> list[str]:
    here = one.tab.said if one.tab else []
    return one.took + [said.id for said in here if said.kind == "message"]


async def test_the_process_leaves_while_a_thousand_listen(web: Web) -> None:
    users = range(1, 2 * USERS + 1)
    tabs = [await web.tab(user_id) for user_id in users for _ in range(TABS // 2)]
    stuck = [await Tab.open(web.port, token=web.tokens.issue(web.session(0)), receive_bytes=4096) for _ in range(5)]
    for tab in (*tabs, *stuck):
        await tab.events(1)
    for tab in stuck:
        tab.transport.pause_reading()
    for n in range(400):  # more than the buffers between us hold
        event = Event(id=f"order:{n}", type="t", at=clock.now(), data={"text": "x" * 15_000})
        await events.publish(web.redis, [0], event)
    asked_s = monotonic()
    os.kill(web.process.pid, signal.SIGTERM)
    assert await asyncio.gather(*(tab.gone() for tab in tabs)) == [True] * len(tabs)
    ended_s = monotonic() - asked_s

    async def left() -> bool:
        return web.state() == "Z"

    await until(left, "web has left", web.process.tail, AT_LAST_S)
    left_s = monotonic() - asked_s
    pid, web.process.pid = web.process.pid, 0
    assert web.process.zygote.ask("kill", pid) == 128 + signal.SIGTERM
    for tab in stuck:
        tab.reset()
    assert '"level": "error"' not in "\n".join(web.process.lines())
    print(f"{len(tabs)} streams ended {ended_s:.2f} s after SIGTERM, the process {left_s:.2f} s after it")


async def test_neither_token_nor_ticket_is_logged(web: Web) -> None:
    token = web.tokens.issue(web.session(1))
    tickets = [await events.grant(web.redis, web.session(1)) for _ in range(MOST_OF_USER + 2)]
    tabs = [await Tab.open(web.port, ticket=ticket, last_id="x") for ticket in tickets]
    assert [tab.status for tab in tabs] == [200] * MOST_OF_USER + [503] * 2
    tabs += [await Tab.open(web.port, ticket=tickets[0]), await Tab.open(web.port, token=token)]
    for tab in tabs:
        tab.reset()
    logged = "\n".join(web.process.lines())
    assert '"/problems/busy"' in logged
    assert [secret for secret in (token, *tickets) if secret in logged] == []
