"""Admins' commands: figures, what runs out, a broadcast, approved once, dead letters, a conversation given back."""

import asyncio

import msgspec
import pytest

from app.domain import broadcasts
from app.errors import PostgresDown
from tests.bot.chat import BOT, Chat
from tests.world import World, invoice_of

OLD = "UPDATE orders SET paid_at = paid_at - $2::int * interval '1 day' WHERE number = $1"
BURY = """
INSERT INTO outbox (kind, key, payload, state, died_at, last_error, attempts)
VALUES ('tell', $1, '{}', 'dead', now(), $2, 9) RETURNING id"""


async def paid(world: World, telegram_id: int, product: int) -> int:
    """An order of this user, paid; its number."""
    placed = (await (await world.buyer(telegram_id)).order((product, 1))).json()
    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()
    return int(placed["order"]["number"])


async def test_stats_count_what_was_paid_and_who_waits(world: World, ann: Chat, admin: Chat) -> None:
    assert await admin.told("/stats") == (
        "Nothing was sold in 7 days.\nConversations: 1 in the last 6 hours, 0 wait for a human"
    )
    product = await world.product("K-1", "K-2", "K-3", "K-4")
    await paid(world, 1001, product)
    older, oldest = await paid(world, 1001, product), await paid(world, 1001, product)
    await (await world.buyer(1001)).order((product, 1))  # nobody pays it
    await world.pg.fetch(OLD, (older, 3))
    await world.pg.fetch(OLD, (oldest, 8))
    await ann.writes("/support")
    assert await admin.told("/stats") == (
        "RUB: today 1 orders, 100.00 RUB; in 7 days 2 orders, 200.00 RUB\n"
        "Conversations: 2 in the last 6 hours, 1 wait for a human"
    )


async def test_stock_lists_what_runs_out_the_scarcest_first(world: World, admin: Chat) -> None:
    few = await world.product("K-1", "K-2", title="Few\n<b>")
    none = await world.product(title="None")
    await world.product(*(f"L-{n}" for n in range(6)), title="Many")
    await world.product(kind="shared", title="File")
    assert await admin.told("/stock") == f"Runs out:\n0 × None (product {none})\n2 × Few <b> (product {few})"
    await world.pg.fetch("UPDATE products SET active = false", ())
    assert await admin.told("/stock") == "Of every product more than 5 are left."


# ---- broadcasts


async def test_a_broadcast_is_sent_as_it_was_shown_and_once(world: World, ann: Chat, admin: Chat) -> None:
    await ann.writes("/start")
    assert (await admin.told("/broadcast")).startswith("/broadcast <text>")
    assert await admin.told("/broadcast Big *sale*\n<b>today</b>") == "Big *sale*\n<b>today</b>"
    assert [button["text"] for button in admin.buttons()] == ["Send to all", "Send to buyers", "Cancel"]
    await world.drain()
    assert ann.texts()[1:] == []
    presses = [await admin.pressing("cry:all") for _ in range(3)]
    await asyncio.gather(*(BOT.feed(world.shop, press) for press in presses))
    number = await world.scalar("SELECT id FROM broadcasts")
    assert admin.texts()[-3:] == [f"Broadcast {number} is under way."] * 3
    await world.drain()
    assert ann.texts()[1:] == ["Big *sale*\n<b>today</b>"]
    assert await admin.tells("cry:all") == f"Broadcast {number} is over."
    assert await admin.tells("cry:none") == f"Broadcast {number} is over."
    await world.drain()
    assert len(ann.texts()) == 2
    assert await world.scalar("SELECT count(*) FROM changes WHERE noun = 'broadcast'") == 1


async def test_buyers_alone_may_be_written_to(world: World, ann: Chat, admin: Chat) -> None:
    await ann.writes("/start")
    await paid(world, 1002, await world.product("K-1"))
    await admin.writes("/broadcast For you")
    await admin.presses("cry:buyers")
    await world.drain()
    assert "For you" not in ann.texts()
    assert "For you" in [message["text"] for message in world.telegram.sent_to(1002)]


async def test_a_cancelled_broadcast_is_gone(world: World, admin: Chat) -> None:
    await admin.writes("/broadcast Oops")
    approved = await admin.pressing("cry:all")  # and on its way
    await admin.presses("cry:none")
    assert admin.texts() == ["Nothing was sent."]
    await admin.feed(approved)
    assert admin.texts() == ["Nothing was sent."]
    await world.drain()
    assert await world.scalar("SELECT array_agg(state) FROM broadcasts") == ["cancelled"]
    assert await world.scalar("SELECT what -> 'state' ->> 'new' FROM changes WHERE noun = 'broadcast'") == "cancelled"
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'broadcast'") == 0


