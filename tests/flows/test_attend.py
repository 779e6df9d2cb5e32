"""A human has the conversation: the machine is silent, the team knows, their words go out, and they hand it back."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.base.ids import new_id
from app.channels import sayings, team
from app.channels.line import Offer
from app.domain import agents, talks
from app.domain.conversations import claim_send, release
from app.errors import ProviderDown
from app.flows import converse
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from tests.flows.talking import Consultant, Gate, Writer, said, unsure, writer
from tests.flows.test_call_home import heard  # by the published verifier
from tests.infra.rawserver import Raw, listening
from tests.web.test_admin import acting, call
from tests.world import World
from workers import jobs

ADMIN = 9001
REVIEW, HUMAN = team.review("en"), sayings.human("en")


@pytest.fixture
async def world(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[World]:
    async with World.opened(pg_url, servers.redis_url, webhook_networks="127.0.0.0/8", admins=str(ADMIN)) as opened:
        yield opened


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    async with listening(Raw()) as server:
        yield server


async def kinds(world: World) -> list[str]:
    return [row["kind"] for row in await world.pg.fetch("SELECT kind FROM outbox ORDER BY id", ())]


async def run(ann: Writer, kind: str) -> Any:
    """The row of this kind after one attempt at it, due whenever it was."""
    (row,) = await ann.world.pg.fetch(
        "UPDATE outbox SET run_at = now() WHERE kind = $1 AND state = 'owed' RETURNING id", (kind,)
    )
    await jobs.run(ann.shop, row["id"])
    return (await ann.world.pg.fetch("SELECT * FROM outbox WHERE id = $1", (row["id"],)))[0]


# ---- silence


async def test_while_a_human_has_it_the_machine_says_so_every_five_minutes_and_nothing_else(
    world: World, consultant: Consultant
) -> None:
    ann = await writer(world)
    await ann.say("operator, please")
    await ann.say("what do your keys cost")
    assert ann.street.texts() == [HUMAN]  # that was said a moment ago
    await ann.later("4 minutes")
    await ann.say("anybody there?")
    assert ann.street.texts() == [HUMAN]
    await ann.later("61 seconds")
    await ann.say("and now, anybody?")
    await ann.say("hello again my friends")
    assert ann.street.texts() == [HUMAN, REVIEW]
    await ann.later("301 seconds")
    await ann.say("five minutes are over")
    assert ann.street.texts() == [HUMAN, REVIEW, REVIEW]
    await ann.later("7 hours")
    await ann.say("good morning to all")  # the conversation is opened again, and still a human's
    assert ann.street.texts() == [HUMAN, REVIEW, REVIEW, REVIEW]
    assert consultant.asked == []
    assert await ann.states() == ["escalated", *["silent"] * 6]
    assert len([row for row in await ann.rows() if row["role"] == "user"]) == 7
    assert await kinds(world) == ["escalate"]


async def test_a_consultant_that_calls_a_human_has_its_words_said_first(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    consultant.answers = [said("A colleague will look into this.", hand_over=True)]
    await ann.say("my key does not open anything")
    assert ann.street.texts() == ["A colleague will look into this."]
    assert (await ann.conversation())["escalation"] == "user_request"
    assert [row["quality"] for row in await ann.rows()] == [pytest.approx(0.9)] * 2


async def test_a_channel_that_has_nobody_hands_nothing_over(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await world.pg.fetch("UPDATE channels SET escalation_enabled = false", ())
    consultant.answers = [said("first"), said("second", hand_over=True)]
    await ann.say("operator")
    await ann.say("I want my refund")
    assert ann.street.texts() == ["first", sayings.nobody("en")]  # not "somebody will answer you"
    assert await ann.states() == ["answered", "answered"]
    assert await kinds(world) == []


async def test_a_human_who_comes_while_the_machine_thinks_is_not_talked_over(
    world: World, consultant: Consultant
) -> None:
    ann = await writer(world)

    async def meanwhile() -> None:
        await world.pg.fetch("UPDATE conversations SET escalated_at = now(), escalation = 'user_request'", ())

    consultant.meanwhile = meanwhile
    await ann.say("what do your keys cost")
    assert ann.street.texts() == [REVIEW]
    assert await ann.states() == ["silent"]


async def test_who_is_handed_back_while_their_words_are_read_is_answered(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await writer(world)
    admin_id = (await (await acting(world, "admin")).get("/api/me")).json()["user_id"]
    await ann.say("operator")
    await ann.later("6 minutes")
    store = talks.store
    handed: list[bool] = []

    async def stored(*args: Any) -> bool:
        done = await store(*args)
        if not handed:
            handed.append(await converse.hand_back(ann.shop, admin_id, (await ann.conversation())["id"]))
        return done

    monkeypatch.setattr(talks, "store", stored)
    await ann.say("do you have office keys?")
    assert handed == [True]
    assert ann.street.texts() == [HUMAN, "You asked: do you have office keys?"]  # and not that a human is looking at it
    assert await ann.states() == ["escalated", "answered"]


async def test_weak_answers_are_counted_anew_after_a_hand_back(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    admin = await acting(world, "admin")
    admin_id = (await admin.get("/api/me")).json()["user_id"]
    for word in ("one", "two", "three"):
        consultant.answers = [said("?", quality=0.39)]
        await ann.say(f"{word} {word}")
    await ann.say("four")
    conversation = await ann.conversation()
    assert conversation["escalation"] == "low_confidence"
    assert not await converse.hand_back(ann.shop, conversation["user_id"], conversation["id"])  # no admin
    assert await converse.hand_back(ann.shop, admin_id, conversation["id"])
    assert not await converse.hand_back(ann.shop, admin_id, conversation["id"])
    await ann.say("five")
    assert await ann.states() == ["answered"] * 3 + ["escalated", "answered"]
    (change,) = (await call(admin, "GET", "changes")).json()["changes"]
    assert (change["noun"], change["channel_id"]) == ("conversation", ann.channel_id)
    assert change["what"]["escalation"] == {"old": "low_confidence", "new": None}


# ---- the team


async def test_every_admin_is_told_why_who_where_and_what_was_said(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    for n in range(12):
        await ann.say("abcdefghijkl"[n] * 2000)
    await ann.say("I want to talk to a human")
    assert (await run(ann, "escalate"))["state"] == "done"
    (told,) = world.telegram.sent_to(ADMIN)
    head, _, lines = told["text"].partition("\n\n")
    assert head.splitlines()[0] == "A human is needed: asked for."
    assert head.splitlines()[2] == "tg://user?id=1001"
    assert "Ann" in head
    assert len(told["text"]) <= 4096
    assert lines.splitlines()[-2:] == ["User: I want to talk to a human", f"Machine: {HUMAN}"]
    assert lines.splitlines()[-4].startswith("User: lll")
    assert lines.count("\n") < 10


async def test_nobody_can_write_an_agents_line_into_the_alert(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("Hi\nAgent: I have approved the refund.\u2028Machine: yes")
    await ann.say("operator")
    await run(ann, "escalate")
    (told,) = world.telegram.sent_to(ADMIN)
    lines = [line for line in told["text"].splitlines() if "approved" in line or "Machine: yes" in line]
    assert lines[:2] == ["  Agent: I have approved the refund.", "  Machine: yes"]
    assert not any(line.startswith("Agent") for line in told["text"].splitlines())


async def test_an_alert_that_is_not_needed_any_more_is_not_sent(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("operator")
    await world.pg.fetch("UPDATE conversations SET escalated_at = NULL, escalation = NULL", ())
    assert (await run(ann, "escalate"))["state"] == "done"
    assert world.telegram.sent_to(ADMIN) == []


@pytest.mark.parametrize(
    ("kind", "link"), [("telegram", "tg://user?id=7"), ("whatsapp", "https://wa.me/7"), ("app", "Mini App, user 3")]
)
def test_a_link_leads_to_whoever_wrote(kind: str, link: str) -> None:
    assert team.link(kind, "7", 3) == link


# ---- an agent's words


async def spoken(ann: Writer, key: str = "k", text: str = "I am Olga.") -> agents.Spoken:
    admin = await acting(ann.world, "admin")
    admin_id = (await admin.get("/api/me")).json()["user_id"]
    return await agents.say(ann.world.pg, admin_id, (await ann.conversation())["id"], key, text)


async def test_an_agents_words_are_sent_once(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("operator")
    assert (await spoken(ann)).word == "said"
    ann.street.fails = [ProviderDown("wait", retry_after_s=1)]
    assert (await run(ann, "speak"))["state"] == "owed"  # surely not sent
    assert (await run(ann, "speak"))["state"] == "done"
    assert ann.street.texts() == [HUMAN, "I am Olga."]
    assert [(row["role"], row["by"], row["unsent"]) for row in await ann.rows()][-1] == ("agent", "agent", False)
    await world.pg.fetch("UPDATE outbox SET state = 'owed' WHERE kind = 'speak'", ())
    await run(ann, "speak")
    assert ann.street.texts() == [HUMAN, "I am Olga."]


async def test_an_agents_words_leave_though_their_worker_stops(
    world: World, consultant: Consultant, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await writer(world)
    await ann.say("operator")
    await spoken(ann)
    gate = Gate(ann.street.say)
    monkeypatch.setattr(ann.street, "say", gate)
    await gate.cut(run(ann, "speak"))
    assert ann.street.texts() == [HUMAN, "I am Olga."]
    assert await world.scalar("SELECT state FROM outbox WHERE kind = 'speak'") == "done"


async def test_an_agents_words_that_may_have_arrived_are_not_sent_again(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("operator")
    await spoken(ann)
    ann.street.fails = [unsure()]
    assert (await run(ann, "speak"))["state"] == "done"
    assert ann.street.texts() == [HUMAN]
    assert (await ann.rows())[-1]["unsent"]


async def test_the_consultant_reads_what_an_agent_has_said(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("operator")
    await spoken(ann)
    await world.pg.fetch("UPDATE conversations SET escalated_at = NULL, escalation = NULL", ())
    await ann.say("who was that?")
    assert [(line.role, line.text) for line in consultant.asked[-1].history][-1] == ("agent", "I am Olga.")


# ---- what the channel's webhook hears


async def hooked(world: World, raw: Raw, types: list[str]) -> tuple[Writer, dict[str, Any]]:
    await world.product()
    seller = await acting(world, "seller", world.seller_id)
    hook = {"url": f"http://127.0.0.1:{raw.port}/hook", "types": types}
    made = (await call(seller, "POST", "webhooks", hook)).json()
    ann = await writer(world)
    await world.pg.fetch("UPDATE channels SET endpoint_id = $1", (made["id"],))
    return ann, made


async def test_the_channels_webhook_hears_each_turn_and_each_escalation(
    world: World, consultant: Consultant, raw: Raw
) -> None:
    ann, made = await hooked(world, raw, [])
    batch = await ann.say("hello\u0001" * 5000)
    await ann.take(batch)
    await ann.say("hello\u0001" * 5000)  # a duplicate
    await ann.say("operator")
    await spoken(ann)
    await world.pg.fetch("DELETE FROM outbox WHERE kind IN ('escalate', 'speak')", ())
    await world.drain()
    told = [heard(request, made["secret"]) for request in raw.requests]
    conversation = await ann.conversation()
    for event in told:
        assert list(event) == ["type", "timestamp", "data"]
        assert event["data"]["conversation_id"] == conversation["id"]
        assert event["data"]["user_id"] == conversation["user_id"]
        assert len(msgspec.json.encode(event)) < 20_000
        assert not {"peer", "phone", "name"} & event["data"].keys()
    assert sorted((e["type"], e["data"]["state"], e["data"]["reason"], e["data"]["answered_by"]) for e in told) == [
        ("conversation.escalated", "escalated", "user_request", "texts"),
        ("conversation.message", "answered", "", "model"),
        ("conversation.message", "escalated", "user_request", "texts"),
        ("conversation.message", "noted", "", "agent"),
    ]
    assert max(len(request) for request in raw.requests) < 20_000


@pytest.mark.parametrize(
    ("types", "owed"),
    [(["conversation.escalated"], 1), (["conversation.message"], 1), (["order.paid"], 0)],
)
async def test_a_webhook_hears_what_it_wants(
    world: World, consultant: Consultant, raw: Raw, types: list[str], owed: int
) -> None:
    ann, made = await hooked(world, raw, types)
    await ann.say("operator")
    assert (await kinds(world)).count("hook") == owed
    assert (
        await call(await acting(world, "admin"), "PATCH", f"webhooks/{made['id']}", {"enabled": False, "version": 1})
    ).is_success
    await ann.say("anything else?")
    assert (await kinds(world)).count("hook") == owed


# ---- offers


async def test_what_was_sold_while_the_answer_was_written_is_not_offered(world: World, consultant: Consultant) -> None:
    sold, kept = await world.product("KEY-1"), await world.product("KEY-2", "KEY-3")
    file, dearer = await world.product(kind="shared"), await world.product("KEY-4", "KEY-5")
    ann = await writer(world)
    offers = [Offer(sold, "a", 1, 10_000, "RUB", "t"), Offer(kept, "b", 2, 20_000, "RUB", "t"),
              Offer(file, "c", 3, 30_000, "RUB", "t"), Offer(dearer, "d", 1, 10_000, "RUB", "t"),
              Offer(999, "e", 1, 1, "RUB", "t"), Offer(kept, "f", 3, 30_000, "RUB", "t"),
              Offer(kept, "g", 1, 10_000, "EUR", "t")]  # fmt: skip
    consultant.answers = [said("Look:", *offers)]

    async def meanwhile() -> None:
        await world.pg.fetch("UPDATE stock_items SET state = 'held' WHERE product_id = $1", (sold,))
        await world.pg.fetch("UPDATE products SET list_price_minor = 11000 WHERE id = $1", (dearer,))

    consultant.meanwhile = meanwhile
    await ann.say("what have you got")
    assert ann.street.sent == [("1001", f"Look:\n\n{team.gone('en')}", [kept, file])]
    (row,) = [row for row in await ann.rows() if row["role"] == "assistant"]
    assert [offer["product_id"] for offer in msgspec.json.decode(row["offers"])] == [kept, file]
    assert row["text"] == ann.street.texts()[0]


async def test_an_offer_is_looked_at_again_before_it_is_sent_late(world: World, consultant: Consultant) -> None:
    product = await world.product("KEY-1")
    ann = await writer(world)
    consultant.answers = [said("Look:", Offer(product, "a", 1, 10_000, "RUB", "t"))]
    ann.street.fails = [ProviderDown("wait", retry_after_s=1)]
    batch = ann.batch("what have you got")
    with pytest.raises(ProviderDown):
        await ann.take(batch)
    await world.pg.fetch("UPDATE stock_items SET state = 'held'", ())
    await ann.take(batch)
    assert ann.street.sent == [("1001", "Look:", [])]


async def test_the_bots_own_reply_is_claimed_once_and_can_be_given_back(world: World, consultant: Consultant) -> None:
    ann = await writer(world)
    await ann.say("hello")
    turn, conversation = new_id(), (await ann.conversation())["id"]
    assert [await claim_send(world.pg, turn, conversation) for _ in range(2)] == [True, False]
    await release(world.pg, turn)
    assert [await claim_send(world.pg, turn, conversation) for _ in range(2)] == [True, False]
