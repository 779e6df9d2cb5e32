"""Somebody who writes, a consultant that says what a test wrote down, and a line that remembers what went out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from unittest.mock import patch
from uuid import UUID

import msgspec

from app.base import ending
from app.base.ids import new_id
from app.channels.line import Offer
from app.domain import conversations
from app.domain.buffers import Batch, Heard
from app.errors import ProviderDown
from app.flows import converse
from app.flows.consult import Answer, Question, Show
from app.infra.messenger import Sent
from app.shop import Shop
from tests.world import World

ROWS = """
SELECT m.role, m.text, m.external_id, t.state, t.answered_by AS by, t.question, t.answer, t.quality, t.offers,
       t.sending_at IS NULL AS unclaimed, t.sent_at IS NULL AS unsent
  FROM turns t LEFT JOIN messages m ON m.turn_id = t.id
 WHERE t.conversation_id = (SELECT id FROM conversations WHERE channel_id = $1 AND peer = $2)
 ORDER BY t.created_at, m.at, m.id"""

STATES = """
SELECT t.state FROM turns t JOIN conversations c ON c.id = t.conversation_id WHERE c.peer = $1 ORDER BY t.created_at"""


class Street:
    """A line; `fails` is what its next sends raise."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, list[int]]] = []  # peer, text, products offered
        self.shown: list[str] = []
        self.fails: list[BaseException] = []
        self.outcome = Sent.DELIVERED

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        if self.fails:
            raise self.fails.pop(0)
        self.sent.append((peer, text, [offer.product_id for offer in offers]))
        return self.outcome

    def draft(self, peer: str, turn_id: UUID) -> "Draft":
        return Draft(self, peer)

    def texts(self) -> list[str]:
        return [text for _, text, _ in self.sent]


class Draft:
    def __init__(self, street: Street, peer: str) -> None:
        self.street, self.peer = street, peer

    def show(self, text: str) -> None:
        self.street.shown.append(text)

    async def finish(self, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        return await self.street.say(self.peer, language, text, offers)

    async def close(self) -> None: ...


class Gate:
    """Stands before a call, which comes and is held until it is let go."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.call, self.came, self.go = call, asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.came.set()
        await self.go.wait()
        return await self.call(*args, **kwargs)

    async def cut(self, caller: Awaitable[object]) -> None:
        """The caller is cancelled while its call is held, which then goes on."""
        with patch.object(ending, "GOODBYE_S", 10):  # the machine may be busy
            task = asyncio.ensure_future(caller)
            await self.came.wait()
            task.cancel()
            await asyncio.sleep(0)
            self.go.set()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


class Consultant:
    """Stands in for `consult.consult`: answers from `answers` while there are some, then by echo."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.answers: list[Answer | Exception] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None  # what happens while it thinks

    async def __call__(self, shop: Shop, question: Question, show: Show) -> Answer:
        self.asked.append(question)
        answer = self.answers.pop(0) if self.answers else said(f"You asked: {question.text}")
        if self.meanwhile:
            await self.meanwhile()
        if isinstance(answer, Exception):
            raise answer
        await show(answer.text[:3])
        await show(answer.text[3:])
        return answer


def said(text: str, *offers: Offer, quality: float = 0.9, hand_over: bool = False) -> Answer:
    return Answer(text, "model", quality, list(offers), hand_over)


def unsure() -> ProviderDown:
    return ProviderDown("no answer", unsure=True)


class Writer:
    """Who writes to one channel as one peer; `shop` may be another view of the world's."""

    def __init__(self, world: World, channel_id: int, peer: str, street: Street, shop: Shop | None = None) -> None:
        self.world, self.channel_id, self.peer, self.street = world, channel_id, peer, street
        self.shop = shop or world.shop
        self.messages = 0

    def batch(self, *texts: str, ids: Sequence[str] = ()) -> Batch:
        heard = []
        for n, text in enumerate(texts):
            self.messages += 1
            heard.append(Heard(ids[n] if ids else f"m{self.messages}", 1_790_000_000, name="Ann", text=text))
        return Batch(new_id(), self.channel_id, self.peer, 1, heard)

    async def say(self, *texts: str, ids: Sequence[str] = ()) -> Batch:
        """The batch, after it was answered."""
        batch = self.batch(*texts, ids=ids)
        await self.take(batch)
        return batch

    async def take(self, batch: Batch) -> None:
        await converse.converse(self.shop, batch)
        await self.settled()

    async def settled(self) -> None:
        while self.shop.errands.running:
            await asyncio.gather(*self.shop.errands.running)

    async def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.world.pg.fetch(ROWS, (self.channel_id, self.peer))]

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.world.pg.fetch(STATES, (self.peer,))]

    async def conversation(self) -> Any:
        query = "SELECT * FROM conversations WHERE channel_id = $1 AND peer = $2"
        return (await self.world.pg.fetch(query, (self.channel_id, self.peer)))[0]

    async def later(self, interval: str) -> None:
        """So much time has passed for this conversation."""
        for table, column, key in (
            ("conversations", "heard_at", "id"), ("conversations", "opened_at", "id"),
            ("conversations", "reviewing_at", "id"), ("messages", "at", "conversation_id"),
            ("turns", "created_at", "conversation_id"), ("turns", "sending_at", "conversation_id"),
        ):  # fmt: skip
            await self.world.pg.fetch(
                f"UPDATE {table} SET {column} = {column} - interval '{interval}' WHERE {key} = $1",
                ((await self.conversation())["id"],),
            )


async def writer(world: World, peer: str = "1001", *, parallel: bool = True, bot: str = "77") -> Writer:
    """A new one, on a Telegram channel of the world."""
    channel = await conversations.register(world.pg, "telegram", bot)
    street = Street()
    deps = world.shop.deps
    settings = msgspec.structs.replace(deps.settings, parallel=parallel)
    shop = msgspec.structs.replace(
        world.shop, deps=msgspec.structs.replace(deps, settings=settings), lines={"telegram": street}
    )
    return Writer(world, channel.id, peer, street, shop)