async def test_what_was_approved_is_not_cancelled_by_its_draft(world: World, ann: Chat, admin: Chat) -> None:
    await ann.writes("/start")
    await admin.writes("/broadcast Sale")
    cancelled = await admin.pressing("cry:none")
    await admin.presses("cry:all")
    await admin.feed(cancelled)
    number = await world.scalar("SELECT id FROM broadcasts")
    assert admin.texts()[1:] == [f"Broadcast {number} is under way."] * 2
    await world.drain()
    assert ann.texts()[1:] == ["Sale"]


async def test_an_approval_whose_worker_died_is_told_of_by_the_next(
    world: World, ann: Chat, admin: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann.writes("/start")
    await admin.writes("/broadcast Sale")
    approved = await admin.pressing("cry:all")
    with monkeypatch.context() as patch:

        async def dies(*_: object) -> None:
            raise PostgresDown("the process is gone")

        patch.setattr(broadcasts, "drafted", dies)
        with pytest.raises(PostgresDown):
            await admin.feed(approved)
    await admin.feed(approved)
    assert admin.texts()[1:] == [f"Broadcast {await world.scalar('SELECT id FROM broadcasts')} is under way."]
    await world.drain()
    assert ann.texts()[1:] == ["Sale"]


async def test_the_same_words_are_not_under_way_twice(world: World, ann: Chat, admin: Chat) -> None:
    await ann.writes("/start")
    for _ in range(2):
        await admin.writes("/broadcast Sale")
        await admin.presses("cry:all")
    assert admin.texts()[-1] == "The same broadcast is under way."
    await world.drain()
    assert ann.texts()[1:] == ["Sale"]
    await admin.presses("cry:all")  # that one is over: the second draft may go
    await world.drain()
    assert ann.texts()[1:] == ["Sale", "Sale"]


async def test_who_is_no_admin_any_more_may_not_approve(world: World, admin: Chat) -> None:
    await admin.writes("/broadcast Hello")
    shop = world.shop
    settings = msgspec.structs.replace(shop.deps.settings, admins="")
    world.shop = msgspec.structs.replace(shop, deps=msgspec.structs.replace(shop.deps, settings=settings))
    assert await admin.tells("cry:all") == "This button is too old."
    assert (await admin.told("/stats")).startswith("I do not know this command")
    assert await world.scalar("SELECT count(*) FROM broadcasts") == 0


async def test_a_draft_that_telegram_does_not_show_us_any_more_is_not_sent(world: World, admin: Chat) -> None:
    await admin.forges("cry:all")
    assert admin.texts() == ["This button is too old."]
    assert await world.scalar("SELECT count(*) FROM broadcasts") == 0


# ---- dead letters and conversations


async def test_dead_letters_are_listed_and_tried_again(world: World, ann: Chat, admin: Chat) -> None:
    assert await admin.told("/dead") == "There are no dead letters."
    ids = [await world.scalar(BURY, f"k{n}", f"it\nfailed {n}") for n in range(7)]
    told = await admin.told("/dead")
    assert told.startswith("Dead letters: 7\n")
    assert f"{ids[6]} tell, " in told
    assert "it failed 6" in told
    assert admin.data() == [f"again:{n}" for n in reversed(ids[2:])]
    assert await admin.tells(f"again:{ids[6]}") == f"Job {ids[6]} is tried again."
    assert await world.scalar("SELECT state FROM outbox WHERE id = $1", ids[6]) == "owed"
    assert await admin.tells_forged(f"again:{ids[6]}") == f"{ids[6]} is no dead letter."
    for data in ("again:", "again:x", "again:-1", "again:99999999999999999999", "again:٣"):
        assert await admin.tells_forged(data) == "0 is no dead letter."
    assert await ann.tells_forged(f"again:{ids[5]}") == "This button is too old."


async def test_a_conversation_is_given_back(world: World, ann: Chat, admin: Chat) -> None:
    await ann.writes("/support")
    number = await world.scalar("SELECT id FROM conversations WHERE peer = '1001'")
    assert (await ann.told(f"/handback {number}")).startswith("I do not know this command")
    assert await admin.told(f"/handback {number}") == f"The machine answers in conversation {number} again."
    assert await world.scalar("SELECT escalated_at FROM conversations WHERE id = $1", number) is None
    assert await admin.told(f"/handback {number}") == f"No human has conversation {number}."
    for text in ("/handback", "/handback x", "/handback 1 2", "/handback -1"):
        assert await admin.told(text) == "/handback <conversation number>"
