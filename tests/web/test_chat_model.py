"""The Mini App's chat with all that stands behind it: a model on loopback, live stock, what is stored, the order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from litestar.types import Receive, Scope, Send

from app import errors
from app.domain import conversations
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.sandbox.model import Model
from app.sandbox.model_wire import ModelFault
from app.sandbox.serve import running
from app.web import reply
from tests.web.chatting import asking, first, post, told
from tests.web.listening import Ann, signed_in, until
from tests.web.test_shop import problem
from tests.world import Buyer, World

ASKED = "I want to buy an editor"


class Watched:
    """The model's endpoint, and how many of its answers are under way."""

    def __init__(self, model: Model) -> None:
        self.model, self.open = model, 0
        self._app: Any = model.app()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        talks = scope.get("path", "").endswith("/completions")
        self.open += talks
        try:
            await self._app(scope, receive, send)
        finally:
            self.open -= talks

    def calls(self) -> int:
        return len(self.model.entries("request", "chat"))


class Stage:
    """The shop, its model, and a buyer who has the chat open."""

    def __init__(self, world: World, watched: Watched, ann: Ann, editor: int) -> None:
        self.world, self.watched, self.model = world, watched, watched.model
        self.ann, self.buyer, self.editor = ann, ann.buyer, editor

    async def said(self) -> list[tuple[str, str]]:
        """What the page is told so far."""
        chat = (await self.buyer.get("/api/chat")).json()
        return [(message["role"], message["text"]) for message in chat["messages"]]

    async def states(self) -> list[str]:
        rows = await self.world.pg.fetch("SELECT state FROM turns ORDER BY created_at", ())
        return [row[0] for row in rows]


