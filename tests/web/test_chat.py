"""The Mini App's chat over real HTTP, its consultant scripted: what is told, refused, and told again."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import openai
import pytest

from app import errors
from app.domain import once
from app.flows import converse
from app.flows.consult import Show
from app.flows.converse import Reply, Turn
from app.web import reply as web_reply
from tests import eventsource
from tests.web.chatting import OFFER, Consultant, answer, asking, first, post, told
from tests.web.test_shop import problem
from tests.world import Buyer, World

ODD = 'é😀 "quotes"\r\n\u2028 data: x\n\nevent: done\u0000\ufeff'


# ---- what is told


async def test_an_answer_is_told_while_it_is_written(consultant: Consultant, buyer: Buyer) -> None:
    consultant.play = consultant.slowly
    async with asking(buyer) as source:
        events, begun = await first(source)
        assert (begun.event, begun.json()) == ("chunk", {"text": "Hel"})
        headers = source.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert "content-length" not in headers
        consultant.go.set()
        rest = [(event.event, event.json()) async for event in events]
    assert [kind for kind, _ in rest] == ["chunk", "done"]
    assert rest[0][1] == {"text": "lo"}
    (turn,) = consultant.asked
    assert rest[1][1] == {"turn": str(turn.id), "state": "answered", "by": "model", "escalated": False}


async def test_what_is_asked_comes_to_the_consultant_as_it_was_said(
    consultant: Consultant, buyer: Buyer, world: World
) -> None:
    message_id = str(uuid4())
    await told(buyer, "What\nis new?", message_id, language="pt-br")
    await told(buyer, "What\nis new?", message_id)
    bob = await world.buyer(1002)
    await told(bob, "What\nis new?", message_id)
    (heard,) = consultant.asked[0].heard
    assert (heard.text, heard.external_id, heard.language) == ("What\nis new?", message_id, "pt-br")
    again, others = consultant.asked[1].id, consultant.asked[2].id
    assert consultant.asked[0].id == again  # under one id one turn
    assert again != others  # and nobody opens another's by its id


async def test_offers_come_after_the_words_and_before_the_end(consultant: Consultant, buyer: Buyer) -> None:
    async def play(turn: Turn, show: Show) -> Reply:
        await show("Here:")
        return answer("Here:", offers=[OFFER, OFFER])

    consultant.play = play
    said = await told(buyer)
    assert [kind for kind, _ in said] == ["chunk", "offer", "offer", "done"]
    assert said[1][1] == {
        "product_id": 7, "title": "Key", "quantity": 2, "price_minor": 19_900, "currency": "RUB",
        "token": "token-of-an-offer",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "stands", "kinds"),
    [
        (["We h"], "Plain words", ["chunk", "replace"]),
        (["We h"], "", ["chunk", "replace"]),
        ([], "Plain words", ["chunk"]),
        (["Plain "], "Plain words", ["chunk", "chunk"]),
        (["Plain words"], "Plain words", ["chunk"]),
        ([], "", []),
        (["", "\ud83d"], "\ud83d", ["chunk"]),
    ],
)
async def test_what_stands_at_the_end_is_what_the_reader_has(
    consultant: Consultant, buyer: Buyer, shown: list[str], stands: str, kinds: list[str]
) -> None:
    taken = asyncio.Event()

    async def play(turn: Turn, show: Show) -> Reply:
        for piece in shown:
            await show(piece)
        if shown:
            await taken.wait()
        return answer(stands)

    consultant.play = play
    said, text = [], ""
    async with asking(buyer) as source:
        async for event in source.aiter_sse():
            said.append(event.event)
            if event.event in ("chunk", "replace"):
                text = event.json()["text"] if event.event == "replace" else text + event.json()["text"]
            taken.set()
    assert said == [*kinds, "done"]
    assert text == stands.replace("\ud83d", "\ufffd")


async def test_a_human_has_it(consultant: Consultant, buyer: Buyer) -> None:
    async def play(turn: Turn, show: Show) -> Reply:
        return answer("", state="silent", by="")

    consultant.play = play
    ((kind, done),) = await told(buyer)
    assert (kind, done["state"], done["by"], done["escalated"]) == ("done", "silent", "", True)


async def test_the_client_of_openai_reads_it_too(consultant: Consultant, buyer: Buyer, world: World) -> None:
    consultant.play = consultant.slowly
    session = buyer.headers["Authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(base_url=str(world.http.base_url), api_key=session, max_retries=0) as client:
        body = {"id": str(uuid4()), "text": "hello"}
        async with await client.post(
            "/api/chat", body=body, cast_to=object, stream=True, stream_cls=openai.AsyncStream[object]
        ) as stream:
            told = [await anext(stream)]  # while the rest is being written
            consultant.go.set()
            told += [data async for data in stream]
    (turn,) = consultant.asked
    done = {"turn": str(turn.id), "state": "answered", "by": "model", "escalated": False}
    assert told == [{"text": "Hel"}, {"text": "lo"}, done]


async def test_any_way_to_cut_the_stream_reads_the_same(consultant: Consultant, buyer: Buyer) -> None:
    async def play(turn: Turn, show: Show) -> Reply:
        await show(ODD)
        return answer(ODD, offers=[OFFER])

    consultant.play = play
    raw = (await post(buyer)).content
    whole = eventsource.read([raw])
    assert [event.kind for event in whole.events] == ["chunk", "offer", "done"]
    assert json.loads(whole.events[0].data) == {"text": ODD}
    assert eventsource.read([bytes([byte]) for byte in raw]).events == whole.events
    for cut in range(len(raw)):
        assert eventsource.read([raw[:cut], raw[cut:]]).events == whole.events
    for ending in (b"\r", b"\r\n"):  # a proxy may write them otherwise
        other = raw.replace(b"\n", ending)
        for cut in range(len(other)):
            assert eventsource.read([other[:cut], other[cut:]]).events == whole.events


# ---- how it begins


async def test_a_refusal_is_an_ordinary_one(consultant: Consultant, buyer: Buyer) -> None:
    problem(await buyer.http.post("/api/chat", json={"text": "Hi", "id": str(uuid4())}), errors.BadToken)
    for body in (
        {"text": ""}, {"text": " \n"}, {"text": "x" * 2001}, {"text": "a\0b"}, {"text": 1}, {"id": "1"}, {"id": ""},
        {"id": None}, {"language": "x"}, {"language": "en; DROP"}, {"more": 1},
    ):  # fmt: skip
        problem(await post(buyer, **body), errors.Malformed)
    problem(await buyer.http.post("/api/chat", content=b"{", headers=buyer.headers), errors.Malformed)
    assert consultant.asked == []


async def test_what_fails_before_the_first_word_is_a_problem_of_its_own(consultant: Consultant, buyer: Buyer) -> None:
    async def play(turn: Turn, show: Show) -> Reply:
        raise failure

    consultant.play = play
    failure: Exception = errors.PostgresDown("away")
    problem(await post(buyer), errors.PostgresDown)
    failure = ValueError("a secret of ours")
    answered = await post(buyer)
    assert (answered.status_code, answered.headers["content-type"]) == (500, "application/problem+json")
    assert answered.json()["request_id"] == answered.headers["x-request-id"]
    assert "secret" not in answered.text


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(errors.PostgresDown("away"), errors.PostgresDown), (ValueError("a secret of ours"), errors.Internal)],
)
async def test_what_fails_later_is_told_in_the_stream(
    consultant: Consultant, buyer: Buyer, failure: Exception, kind: type[errors.Problem]
) -> None:
    async def play(turn: Turn, show: Show) -> Reply:
        await show("Hel")
        raise failure

    consultant.play = play
    said = await told(buyer)
    assert [event for event, _ in said] == ["chunk", "error"]
    assert (said[1][1]["type"], said[1][1]["status"]) == (kind.type, kind.status)
    assert "secret" not in str(said)


async def test_a_long_thought_shows_that_it_lives(
    consultant: Consultant, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_reply, "BEGIN_S", 0.02)
    monkeypatch.setattr(web_reply, "HEARTBEAT_S", 0.02)
    consultant.play = consultant.silently
    body = {"text": "Hi", "id": str(uuid4())}
    source = eventsource.Source()
    async with buyer.http.stream("POST", "/api/chat", json=body, headers=buyer.headers) as answered:
        async for piece in answered.aiter_bytes():
            source.feed(piece)
            if len(source.comments) == 4:
                consultant.go.set()
    assert source.comments[:4] == ["ok", "", "", ""]
    assert [event.kind for event in source.events] == ["chunk", "done"]


async def test_a_failure_after_a_long_thought_is_told_in_the_stream(
    consultant: Consultant, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_reply, "BEGIN_S", 0.02)

    async def play(turn: Turn, show: Show) -> Reply:
        await consultant.go.wait()
        raise errors.PostgresDown("away")

    consultant.play = play
    async with asking(buyer) as source:
        consultant.go.set()
        assert [event.event async for event in source.aiter_sse()] == ["error"]


# ---- the same message again


async def test_a_repeat_waits_until_the_first_is_over(consultant: Consultant, buyer: Buyer) -> None:
    consultant.play = consultant.slowly
    message_id = str(uuid4())
    async with asking(buyer, "Hi", message_id) as source:
        events, _ = await first(source)
        running = await post(buyer, id=message_id)
        problem(running, errors.InProgress)
        assert int(running.headers["retry-after"]) > 0
        problem(await post(buyer, id=message_id, text="Another"), errors.KeyReused)
        consultant.go.set()
        async for _ in events:
            pass
    assert len(consultant.asked) == 1
    assert [kind for kind, _ in await told(buyer, "Hi", message_id)] == ["chunk", "done"]


async def test_an_id_is_kept_for_longer_than_the_model_takes(
    consultant: Consultant, buyer: Buyer, world: World
) -> None:
    consultant.play = consultant.slowly
    message_id = str(uuid4())
    async with asking(buyer, "Hi", message_id) as source:
        await first(source)
        entry = once.ticket(int(buyer.headers["Authorization"].split(".")[1]), f"chat:{message_id}", "", b"").entry
        left_ms = await world.shop.deps.redis.command("PTTL", entry)
        assert isinstance(left_ms, int)
        assert left_ms > world.shop.deps.settings.model_timeout_ms


async def test_a_message_that_nobody_can_claim_is_answered(
    consultant: Consultant, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(*args: Any, **more: Any) -> Any:
        raise errors.RedisDown

    monkeypatch.setattr(once, "claim", out)
    assert [kind for kind, _ in await told(buyer)][-1] == "done"
    monkeypatch.undo()
    monkeypatch.setattr(converse, "talk", consultant.talk)
    monkeypatch.setattr(once, "abandon", out)
    assert [kind for kind, _ in await told(buyer)][-1] == "done"


# ---- the reader that judges all this


@pytest.mark.parametrize(
    ("stream", "events"),
    [  # the examples of the standard, and its corners
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (b": test\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
         [("message", "first", "1"), ("message", "second", ""), ("message", " third", "")]),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
        (b"\xef\xbb\xbfevent: x\rdata: a\r\rdata: b\r\n\r\n", [("x", "a", ""), ("message", "b", "")]),
        (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
        (b"id: a\0b\nother: x\ndata: \xff\n\n", [("message", "\ufffd", "")]),
    ],
)  # fmt: skip
def test_the_reader_reads_as_the_standard_says(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    assert eventsource.read([stream]).events == events
    assert eventsource.read([bytes([byte]) for byte in stream]).events == events
