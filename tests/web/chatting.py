"""A scripted consultant, and buyers who chat with it: what the tests of `/api/chat` share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from app.channels.line import Offer
from app.flows.consult import Show
from app.flows.converse import Reply, Turn
from tests.tabs import PATIENCE_S
from tests.world import Buyer

OFFER = Offer(7, "Key", 2, 19_900, "RUB", "token-of-an-offer")
Play = Callable[[Turn, Show], Awaitable[Reply]]


def answer(text: str, *, state: str = "answered", by: str = "model", offers: list[Offer] | None = None) -> Reply:
    return Reply(state=state, text=text, offers=offers or [], by=by, mine=True)


class Consultant:
    """Stands in for the pipeline: plays what a test gives it, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Turn] = []
        self.cut = 0
        self.play: Play = self.plainly
        self.go = asyncio.Event()

    async def talk(self, shop: Any, opened: Any, turn: Turn, show: Show) -> Reply:
        self.asked.append(turn)
        try:
            return await self.play(turn, show)
        except asyncio.CancelledError:
            self.cut += 1
            raise

    async def plainly(self, turn: Turn, show: Show) -> Reply:
        for piece in ("Hel", "lo"):
            await show(piece)
        return answer("Hello")

    async def slowly(self, turn: Turn, show: Show) -> Reply:
        """The first word, and the rest when it is told to go on."""
        await show("Hel")
        await self.go.wait()
        await show("lo")
        return answer("Hello")

    async def silently(self, turn: Turn, show: Show) -> Reply:
        await self.go.wait()
        return answer("Hello")


@asynccontextmanager
async def asking(buyer: Buyer, text: str = "Hi", message_id: str = "", **more: Any) -> AsyncIterator[EventSource]:
    body = {"text": text, "id": message_id or str(uuid4()), **more}
    async with aconnect_sse(buyer.http, "POST", "/api/chat", json=body, headers=buyer.headers) as source:
        yield source


async def told(buyer: Buyer, *args: str, **more: Any) -> list[tuple[str, Any]]:
    """All that an answer says."""
    async with asking(buyer, *args, **more) as source:
        return [(event.event, event.json()) async for event in source.aiter_sse()]


async def post(buyer: Buyer, **body: Any) -> httpx.Response:
    return await buyer.http.post("/api/chat", json={"text": "Hi", "id": str(uuid4())} | body, headers=buyer.headers)


async def first(source: EventSource) -> tuple[AsyncIterator[ServerSentEvent], ServerSentEvent]:
    events = source.aiter_sse()
    async with asyncio.timeout(PATIENCE_S):
        return events, await anext(events)