@pytest.fixture
async def stage(torgs_own_server: None, pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        watched = Watched(Model("key-of-the-tests"))
        url = await stack.enter_async_context(running(watched))
        about = {"model_url": f"{url}/v1", "model_name": "sandbox-1", "model_key": "key-of-the-tests"}
        world = await stack.enter_async_context(World.opened(pg_url, servers.redis_url, **about))
        editor = await world.product("key-1", "key-2", title="Lumen Editor", category="Software", price_minor=149_000)
        yield Stage(world, watched, await stack.enter_async_context(signed_in(world)), editor)


def words(said: list[tuple[str, Any]]) -> str:
    return "".join(what["text"] for kind, what in said if kind == "chunk")


async def order(buyer: Buyer, token: str) -> Any:
    headers = buyer.headers | {"Idempotency-Key": str(uuid4())}
    return await buyer.http.post("/api/orders", json={"offer": token, "provider": "crystalpay"}, headers=headers)


async def test_an_offer_is_made_and_taken(stage: Stage) -> None:
    said = await told(stage.buyer, ASKED)
    (offer,) = [what for kind, what in said if kind == "offer"]
    assert (offer["title"], offer["quantity"], offer["price_minor"]) == ("Lumen Editor", 1, 149_000)
    assert [kind for kind, _ in said][-2:] == ["offer", "done"]
    assert (said[-1][1]["by"], said[-1][1]["state"], said[-1][1]["escalated"]) == ("model", "answered", False)
    placed = await order(stage.buyer, offer["token"])
    assert placed.status_code == 201, placed.text
    assert placed.json()["order"]["total_minor"] == 149_000
    assert await stage.said() == [("user", ASKED), ("assistant", words(said))]


async def test_the_same_id_again_is_told_from_what_is_stored(stage: Stage) -> None:
    message_id = str(uuid4())
    once = await told(stage.buyer, ASKED, message_id)
    calls = stage.watched.calls()
    for _ in range(3):
        again = await told(stage.buyer, ASKED, message_id)
        assert words(again) == words(once)
        assert [kind for kind, _ in again] == ["chunk", "offer", "done"]
        assert again[-1] == once[-1]
    assert stage.watched.calls() == calls
    assert len(await stage.said()) == 2


async def test_what_has_been_sold_since_is_not_offered_again(stage: Stage) -> None:
    message_id = str(uuid4())
    once = await told(stage.buyer, ASKED, message_id)
    bob = await stage.world.buyer(1002)
    assert (await bob.order((stage.editor, 2))).status_code == 201
    again = await told(stage.buyer, ASKED, message_id)
    assert [kind for kind, _ in again] == ["chunk", "done"]
    assert words(again) == words(once)


@pytest.mark.parametrize("fault", [ModelFault(on="chat", stall_ms=60_000), ModelFault(on="chat", hold_ms=60_000)])
async def test_who_leaves_stops_the_model_and_is_answered_when_back(stage: Stage, fault: ModelFault) -> None:
    await told(stage.buyer, "Hello")  # what is slow the first time is over
    message_id, calls = str(uuid4()), stage.watched.calls()
    stage.model.faults.append(msgspec.structs.replace(fault))
    asked = asyncio.create_task(told(stage.buyer, ASKED, message_id))
    await until(lambda: stage.watched.calls() > calls and stage.watched.open == 1)
    await until_stored(stage, ASKED)
    asked.cancel()
    async with asyncio.timeout(5):
        await until(lambda: stage.watched.open == 0)
    assert (await stage.said())[2:] == [("user", ASKED)]
    assert await stage.states() == ["answered", "open"]
    await until(lambda: stage.world.app.state.chats.open == [])
    back = await told(stage.buyer, ASKED, message_id)
    assert [kind for kind, _ in back][-2:] == ["offer", "done"]
    assert (await stage.said())[2:] == [("user", ASKED), ("assistant", words(back))]


async def until_stored(stage: Stage, text: str) -> None:
    """What is said is stored beside the answer's beginning."""
    while ("user", text) not in await stage.said():  # noqa: ASYNC110  (another process would not tell us)
        await asyncio.sleep(0.005)


async def test_a_model_that_breaks_off_is_replaced(stage: Stage) -> None:
    stage.model.faults.append(ModelFault(on="chat", cut=True))
    said = await told(stage.buyer, "Hello")
    kinds = [kind for kind, _ in said if kind != "offer"]
    assert kinds[-2:] == ["replace", "done"]
    assert set(kinds[:-2]) == {"chunk"}
    stands = next(what["text"] for kind, what in said if kind == "replace")
    assert said[-1][1]["by"] == "search"
    assert await stage.said() == [("user", "Hello"), ("assistant", stands)]


async def test_a_human_is_called_and_answers_into_the_open_page(stage: Stage) -> None:
    tab = await stage.ann.tab()
    said = await told(stage.buyer, "A human, please")
    assert (said[-1][1]["state"], said[-1][1]["escalated"]) == ("escalated", True)
    assert (await stage.buyer.get("/api/chat")).json()["escalated"] is True
    await stage.world.shop.lines["app"].say(str(stage.ann.user_id), "en", "Here I am")
    _, hint = await tab.events(2)
    assert b'"type":"chat:message"' in hint.data
    assert b"Here I am" not in hint.data
    calls = stage.watched.calls()
    assert [kind for kind, _ in await told(stage.buyer, "Are you there?")][-1] == "done"
    assert stage.watched.calls() == calls  # the machine is silent


async def test_a_process_that_leaves_stops_the_model(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "LEAVE_S", 0.1)
    await told(stage.buyer, "Hello")
    stage.model.faults.append(ModelFault(on="chat", stall_ms=60_000))
    async with asking(stage.buyer, "Hi there") as source:
        events, begun = await first(source)
        assert begun.event == "chunk"
        stage.world.app.state.chats.close()
        assert [event.event async for event in events] == ["error"]
    async with asyncio.timeout(5):
        await until(lambda: stage.watched.open == 0)
    problem(await post(stage.buyer), errors.Busy)


async def test_the_page_begins_with_the_last_fifty_messages(stage: Stage) -> None:
    assert (await stage.buyer.get("/api/chat")).json() == {"messages": [], "escalated": False}
    problem(await stage.buyer.http.get("/api/chat"), errors.BadToken)
    await told(stage.buyer, "Hello")
    row = "SELECT conversation_id, turn_id, 'user', 'line ' || n FROM messages CROSS JOIN generate_series(1, 60) n"
    await stage.world.pg.fetch(f"INSERT INTO messages (conversation_id, turn_id, role, text) {row} LIMIT 60", ())
    chat = (await stage.buyer.get("/api/chat")).json()
    ids = [message["id"] for message in chat["messages"]]
    assert len(ids) == 50
    assert ids == sorted(ids)
    assert chat["messages"][0].keys() == {"id", "role", "text", "at"}
    other = await stage.world.buyer(1002)
    assert (await other.get("/api/chat")).json()["messages"] == []


async def test_a_channel_that_is_off_answers_nobody(stage: Stage) -> None:
    await conversations.register(stage.world.pg, "app", "app")
    await stage.world.pg.fetch("UPDATE channels SET active = false WHERE kind = 'app'", ())
    problem(await post(stage.buyer), errors.NotFound)
