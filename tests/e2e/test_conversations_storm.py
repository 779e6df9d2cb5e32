"""A storm over conversations: no message is lost, none is answered twice, each conversation keeps its order.

Users write in bursts through the real web door, with repeats as Telegram sends them; workers are killed (-9) again and
again, Redis is restarted with what it has written down, or forgets everything. The model says back what it was asked,
so that the chats show which message was answered how often. TORG_MESSAGES=10000 is the whole storm (some minutes).
"""

import asyncio
import os
import random
import re
import signal
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import pytest

from app.base import keys
from app.domain import buffers
from app.errors import RedisDown
from app.infra import embedded
from app.infra.pipe import Pipe
from app.infra.sql import Postgres
from app.sandbox import model_script
from app.sandbox.model import Model
from app.sandbox.model_wire import Said
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from bench.callers import post
from tests.channels.test_updates import message
from tests.e2e.stage import environment_of
from tests.e2e.traps import Doors, Process, Zygote, until
from tests.web.test_doors import SECRET
from tests.world import BOT_TOKEN, reserved_port, settings_for

MESSAGES = int(os.environ.get("TORG_MESSAGES", "600"))
TALKS = min(500, MESSAGES // 8)
WORKERS, CONNECTIONS = 2, 20
REPEATED, COMMANDS, PAUSED = 0.2, 0.04, 0.4  # shares
SPREAD_S = max(MESSAGES / 120, 8.0)  # over which everybody writes
KILL_EVERY_S, OTHER_EVERY_S = 1.0, 4.0
PATIENCE_S = 60.0 + MESSAGES / 50
LENGTH = re.compile(rb"(?i)content-length: (\d+)")
NUMBER = re.compile(r"\bword (\d+)\b")

# Short waits, and a machine that answers whatever it is asked.
CHANNEL = """
INSERT INTO channels (kind, external_id, quiet_ms, most, escalation_enabled) VALUES ('telegram', $1, 150, 3, false)"""
STORED = """
SELECT c.peer, m.external_id FROM messages m JOIN conversations c ON c.id = m.conversation_id
 WHERE m.role = 'user' ORDER BY c.peer, m.id"""
TURNS = """
SELECT c.peer, t.state, t.answer, t.sending_at IS NOT NULL, t.sent_at IS NOT NULL,
       (SELECT count(*) FROM messages m WHERE m.turn_id = t.id AND m.role = 'user')
  FROM turns t JOIN conversations c ON c.id = t.conversation_id"""


class Turn(msgspec.Struct, frozen=True):
    peer: str
    state: str
    answer: str
    sending: bool  # its reply may be on the wire
    sent: bool  # and is
    words: int


class Storm:
    """A shop of real processes on a Redis of its own, the outside world in this one, and what was said."""

    def __init__(self, home: Path, pg: Postgres, redis: Pipe, url: str, seed: int) -> None:
        self.home, self.pg, self.redis, self.url, self.chance = home, pg, redis, url, random.Random(seed)
        self.telegram = Telegram(BOT_TOKEN)
        self.web: Process
        self.workers: list[Process] = []
        self.said: dict[str, list[str]] = defaultdict(list)  # by peer: words, by their update's id, in order
        self.commands = Counter[str]()  # by peer
        self.counts = Counter[str]()
        self.updates = 0
        self.connections = asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    @classmethod
    @asynccontextmanager
    async def opened(cls, pg_url: str, zygote: Zygote, seed: int) -> AsyncIterator[Self]:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t-")))
            redis_url = stack.enter_context(embedded.serve(home, postgres=False)).redis_url
            pg = await Postgres.open(pg_url, pool_size=2, timeout_ms=10_000)
            stack.push_async_callback(pg.close)
            redis = Pipe(redis_url, timeout_ms=5000)
            stack.push_async_callback(redis.aclose)
            port = reserved_port(stack)
            url = f"http://127.0.0.1:{port}"
            storm = cls(home, pg, redis, url, seed)
            settings = settings_for(
                pg_url, redis_url, port=port, public_url=url, data_dir=str(home / "unused"), lease_s=1, pg_pool_size=4,
                log_level="info", telegram_webhook_secret=SECRET, model_key="key-of-the-model", model_name="sandbox-1",
                model_url=await enter(running(Model("key-of-the-model", piece_ms=2).app())) + "/v1",
                telegram_api_url=await enter(running(storm.telegram.app())),
            )  # fmt: skip
            for name in ("web", *["worker"] * WORKERS):
                log = home / f"{name}-{len(storm.workers)}.log"
                process = Process(name, zygote, Doors(), environment_of(settings), log)
                stack.callback(process.kill)
                if name == "web":
                    storm.web = process
                else:
                    storm.workers.append(process)
            await pg.fetch(CHANNEL, (BOT_TOKEN.partition(":")[0],))
            for process in (storm.web, *storm.workers):
                process.start()
            await until(storm.ready, "web is ready", storm.tails)
            yield storm
            while not storm.connections.empty():
                storm.connections.get_nowait()[1].close()

    async def ready(self) -> bool:
        """The connections to the web process are there."""
        with suppress(OSError):
            for _ in range(CONNECTIONS):
                self.connections.put_nowait(await asyncio.open_connection("127.0.0.1", urlsplit(self.url).port))
        return not self.connections.empty()

    async def rage(self, *disasters: tuple[float, Callable[[], Awaitable[None]]]) -> None:
        """Everybody has said everything, and each disaster came at its own pace meanwhile."""
        over = asyncio.Event()

        async def again(every_s: float, deed: Callable[[], Awaitable[None]]) -> None:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), every_s)
                    return
                await deed()

        beside = [asyncio.create_task(again(every_s, deed)) for every_s, deed in disasters]
        await asyncio.gather(*(self.talk(str(1000 + n), MESSAGES // TALKS) for n in range(TALKS)))
        over.set()
        await asyncio.gather(*beside)
        await until(self.calm, "nothing waits", self.tails, within_s=PATIENCE_S)

    async def talk(self, peer: str, size: int) -> None:
        """One user, who writes in bursts."""
        earlier: list[dict[str, Any]] = []
        await asyncio.sleep(self.chance.uniform(0, SPREAD_S / 2))
        for _ in range(size):
            update = self.update(peer)
            await self.post(update)
            earlier.append(update)
            while self.chance.random() < REPEATED:
                self.counts["repeats"] += 1
                await self.post(self.chance.choice(earlier))
            if self.chance.random() < PAUSED:
                await asyncio.sleep(self.chance.uniform(0, SPREAD_S / size / PAUSED))

    def update(self, peer: str) -> dict[str, Any]:
        self.updates += 1
        chat = {"id": int(peer), "type": "private", "first_name": f"User {peer}"}
        user = {"id": int(peer), "is_bot": False, "first_name": f"User {peer}", "language_code": "en"}
        if self.chance.random() < COMMANDS:
            self.commands[peer] += 1
            text = "/orders"
        else:
            self.said[peer].append(f"u{self.updates}")
            text = f"word {self.updates} {self.chance.randbytes(6).hex()}"
        return message(chat=chat, text=text, **{"from": user}) | {"update_id": self.updates}

    async def post(self, update: dict[str, Any]) -> None:
        """Until it is taken, as Telegram does it."""
        headers = {"X-Telegram-Bot-Api-Secret-Token": SECRET}
        request = post(f"{self.url}/api/webhook", msgspec.json.encode(update), headers)
        while (status := await self.ask(request)) != 200:
            assert status in (0, 503), update
            self.counts["503" if status else "hung up"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))
        self.counts["posts"] += 1

    async def ask(self, request: bytes) -> int:
        """The status; 0: there was none. By hand: httpx takes as long for a call as all that is called."""
        reader, writer = await self.connections.get()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(LENGTH.findall(head)[0]))
        except (OSError, asyncio.IncompleteReadError):  # idle for too long
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(self.url).port)
            return 0
        finally:
            self.connections.put_nowait((reader, writer))
        return int(head[9:12])

    async def kill(self) -> None:
        """A worker is gone, and its supervisor starts it again."""
        worker = self.chance.choice(self.workers)
        worker.kill()
        self.counts["kill -9"] += 1
        worker.start()

    async def restart_redis(self) -> None:
        server = embedded.Redis(self.home, self.home / "run")
        pid = await asyncio.to_thread(server.pid)
        os.kill(pid, signal.SIGTERM)
        while server.runs():  # noqa: ASYNC110  (a process that is not our child ends without an event)
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.chance.uniform(0, 1))
        await asyncio.to_thread(self._start_redis)
        self.counts["Redis restarts"] += 1

    def _start_redis(self) -> None:
        with embedded.serve(self.home, postgres=False):  # whoever finds a server missing starts it
            pass

    async def flush(self) -> None:
        with suppress(RedisDown):
            await self.redis.command("FLUSHALL")
            self.counts["FLUSHALL"] += 1

    async def calm(self) -> bool:
        """Nothing waits, and nothing is under way."""
        names = [keys.buffer_talks(shard) for shard in range(buffers.SHARDS)]
        with suppress(RedisDown):
            return await self.redis.command("EXISTS", *names) == 0
        return False

    def tails(self) -> str:
        return "\n".join(process.tail() for process in (self.web, *self.workers))

    async def stored(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for peer, external_id in await self.pg.fetch(STORED, ()):
            found[peer].append(external_id)
        return found

    async def turns(self) -> list[Turn]:
        return [Turn(*row) for row in await self.pg.fetch(TURNS, ())]

    def wire(self, peer: str) -> list[str]:
        return [sent["text"] for sent in self.telegram.sent_to(int(peer))]

    def nothing_twice(self, turns: list[Turn]) -> None:
        """No message was answered twice, and nothing was said that no turn claims. Raises: AssertionError."""
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        noted = Counter[str]()
        for turn in turns:
            if turn.state == "noted":
                noted[turn.peer] += turn.sending
            elif turn.sending:
                answers[turn.peer][turn.answer] += 1
        for peer in self.said.keys() | self.commands.keys():
            wire = self.wire(peer)
            told = Counter(number for text in wire for number in NUMBER.findall(text))
            assert [number for number, times in told.items() if times > 1] == [], (peer, wire)
            left = Counter(wire) - answers[peer]
            assert left.total() <= noted[peer], (peer, left)

    def no_defects(self) -> None:
        """Raises: AssertionError when an expected disaster looks like a defect in the log."""
        lines = [line for process in (self.web, *self.workers) for line in process.lines()]
        assert [line for line in lines if '"exception"' in line or '"level": "error"' in line][:5] == []


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model says what it was asked."""

    def play(body: dict[str, Any]) -> Said:
        asked = next(told["content"] for told in reversed(body["messages"]) if told["role"] == "user")
        return Said(f"You said: {asked}")

    monkeypatch.setattr(model_script, "play", play)


async def test_through_kills_and_restarts_every_message_is_answered_once_in_its_order(
    pg_url: str, zygote: Zygote, echo: None
) -> None:
    async with Storm.opened(pg_url, zygote, seed=1) as storm:
        await storm.rage((KILL_EVERY_S, storm.kill), (OTHER_EVERY_S, storm.restart_redis))
        turns = await settled(storm)
        storm.no_defects()
        assert await storm.stored() == storm.said
        words = [turn for turn in turns if turn.state != "noted"]
        assert {turn.state for turn in words} == {"answered"}
        assert min(turn.words for turn in words) >= 1
        noted = Counter(turn.peer for turn in turns if turn.state == "noted")
        assert noted == storm.commands
        storm.nothing_twice(turns)
        unsure = 0
        for peer in storm.said:
            missing = Counter(turn.answer for turn in words if turn.peer == peer) - Counter(storm.wire(peer))
            for turn in (turn for turn in words if turn.peer == peer and missing[turn.answer]):
                assert (turn.sending, turn.sent) == (True, False), turn
                unsure += 1
        print(f"{dict(storm.counts)}, {len(words)} turns, {unsure} replies lost with their workers")
        assert storm.counts["kill -9"] >= 5
        assert storm.counts["Redis restarts"] >= 1
        assert unsure <= storm.counts["kill -9"] * 32


async def test_after_redis_forgot_everything_nothing_is_answered_twice(pg_url: str, zygote: Zygote, echo: None) -> None:
    async with Storm.opened(pg_url, zygote, seed=2) as storm:
        await storm.rage((KILL_EVERY_S, storm.kill), (OTHER_EVERY_S / 2, storm.flush))
        turns = await settled(storm)
        storm.no_defects()
        stored = await storm.stored()
        lost = 0
        for peer, told in storm.said.items():
            assert set(stored[peer]) <= set(told)
            assert len(set(stored[peer])) == len(stored[peer])
            lost += len(told) - len(stored[peer])
        storm.nothing_twice(turns)
        said = sum(map(len, storm.said.values()))
        print(f"{dict(storm.counts)}, {len(turns)} turns, {lost} messages forgotten of {said}")
        assert storm.counts["FLUSHALL"] >= 2
        assert len(turns) > MESSAGES // 10


async def settled(storm: Storm) -> list[Turn]:
    """The turns, once what follows a reply beside the work has been written."""
    before: list[Turn] = []
    while (turns := await storm.turns()) != before:
        before = turns
        await asyncio.sleep(0.5)
    return turns
