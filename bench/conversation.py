"""A message answered with 50 ms to Postgres: the source's sequential pipeline, and Torg's.

Both run in this process on one Postgres that is 25 ms away each way (`proxy.py`), on as many connections, with the same
model, which takes `MODEL_S` for every answer, and a line that carries at once. A message's time is from the batch in
hand (of what its channel brought, out of the buffer, which either may look into as early as it likes) until the reply
leaves, less the model's own time. One message at a time, then 8 (`x8`); every message is of a conversation that is
known and has a history. `per second`: callers by the time that a message keeps one of them busy, to its last query,
less the model's.

`torg` is `converse.converse` as `torg worker` runs it, on the whole shop, and `sequential` is `replies.py`, which says
what it is spared. `correct`: each message was stored once and answered once, the reply is in the history and on the
line once, and is marked as sent.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import msgspec

from app import settings as settings_floor
from app import shop as shops
from app.base import tally
from app.base.heard import Heard
from app.base.ids import new_id
from app.channels.line import Offer, Unseen
from app.demo import environment
from app.domain import conversations
from app.domain.buffers import Batch
from app.flows import consult, converse
from app.infra import observe
from app.infra.embedded import Servers
from app.infra.messenger import Sent
from app.infra.migrate import migrate
from app.shop import Shop
from bench import replies, report
from bench.baseline import NOBODY, Desk, Queries
from bench.proxy import proxied
from bench.report import Round, Row

DELAY_S = 0.025  # each way
MODEL_S = 0.2
ROUNDS = 5
CALLERS = 8
CALLS = {1: 12, CALLERS: 96}  # in a turn, by callers
CONNECTIONS = 16
PEERS = 96
BOT = "1234567"
KNOWN = """
SELECT count(*) FROM turns t
 WHERE t.id = ANY ($1) AND t.state = 'answered' AND t.sent_at IS NOT NULL
   AND (SELECT array_agg(m.role ORDER BY m.id) FROM messages m WHERE m.turn_id = t.id) = ARRAY['user', 'assistant']"""
WARM_UP: Queries = (
    (replies.INSTANCE, ("",)), (replies.ACTIVE, (0, "")), (replies.LATELY, (0,)), (replies.HISTORY, (0,)),
    (replies.WEBHOOK, (0,)), (replies.ESCALATED, (0,)), (replies.SETTINGS, (0,)), (replies.INTERACTIONS, (0,)),
    (replies.PROCESSED, (NOBODY,)),
)  # fmt: skip


class Watch:
    """What one message took, and what of it was the model's."""

    def __init__(self) -> None:
        self.began, self.left, self.ended, self.model_s = perf_counter(), 0.0, 0.0, 0.0


class Street:
    """The model and the line of both variants; a message is known by its peer, who has one at a time."""

    def __init__(self) -> None:
        self.watches: dict[str, Watch] = {}
        self.sent: list[tuple[str, str]] = []

    async def model(self, peer: str, text: str) -> str:
        began = perf_counter()
        await asyncio.sleep(MODEL_S)
        self.watches[peer].model_s = perf_counter() - began
        return f"You asked: {text}"

    async def send(self, peer: str, text: str) -> None:
        self.watches[peer].left = perf_counter()
        self.sent.append((peer, text))


class Line:
    """Torg's way out to the street."""

    def __init__(self, street: Street) -> None:
        self.street = street

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        await self.street.send(peer, text)
        return Sent.DELIVERED

    def draft(self, peer: str, turn_id: UUID) -> Unseen:
        return Unseen(self, peer)


def main() -> None:
    report.run("conversation", compared)


async def compared(folder: Path, servers: Servers) -> tuple[list[Row], list[str]]:
    async with opened(folder, servers) as bench:
        done: dict[tuple[str, int], list[Round]] = {}
        right = dict.fromkeys(("torg", "sequential"), True)
        queries: dict[tuple[str, int], float] = {}
        for number in range(ROUNDS + 1):
            for name in right:
                for crowd, count in CALLS.items():
                    turn, asked, correct = await bench.turn(name, crowd, count)
                    right[name] &= correct
                    if number:  # the first is warm-up
                        done.setdefault((name, crowd), []).append(turn)
                        queries[name, crowd] = asked
        rows = [
            report.row(name if crowd == 1 else f"{name} x{crowd}", turns, correct=right[name])
            for (name, crowd), turns in done.items()
        ]
        return rows, verdict(rows, queries)


