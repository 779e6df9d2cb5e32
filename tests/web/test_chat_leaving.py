"""Answers that come to no good end: who reads leaves, stalls or is one too many, or the process leaves."""

import asyncio
import json
from uuid import uuid4

import pytest

from app import errors
from app.flows.consult import Show
from app.flows.converse import Reply, Turn
from app.web import reply as web_reply
from app.web import stream
from tests.tabs import PATIENCE_S
from tests.web.chatting import Consultant, asking, first, post, told
from tests.web.listening import until
from tests.web.test_shop import problem
from tests.world import Buyer, World


@pytest.mark.parametrize("play", ["slowly", "silently"])
async def test_who_leaves_ends_the_writing(consultant: Consultant, buyer: Buyer, play: str) -> None:
    consultant.play, message_id = getattr(consultant, play), str(uuid4())
    asked = asyncio.create_task(told(buyer, "Hi", message_id))
    await until(lambda: len(consultant.asked) == 1)
    asked.cancel()
    async with asyncio.timeout(5):  # not only when a client that reads nothing is dropped
        await until(lambda: consultant.cut == 1)
    consultant.play = consultant.plainly
    async with asyncio.timeout(PATIENCE_S):
        while (again := await post(buyer, id=message_id)).status_code == 409:  # until the first is over
            problem(again, errors.InProgress)
    assert again.status_code == 200


async def test_who_does_not_read_is_dropped_and_does_not_fill_us(
    consultant: Consultant, buyer: Buyer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STALL_S", 0.3)
    shown = 0

    async def play(turn: Turn, show: Show) -> Reply:
        nonlocal shown
        while True:
            await show("x" * 10_000)
            shown += 10_000

    consultant.play = play
    reader, writer = await asyncio.open_connection("127.0.0.1", world.shop.deps.settings.port, limit=1024)
    body = json.dumps({"text": "Hi", "id": str(uuid4())})
    head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Authorization: {buyer.headers['Authorization']}\r\n\r\n{body}".encode())
    async with asyncio.timeout(5):  # not only when a client that reads nothing is dropped
        await until(lambda: consultant.cut == 1)
    assert shown < 50_000_000  # what sockets hold, and no more
    writer.close()
    assert (await reader.read(12)).startswith(b"HTTP/1.1 200")


async def test_so_many_answers_are_written_at_a_time(
    consultant: Consultant, buyer: Buyer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    consultant.play = consultant.silently
    asked = [asyncio.create_task(told(buyer)) for _ in range(web_reply.MOST_OF_USER)]
    await until(lambda: len(consultant.asked) == web_reply.MOST_OF_USER)
    busy = await post(buyer)
    problem(busy, errors.Busy)
    assert int(busy.headers["retry-after"]) > 0
    monkeypatch.setattr(web_reply, "MOST", web_reply.MOST_OF_USER)
    bob = await world.buyer(1002)
    problem(await post(bob), errors.Busy)
    consultant.go.set()
    assert {len(said) for said in await asyncio.gather(*asked)} == {2}
    assert (await post(bob)).status_code == 200


async def test_a_process_that_leaves_ends_its_answers_soon_and_begins_none(
    consultant: Consultant, buyer: Buyer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_reply, "LEAVE_S", 0.1)
    consultant.play = consultant.slowly
    async with asking(buyer) as source:
        events, _ = await first(source)
        world.app.state.chats.close()
        problem(await post(buyer), errors.Busy)
        ((kind, said),) = [(event.event, event.json()) async for event in events]
    assert (kind, said["type"], said["status"]) == ("error", errors.Busy.type, 503)
    assert consultant.cut == 1


async def test_what_is_nearly_said_is_said_before_the_process_leaves(
    consultant: Consultant, buyer: Buyer, world: World
) -> None:
    consultant.play = consultant.slowly
    async with asking(buyer) as source:
        events, _ = await first(source)
        world.app.state.chats.close()
        consultant.go.set()
        assert [event.event async for event in events] == ["chunk", "done"]
