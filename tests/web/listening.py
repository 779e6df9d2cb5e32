"""A buyer who listens to `GET /api/events` in several tabs, and what a test asks of the process that serves her."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from app import errors
from app.base import clock
from app.domain import events
from app.domain.events import Event
from app.flows import follow
from tests.tabs import PATIENCE_S, Tab
from tests.world import Buyer, World


class Ann:
    """A buyer who listens."""

    def __init__(self, world: World, buyer: Buyer) -> None:
        self.world, self.buyer = world, buyer
        self.token = buyer.headers["Authorization"].removeprefix("Bearer ")
        self.user_id = int(self.token.split(".")[1])
        self.published = 0
        self.tabs: list[Tab] = []

    async def tab(self, **how: Any) -> Tab:
        if "ticket" not in how and "token" not in how:
            how["token"] = self.token
        self.tabs.append(await Tab.open(self.world.shop.deps.settings.port, **how))
        return self.tabs[-1]

    async def publish(self, count: int = 1, **data: object) -> list[str]:
        """The ids of so many new events."""
        ids = [f"order:{self.published + n}" for n in range(count)]
        self.published += count
        for event_id in ids:
            event = Event(id=event_id, type="order.status", at=clock.now(), data=data)
            await events.publish(self.world.shop.deps.redis, [self.user_id], event)
        return ids

    async def ticket(self) -> str:
        answer = await self.world.http.post("/api/events/ticket", headers=self.buyer.headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["expires_in_s"] == 30
        return str(answer.json()["ticket"])


@asynccontextmanager
async def signed_in(world: World, telegram_id: int = 1001) -> AsyncIterator[Ann]:
    ann = Ann(world, await world.buyer(telegram_id))
    yield ann
    for tab in ann.tabs:
        tab.reset()


def streams(world: World) -> follow.Streams:
    found: follow.Streams = world.app.state.streams
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110  (several things of a process, none of them ours)
            await asyncio.sleep(0.005)


async def refused(tab: Tab, kind: type[errors.Problem]) -> None:
    assert (tab.status, tab.headers["content-type"]) == (kind.status, "application/problem+json")
    assert kind.type.encode() in tab.body


async def until_served(ann: Ann) -> Tab:
    """Redis is back for everybody; the tab that found out."""
    async with asyncio.timeout(PATIENCE_S):
        while (tab := await ann.tab()).status != 200:  # noqa: ASYNC110  (what is waited for is Redis)
            await asyncio.sleep(0.02)
    return tab