class Bench:
    """The shop far away, the baseline's connections as far away, and an undelayed look at Postgres."""

    def __init__(self, eye: Any, shop: Shop, desk: Desk, street: Street, channel_id: int) -> None:
        self.eye, self.shop, self.desk, self.street, self.channel_id = eye, shop, desk, street, channel_id
        self.said = 0

    async def turn(self, name: str, crowd: int, count: int) -> tuple[Round, float, bool]:
        """So many messages are answered: their times, the queries of each, and whether all is as it should be."""
        peers = [str(number) for number in range(1, PEERS + 1)][:count]
        turns, watches = {peer: new_id() for peer in peers}, {peer: Watch() for peer in peers}
        self.street.watches, self.street.sent = watches, []
        waiting, asked = iter(peers), _statements()
        one = self.torg if name == "torg" else self.sequential

        async def caller() -> None:
            for peer in waiting:
                self.said += 1
                text = f"{self.said}: {turns[peer].hex}, please"  # like nothing that was said before
                watches[peer].began = perf_counter()
                await one(peer, turns[peer], text)
                watches[peer].ended = perf_counter()

        await asyncio.gather(*(caller() for _ in range(crowd)))
        await self.settled(list(turns.values()))
        all_right = await self.eye.fetchval(KNOWN, list(turns.values())) == count
        calls_ms = [(watch.left - watch.began - watch.model_s) * 1000 for watch in watches.values()]
        busy_s = sum(watch.ended - watch.began - watch.model_s for watch in watches.values())
        each = (_statements() - asked) / count if name == "torg" else replies.QUERIES
        return (
            Round(calls_ms, busy_s / crowd),
            each,
            all_right and sorted(p for p, _ in self.street.sent) == sorted(peers),
        )

    async def torg(self, peer: str, turn_id: UUID, text: str) -> None:
        heard = Heard(external_id=f"m{turn_id.hex}", at_s=int(time.time()), name="Ann", language="en", text=text)
        await converse.converse(self.shop, Batch(turn_id, self.channel_id, peer, 1, [heard]))

    async def sequential(self, peer: str, turn_id: UUID, text: str) -> None:
        message = replies.Message(turn_id, f"m{turn_id.hex}", BOT, peer, text)
        async with self.desk.held(1) as (db,):
            await replies.reply(db, message, lambda asked: self.street.model(peer, asked), self.street.send)

    async def settled(self, turn_ids: list[UUID]) -> None:
        """What follows a reply is done too. Raises: TimeoutError."""
        late = "SELECT count(*) FROM turns WHERE id = ANY ($1) AND sent_at IS NULL"
        async with asyncio.timeout(30):
            while await self.eye.fetchval(late, turn_ids):  # noqa: ASYNC110  (Postgres sets no event here)
                await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(folder: Path, servers: Servers) -> AsyncIterator[Bench]:
    await migrate(servers.database_url)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        eye = await asyncpg.connect(servers.database_url)
        stack.push_async_callback(eye.close)
        database_url, _ = await enter(proxied("database", servers.database_url, delay_s=DELAY_S))
        redis_url, _ = await enter(proxied("redis", servers.redis_url, delay_s=DELAY_S))
        secrets = environment.secrets_of(folder)
        settings = settings_floor.load(
            secrets
            | {
                "TORG_DATABASE_URL": database_url, "TORG_REDIS_URL": redis_url, "TORG_REDIS_TIMEOUT_MS": "1000",
                "TORG_PG_POOL_SIZE": str(CONNECTIONS), "TORG_LOG_LEVEL": "warning",
            }
        )  # fmt: skip
        observe.configure(settings)
        street = Street()
        shop = msgspec.structs.replace(await enter(shops.opened(settings)), lines={"telegram": Line(street)})
        channel = await conversations.register(shop.deps.pg, "telegram", BOT)
        peers: dict[int, str] = {}  # by our user's id
        for number in range(1, PEERS + 1):
            peer = str(number)
            known = await conversations.open(shop.deps.pg, channel.id, peer, name="Ann", username="", language="en")
            assert known is not None
            peers[known.user_id] = peer
        stack.enter_context(patch.object(consult, "consult", _model(street, peers)))
        desk = await enter(Desk.opened(database_url, CONNECTIONS, WARM_UP))
        yield Bench(eye, shop, desk, street, channel.id)


def _model(street: Street, peers: dict[int, str]) -> Callable[..., Awaitable[consult.Answer]]:
    """Torg's consultant, played by the street's model."""

    async def answered(shop: Shop, asked: consult.Question, show: consult.Show) -> consult.Answer:
        text = await street.model(peers[asked.user_id], asked.text)
        await show(text)
        return consult.Answer(text, "model", 0.9, [], False)

    return answered


def _statements() -> int:
    """How many statements this process has run."""
    return sum(sum(times.counts) for times in tally.STATEMENTS.series.values())


def verdict(rows: Sequence[Row], queries: dict[tuple[str, int], float]) -> list[str]:
    """What was promised beside what was measured."""
    by_name = {row.variant: row for row in rows}
    less = 100 * (1 - by_name["torg"].p50_ms / by_name["sequential"].p50_ms)
    crowd = f" x{CALLERS}"
    times = by_name["torg" + crowd].per_second / by_name["sequential" + crowd].per_second
    kept = {True: "kept", False: "MISSED"}
    return [
        f"{less:.0f} % less time a message than sequential (promised: at least 65 %): {kept[less >= 65]}",
        f"{times:.1f} times as many a second, {CALLERS} at a time (promised: at least 3): {kept[times >= 3]}",
        f"queries a message: {queries['torg', 1]:.1f} one at a time, {queries['torg', CALLERS]:.1f} with {CALLERS}; "
        f"sequential {replies.QUERIES}",
    ]
