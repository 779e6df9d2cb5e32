"""A turn is read for, stored, answered once, told on and sent at most once, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from app.channels import sayings
from app.domain import conversations, talks
from app.errors import NotFound, PostgresDown
from app.flows import converse
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.flows.talking import Consultant, said, unsure, writer
from tests.world import World

FIVE_MINUTES, SIX_HOURS = "301 seconds", "6 hours 1 second"
READS = ("known", "history", "settings", "escalation", "interactions")


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, admins="9001") as opened:
        yield opened


def failing(monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    async def fail(items: Any) -> Any:
        raise PostgresDown("away")

    monkeypatch.setattr(read, "work", fail)


async def test_a_batch_is_stored_answered_and_sent_once(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("Have you got keys?", "For an editor\0")
    assert ann.street.sent == [("1001", "You asked: Have you got keys?\nFor an editor", [])]
    assert ann.street.shown == ["You", "You asked: Have you got keys?\nFor an editor"]
    rows = await ann.rows()
    assert [(row["role"], row["text"], row["external_id"]) for row in rows] == [
        ("user", "Have you got keys?", "m1"), ("user", "For an editor", "m2"),
        ("assistant", "You asked: Have you got keys?\nFor an editor", None),
    ]  # fmt: skip
    assert {(row["state"], row["by"], row["unclaimed"], row["unsent"]) for row in rows} == {
        ("answered", "model", False, False)
    }
    user = await world.pg.fetch("SELECT name, telegram_id, role FROM users", ())
    assert [tuple(row) for row in user] == [("Ann", 1001, "buyer")]


async def test_what_was_said_before_is_told_to_the_consultant_within_its_budget(
    world: World, consultant: Consultant
) -> None:
    ann = await writer(world)
    for n in range(8):
        consultant.answers.append(said(f"{n}" + "a" * 999))  # 250 tokens
        await ann.say(f"{'question ' * (n + 1)}", ids=[f"q{n}"])
    history = consultant.asked[-1].history
    assert [line.role for line in history] == ["user", "assistant"] * 3
    assert [line.text[0] for line in history] == ["q", "4", "q", "5", "q", "6"]
    assert consultant.asked[0].history == []
    await ann.say("x" * 4000)
    await ann.say("and now?")
    assert consultant.asked[-1].history == []  # the last line alone is more than all of them may be


async def test_no_more_than_ten_lines_are_told(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    for n in range(12):
        await ann.say("abcdefghijkl"[n] * 9)
    assert len(consultant.asked[-1].history) == 10


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", READS)
async def test_each_read_may_fail_and_only_the_duplicate_check_stops_the_turn(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch, name: str, parallel: bool
) -> None:
    ann = await writer(world, parallel=parallel)
    await ann.say("first of all")
    with monkeypatch.context() as patch:
        failing(patch, getattr(ann.shop.reads, name))
        batch = ann.batch("something else")
        if name == "known":
            with pytest.raises(PostgresDown):
                await ann.take(batch)
            assert len(ann.street.sent) == len(consultant.asked) == 1
        else:
            await ann.take(batch)
            assert ann.street.texts()[-1] == "You asked: something else"
            assert (consultant.asked[-1].history == []) is (name == "history")
    await ann.take(batch)  # it comes again
    assert len(ann.street.sent) == 2
    assert await ann.states() == ["answered", "answered"]


async def test_an_escalation_that_could_not_be_read_is_kept_all_the_same(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await writer(world)
    await ann.say("operator")
    failing(monkeypatch, ann.shop.reads.escalation)
    await ann.say("still there?")
    assert len(ann.street.sent) == 1
    assert ann.street.shown == []  # the human may be reading along
    assert await ann.states() == ["escalated", "silent"]


async def test_one_after_another_and_side_by_side_come_to_the_same(world: World, consultant: Consultant) -> None:
    inputs: list[tuple[str, ...]] = [
        ("hello",), ("Hello  ",), ("a\0b", "", "a\0b"), ("\0",), ("what do keys cost", "what do keys cost?"),
        ("x" * 4096,), ("fail",), ("weak 1 one",), ("weak 2 two",), ("weak 3 three",), ("and now",), ("silent",),
        ("refund",),
    ]  # fmt: skip
    rows: list[Any] = []
    sent: list[Any] = []
    for bot, parallel in (("77", True), ("78", False)):
        ann = await writer(world, bot=bot, parallel=parallel)
        consultant.asked.clear()
        consultant.answers = [
            said("a"), said("b"), said("c"), said("d"), PostgresDown("away"),
            *(said(f"w{n}", quality=0.1) for n in range(3)),
        ]  # fmt: skip
        for texts in inputs:
            try:
                await ann.say(*texts)
            except PostgresDown:
                sent.append(("failed", parallel))
        rows.append(await ann.rows())
        sent.append((ann.street.sent, [(q.text, [s.text for s in q.history]) for q in consultant.asked]))
    assert rows[0] == rows[1]
    assert sent[1] == sent[3]
    assert (sent[0], sent[2]) == (("failed", True), ("failed", False))
    assert [row["state"] for row in rows[0] if row["role"] != "user"] == [
        "answered", "duplicate", "answered", "answered", "answered", *["answered"] * 3, "escalated",
    ]  # fmt: skip


# ---- duplicates


async def test_a_message_that_came_before_is_not_answered_however_late(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("one", ids=["a"])
    await ann.later("3 days")
    await ann.say("one", "two", ids=["a", "b"])
    await ann.say("two", ids=["b"])
    assert [asked.text for asked in consultant.asked] == ["one", "two"]
    assert await ann.states() == ["answered", "answered", "duplicate"]
    assert [row["text"] for row in await ann.rows() if row["role"] == "user"] == ["one", "two"]


@pytest.mark.parametrize(
    ("first", "second", "duplicate"),
    [
        ("Where is my order?", "where  is MY order?", True),
        ("Where is my order, please?", "Where is my ordr, please?", True),
        ("Where is order 1041 of mine?", "Where is order 1042 of mine?", False),
        ("Where is my order?", "Where is my refill?", False),
    ],
)
async def test_the_same_words_are_a_duplicate_for_five_minutes(
    world: World, consultant: Consultant, first: str, second: str, duplicate: bool
) -> None:
    ann = await writer(world)
    await ann.say(first)
    await ann.say(second)
    assert await ann.states() == ["answered", "duplicate" if duplicate else "answered"]
    assert len(ann.street.sent) == (1 if duplicate else 2)
    await ann.later(FIVE_MINUTES)
    await ann.say(first)
    assert (await ann.states())[-1] == ("escalated" if duplicate else "answered")  # the third time
    await ann.later(SIX_HOURS)
    await ann.say(first)
    assert (await ann.states())[-1] == ("silent" if duplicate else "answered")


@pytest.mark.parametrize("error", [unsure(), RuntimeError("a defect")])
async def test_who_has_got_no_answer_may_ask_again_in_the_same_words(
    world: World, consultant: Consultant, error: Exception
) -> None:
    ann = await writer(world)
    (consultant.answers if isinstance(error, RuntimeError) else ann.street.fails).append(error)
    with suppress(RuntimeError):
        await ann.say("Have you got an editor?")
    await ann.say("Have you got an editor?")
    assert ann.street.sent == []  # the answer may be on its way
    await ann.later("31 seconds")
    await ann.say("Have you got an editor?")
    assert len(ann.street.sent) == 1


async def test_who_asks_for_a_human_where_there_is_none_is_told_so(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await world.pg.fetch("UPDATE channels SET escalation_enabled = false", ())
    consultant.answers.append(said("A human will answer here.", hand_over=True))
    await ann.say("I want a human")
    assert ann.street.texts() == [sayings.nobody("en")]
    assert await ann.states() == ["answered"]


async def test_another_peers_words_are_no_duplicate(world: World, consultant: Consultant) -> None:
    ann, bob = await writer(world), await writer(world, "1002")
    await ann.say("hello", ids=["1"])
    await bob.say("hello", ids=["1"])
    assert (len(ann.street.sent), len(bob.street.sent)) == (1, 1)


async def test_the_third_time_of_one_question_is_for_a_human_though_it_is_a_duplicate(
    world: World, consultant: Consultant
) -> None:
    ann = await writer(world)
    for _ in range(3):
        await ann.say("where are my goods")
    assert await ann.states() == ["answered", "duplicate", "escalated"]
    assert (await ann.conversation())["escalation"] == "repeated_question"
    assert ann.street.texts()[1:] == [sayings.human("en")]
    assert [row["text"] for row in await ann.rows() if row["role"] == "user"] == ["where are my goods"]


async def test_a_message_that_its_channel_repeats_is_not_asked_again(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    for _ in range(4):
        await ann.say("where are my goods", ids=["a"])
    assert await ann.states() == ["answered", "duplicate", "duplicate", "duplicate"]


# ---- once


async def test_a_batch_that_comes_again_is_not_answered_again(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    batch = await ann.say("hello")
    before = await ann.rows()
    await ann.take(batch)
    assert (len(ann.street.sent), len(consultant.asked)) == (1, 1)
    assert await ann.rows() == before


async def test_a_worker_that_dies_between_storing_and_deciding_leaves_the_turn_to_the_next(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await writer(world)
    batch = ann.batch("hello", "are you there")
    stored, store = asyncio.Event(), talks.store

    async def storing(*args: Any) -> None:
        await store(*args)
        stored.set()

    monkeypatch.setattr(talks, "store", storing)
    consultant.meanwhile = asyncio.Event().wait
    dying = asyncio.create_task(converse.converse(ann.shop, batch))
    await stored.wait()
    dying.cancel()
    await asyncio.wait([dying])
    assert [(row["role"], row["state"]) for row in await ann.rows()] == [("user", "open")] * 2
    consultant.meanwhile = None
    await ann.take(batch)
    assert [row["role"] for row in await ann.rows()] == ["user", "user", "assistant"]
    assert ann.street.texts() == ["You asked: hello\nare you there"]


async def test_without_a_way_out_or_a_channel_nothing_is_decided(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    street = ann.shop.lines.pop("telegram")
    batch = ann.batch("hello")
    with pytest.raises(NotFound):
        await ann.take(batch)
    assert await ann.rows() == []
    ann.shop.lines["telegram"] = street
    await world.pg.fetch("UPDATE channels SET active = false", ())
    await ann.take(batch)
    assert (await ann.rows(), ann.street.sent) == ([], [])


async def test_twenty_first_messages_at_once_make_one_conversation(world: World) -> None:
    ann = await writer(world)
    opened = await asyncio.gather(*(
        conversations.open(world.pg, ann.channel_id, "1001", name=f"Ann {n}", username="ann", language="uk")
        for n in range(20)
    ))  # fmt: skip
    assert len({one.id for one in opened if one}) == 1
    assert {(one.user_id, one.language, one.role) for one in opened if one} == {(opened[0].user_id, "uk", "buyer")}  # type: ignore[union-attr]
    assert await world.scalar("SELECT count(*) FROM users") == 1
