"""Commands that everybody has: a welcome that binds who brought whom, orders and their goods, a language, a human."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest

from app.bot import dispatch
from app.bot.visit import Visit
from app.channels import sayings
from app.channels.line import Offer
from app.domain import referrals
from app.domain.buffers import Heard
from app.domain.conversations import Opened
from app.errors import ProviderDown
from app.flows import offer as offers
from tests.bot.chat import Chat
from tests.world import World, invoice_of, order_id_of

REFERRER = "SELECT referrer_id FROM users WHERE telegram_id = $1"


async def bought(world: World, chat: Chat, *secrets: str, **product: Any) -> dict[str, Any]:
    """An order that this user has paid, delivered as far as it goes; nothing else is in the chat."""
    product_id = await world.product(*secrets, **product)
    buyer = await world.buyer(chat.chat_id)
    placed: dict[str, Any] = (await buyer.order((product_id, max(1, len(secrets))))).json()
    await world.crystalpay.pay(invoice_of(placed))
    await world.drain()
    world.telegram.messages.clear()
    return placed


async def test_start_greets_and_opens_the_shop(world: World, ann: Chat) -> None:
    assert (await ann.told("/start")).startswith("Hello, Ann!")
    (button,) = ann.buttons()
    assert button == {"text": "Open the shop", "url": world.shop.deps.settings.public_url}
    assert await ann.user_id()


NAMES = {
    "<b>Ann</b> *_`[": "Hello, <b>Ann</b> *_`[!",
    "A\0nn\n\n/x": "Hello, Ann /x!",
    "\u202egnihton": "Hello, gnihton!",
    "שלום": "Hello, \u2068שלום\u2069!",
    "\u202e\u2066": "Hello!",
    "🙂" * 60: "Hello, " + "🙂" * 31 + "…!",
    "{name} %s": "Hello, {name} %s!",
}


async def test_a_name_changes_nothing_around_it(world: World) -> None:
    for name, greeted in NAMES.items():
        chat = Chat(world, name=name)
        assert (await chat.told("/start")).startswith(greeted + " This is")
        assert "entities" not in world.telegram.sent_to(chat.chat_id)[-1]
        assert await world.scalar("SELECT count(*) FROM users") == 1


def test_the_shop_is_a_mini_app_where_telegram_can_open_one(ann: Chat) -> None:
    settings = msgspec.structs.replace(ann.world.shop.deps.settings, public_url="https://shop.example")
    deps = msgspec.structs.replace(ann.world.shop.deps, settings=settings)
    opened = Opened(1, 1, "telegram", "1", 1, "buyer", "en", None)
    visit = Visit(msgspec.structs.replace(ann.world.shop, deps=deps), opened, uuid4(), 1, "Ann", Heard("1", 1))
    assert (visit.shop_button().app, visit.shop_button().url) == ("https://shop.example", "")


async def test_a_code_binds_who_is_new_and_nobody_else(world: World, ann: Chat) -> None:
    await ann.writes("/start")
    code = referrals.code_of(await ann.user_id())
    bob, carl = Chat(world, 1002), Chat(world, 1003)
    await bob.writes(f"/start ref_{code}")
    assert await world.scalar(REFERRER, 1002) == await ann.user_id()
    await carl.writes("/help")
    await carl.writes(f"/start ref_{code}")
    assert await world.scalar(REFERRER, 1003) is None
    await bob.writes(f"/start ref_{referrals.code_of(await carl.user_id())}")
    assert await world.scalar(REFERRER, 1002) == await ann.user_id()


async def test_a_parameter_that_is_none_costs_nobody_the_welcome(world: World) -> None:
    odd = ("ref_", "ref_zzzzzz", "ref_0001 x", "o_", "o_" + "A" * 56, "o_\0", "x" * 4000)
    for chat_id, parameter in enumerate(odd, 1):
        answer = await Chat(world, chat_id).told(f"/start {parameter}")
        assert answer.startswith("This link is not valid" if parameter.startswith("o_") else "Hello, Ann!")


async def test_a_shared_offer_is_made_anew_for_whoever_opens_it(world: World, ann: Chat) -> None:
    product = await world.product("KEY-1", title="Good <Key>")
    await ann.writes("/start")
    made = await offers.offer(world.shop, await ann.user_id(), product, 1)
    assert isinstance(made, Offer)
    bob = Chat(world, 1002, language="uk")
    told = await bob.told(f"/start o_{made.token}")
    assert told == "Good <Key>, 1 шт.: 100.00 RUB"
    (data,) = bob.data()
    assert data.startswith("pay:")
    assert data != f"pay:{made.token}"
    assert bob.buttons()[0]["text"] == "Сплатити 100.00 RUB"


# ---- orders and goods


async def test_orders_are_listed_with_what_can_be_done(world: World, ann: Chat) -> None:
    assert await ann.told("/orders") == "You have no orders yet."
    placed = await bought(world, ann, "KEY-1")
    buyer = await world.buyer()
    for n in range(5):
        await buyer.order((await world.product(f"OTHER-{n}"), 1))
    told = await ann.told("/orders")
    assert told.count("waits to be paid") == 5  # the oldest, which is delivered, is the sixth
    assert [button["text"].split()[0] for button in ann.buttons()] == ["Order"] * 5
    assert all(button["url"].startswith("http") for button in ann.buttons())
    await world.pg.fetch("UPDATE orders SET status = 'cancelled' WHERE status = 'pending' AND number % 2 = 0", ())
    assert (await ann.told("/ORDERS@any_bot")).count("\n") == 5
    assert placed["order"]["number"]


async def test_goods_are_sent_again_to_their_owner(world: World, ann: Chat) -> None:
    placed = await bought(world, ann, "KEY-<1>")
    await ann.writes("/orders")
    number = placed["order"]["number"]
    assert ann.buttons()[0]["text"] == f"Order {number}: send the goods again"
    assert await ann.tells(f"goods:{order_id_of(placed)}") == f"Order {number}:\n\nKey\nKEY-<1>"


async def test_nobody_else_has_the_goods(world: World, ann: Chat) -> None:
    placed = await bought(world, ann, "KEY-1")
    eve = Chat(world, 6666)
    for data in (f"goods:{order_id_of(placed)}", f"goods:{uuid4()}", "goods:", "goods:'; --", "goods:\0"):
        await eve.forges(data)
    assert eve.texts() == ["You have no such order."] * 5
    assert ann.texts() == []


async def test_goods_that_fill_more_than_a_message_are_not_cut(world: World, ann: Chat) -> None:
    placed = await bought(world, ann, "K" * 2000, "L" * 2000, "M" * 2000)
    await ann.writes("/orders")
    told = await ann.tells(f"goods:{order_id_of(placed)}")
    assert "too long for a message" in told
    assert ann.buttons()[0]["text"] == "Open the shop"


async def test_an_order_that_has_delivered_nothing_says_so(world: World, ann: Chat) -> None:
    placed = await bought(world, ann, kind="made")
    await ann.writes("/orders")
    assert "nothing of it has been delivered yet" in await ann.tells(f"goods:{order_id_of(placed)}")


# ---- language


async def test_a_chosen_language_stays_whatever_telegram_reports(world: World, ann: Chat) -> None:
    await ann.writes("/language")
    assert [button["text"] for button in ann.buttons()] == ["English", "Русский", "Українська"]
    await ann.presses("speak:uk")
    assert ann.texts() == ["Відтепер я розмовляю з вами українською."]  # in the place of the question
    assert await ann.told("/nothing") == "Я не знаю такої команди. Які є, скаже /help."
    await world.buyer(ann.chat_id, language="ru")  # the Mini App is opened with another language
    assert await world.scalar("SELECT language FROM users WHERE telegram_id = $1", ann.chat_id) == "uk"
    assert (await Chat(world, ann.chat_id, language="ru").told("/start")).startswith("Вітаю")


async def test_who_has_chosen_none_follows_telegram(world: World, ann: Chat) -> None:
    await ann.writes("/start")
    assert (await Chat(world, ann.chat_id, language="ru").told("/start")).startswith("Здравствуйте")
    assert (await ann.told("/start")).startswith("Hello")


async def test_a_language_that_is_none_is_not_stored(world: World, ann: Chat) -> None:
    await ann.forges("speak:xx")
    assert ann.texts() == ["This button is too old."]
    assert await world.scalar("SELECT chosen_language FROM users") is None


# ---- a human, help, and the rest


async def test_support_hands_over_to_a_human_once(world: World, ann: Chat) -> None:
    assert await ann.told("/support") == "A human answers here as soon as possible."
    row = (await world.pg.fetch("SELECT escalation, escalated_at FROM conversations", ()))[0]
    assert row["escalation"] == "user_request"
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'escalate'") == 1
    await ann.writes("/support")  # within five minutes it is not said again
    assert len(ann.texts()) == 1
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'escalate'") == 1
    assert await world.scalar("SELECT escalated_at FROM conversations") == row["escalated_at"]
    assert (await ann.told("/start")).startswith("Hello")  # the bot's own affairs go on


async def test_support_where_nobody_is_calls_nobody(world: World, ann: Chat) -> None:
    channel_id = await ann.channel()
    await world.pg.fetch("UPDATE channels SET escalation_enabled = false WHERE id = $1", (channel_id,))
    assert await ann.told("/support") == sayings.nobody("en")
    assert await world.scalar("SELECT escalated_at FROM conversations") is None
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'escalate'") == 0


async def test_a_picture_for_a_human_is_not_the_machines_affair(world: World, ann: Chat) -> None:
    await ann.told("/support")
    await ann.writes("", media="photo")
    assert len(ann.texts()) == 1


async def test_help_says_what_there_is(ann: Chat, admin: Chat) -> None:
    assert "/broadcast" not in await ann.told("/help")
    assert "/broadcast <text>" in await admin.told("/help")


async def test_a_command_that_is_none_for_this_user_is_unknown(ann: Chat) -> None:
    for text in ("/nothing", "/", "/stats", "/broadcast hello", "/dead", "/handback 1", "/stock"):
        assert await ann.told(text) == "I do not know this command. /help says which there are."


async def test_what_is_no_words_is_not_read(ann: Chat) -> None:
    for media in ("photo", "sticker", "voice"):
        assert await ann.told("", media=media) == "I can read only words. What are you looking for?"


async def test_an_album_is_answered_once(world: World, ann: Chat) -> None:
    for album in ("7", "7", "8", "7"):
        await ann.writes("", media="photo", album=album)
    assert len(ann.texts()) == 2
    bob = Chat(world, 1002, name="Bob")
    await bob.writes("", media="photo", album="7")
    assert len(bob.texts()) == 1


async def test_the_answer_to_an_album_waits_for_its_place(
    world: World, ann: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [await ann.batched("", media="photo", album="7") for _ in range(2)]

    async def full(chat_id: int) -> None:
        raise ProviderDown("the chat has said enough for now", retry_after_s=1, whose="chat")

    with monkeypatch.context() as patch:
        patch.setattr(world.shop.deps.messenger, "turn", full)
        patch.setattr(dispatch, "PATIENCE_S", 0)
        for batch in batches:
            with pytest.raises(ProviderDown):
                await ann.feed(batch)
    for batch in batches:
        await ann.feed(batch)
    assert len(ann.texts()) == 1


async def test_a_button_that_is_none_is_too_old(ann: Chat) -> None:
    for data in ("", "x", "cry:all", "again:1", "p:", "p0", "px:abc", "pay", "🙂"):
        assert await ann.tells_forged(data) == "This button is too old."
