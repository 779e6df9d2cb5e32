"""A decided reply leaves once at most, whoever dies, stops or is asked to wait, and however often its batch comes."""

import asyncio

import pytest

from app.base import clock
from app.channels.line import Offer
from app.errors import ProviderDown
from app.flows import converse
from app.infra.messenger import Sent
from app.infra.secrets import Offered
from tests.flows.talking import Consultant, Gate, said, unsure, writer
from tests.world import World


async def test_a_worker_that_dies_after_the_decision_is_not_spoken_for(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    batch = ann.batch("hello")
    ann.street.fails = [asyncio.CancelledError()]
    with pytest.raises(asyncio.CancelledError):
        await ann.take(batch)
    await ann.take(batch)
    assert ann.street.sent == []
    assert [row["text"] for row in await ann.rows()] == ["hello", "You asked: hello"]  # in the history it is


async def test_a_worker_that_stops_lets_the_decided_reply_leave(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await writer(world)
    gate, batch = Gate(ann.street.say), ann.batch("keys?")
    monkeypatch.setattr(ann.street, "say", gate)
    await gate.cut(converse.converse(ann.shop, batch))
    assert ann.street.texts() == ["You asked: keys?"]
    await ann.take(batch)  # given back, it comes again
    assert ann.street.texts() == ["You asked: keys?"]


async def test_two_workers_at_one_turn_say_it_once(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    batch = ann.batch("hello")
    both = asyncio.Barrier(2)
    consultant.meanwhile = both.wait
    await asyncio.gather(ann.take(batch), ann.take(batch))
    assert (len(consultant.asked), ann.street.texts()) == (2, ["You asked: hello"])
    assert [row["role"] for row in await ann.rows()] == ["user", "assistant"]


async def test_two_turns_with_one_message_answer_it_once(world: World, consultant: Consultant) -> None:
    """As after FLUSHALL, when the channel repeats what is being answered."""
    ann = await writer(world)
    both = asyncio.Barrier(2)
    consultant.meanwhile = both.wait  # neither knew of the other
    await asyncio.gather(ann.take(ann.batch("hello", ids=["a"])), ann.take(ann.batch("hello", ids=["a"])))
    assert (len(consultant.asked), ann.street.texts()) == (2, ["You asked: hello"])
    assert sorted(await ann.states()) == ["answered", "duplicate"]


async def test_what_surely_did_not_leave_is_sent_when_the_batch_comes_again(
    world: World, consultant: Consultant
) -> None:
    product = await world.product("KEY-1")
    ann = await writer(world)
    consultant.answers = [said("Here you are", Offer(product, "Key", 1, 10_000, "RUB", "t"))]
    batch = ann.batch("a key, please")
    ann.street.fails = [ProviderDown("wait", retry_after_s=3)]
    with pytest.raises(ProviderDown):
        await ann.take(batch)
    await ann.take(batch)
    await ann.take(batch)
    assert ann.street.sent == [("1001", "Here you are", [product])]
    assert len(consultant.asked) == 1


async def test_an_offer_that_has_ended_meanwhile_is_not_said_again(world: World, consultant: Consultant) -> None:
    ann, product, signs = await writer(world), await world.product("A"), world.shop.deps.offers
    assert signs
    token = signs.issue(Offered(product, 1, 10_000, "RUB", 1, clock.unix_s()))
    consultant.answers.append(said("Here you are", Offer(product, "Key", 1, 10_000, "RUB", token)))
    batch = ann.batch("a key please")
    ann.street.fails.append(ProviderDown("away"))
    with pytest.raises(ProviderDown):
        await ann.take(batch)
    await ann.take(batch)
    assert ann.street.sent == [("1001", "Here you are", [])]


async def test_what_may_have_arrived_is_not_sent_again(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    batch = ann.batch("hello")
    ann.street.fails = [unsure()]
    await ann.take(batch)
    await ann.take(batch)
    assert ann.street.sent == []
    assert [row["unsent"] for row in await ann.rows()] == [True, True]


async def test_who_cannot_be_reached_is_not_tried_again(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    ann.street.outcome = Sent.BLOCKED
    batch = await ann.say("hello")
    await ann.take(batch)
    assert len(ann.street.sent) == 1
    assert {row["unsent"] for row in await ann.rows()} == {True}
