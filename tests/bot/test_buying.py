"""A pay button: one order, however often it is pressed; what cannot be had says so, and what there is instead."""

import asyncio
from typing import Any

import msgspec
import pytest

from app.base import clock
from app.channels.line import Offer
from app.channels.telegram.line import pay_buttons
from app.domain import ledger
from app.errors import PostgresDown
from app.flows import checkout
from app.flows import offer as offers
from app.infra.secrets import Offered
from app.sandbox.crystalpay import ApiFault
from tests.bot.chat import BOT, Chat
from tests.flows.scripted import Scripted
from tests.world import World

GIFT = """
WITH posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, user_id)
    VALUES ('gift', 'bonuses', 'buyer:' || $1::int8, $2, 'RUB', 'bonus', $1::int8))
INSERT INTO balances (user_id, currency, balance_minor) VALUES ($1::int8, 'RUB', $2)"""


async def shown(world: World, chat: Chat, product: int, quantity: int = 1) -> str:
    """An offer stands in the chat; the data of its button."""
    await chat.writes("/start")
    made = await offers.offer(world.shop, await chat.user_id(), product, quantity)
    assert isinstance(made, Offer)
    await chat.shows("Here", pay_buttons("en", [made]))
    return f"pay:{made.token}"


async def counted(world: World) -> int:
    return int(await world.scalar("SELECT count(*) FROM orders"))


async def test_a_pressed_offer_is_an_order_with_its_link(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1", title="A <Key>"))
    told = await ann.tells(data)
    assert told.startswith("Order ")
    assert "1 × A <Key>. To pay: 100.00 RUB, until " in told
    (link,) = ann.buttons()
    assert link["text"] == "Pay 100.00 RUB"
    assert link["url"] == await world.scalar("SELECT url FROM payments")
    assert await counted(world) == 1


async def test_pressed_twice_it_is_one_order(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1", "KEY-2"))
    assert await ann.tells(data) == await ann.tells(data)
    one, two = await ann.pressing(data), await ann.pressing(data)
    await asyncio.gather(BOT.feed(world.shop, one), BOT.feed(world.shop, two))
    assert await counted(world) == 1
    assert await world.scalar("SELECT count(*) FROM payments") == 1


async def test_two_presses_at_once_are_one_order(world: World, ann: Chat) -> None:
    for round_ in range(5):
        data = await shown(world, ann, await world.product(f"KEY-{round_}", f"SECOND-{round_}"))
        presses = [await ann.pressing(data) for _ in range(4)]
        before = len(ann.texts())
        await asyncio.gather(*(BOT.feed(world.shop, press) for press in presses))
        assert await counted(world) == round_ + 1
        said = ann.texts()[before:]
        assert len(said) == 4
        assert {text.split()[0] for text in said} <= {"Order", "That"}  # or "That is being worked on"


async def test_another_buyers_offer_is_nobodys(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    eve = Chat(world, 6666)
    for forged in (data, data.replace("pay:", "p0:"), data.replace("pay:", "pb:"), data[:-3] + "AAA", "pay:", "p0:x"):
        await eve.forges(forged)
    assert eve.texts() == ["This button is not for you, or too old. Ask me for the product again."] * 6
    assert await counted(world) == 0


# ---- how it is paid


@pytest.fixture
def scripted(world: World) -> Scripted:
    """A second gateway."""
    made = Scripted()
    world.shop.gateways[made.name] = made
    return made


async def test_of_several_ways_one_is_chosen(world: World, ann: Chat, scripted: Scripted) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    assert await ann.tells(data) == "How do you want to pay 100.00 RUB?"
    assert [button["text"] for button in ann.buttons()] == ["CrystalPay", "Scripted"]
    assert all(len(one.encode()) <= 64 for one in ann.data())
    assert await counted(world) == 0
    crystal, other = ann.data()
    await ann.presses(other)
    assert ann.buttons()[0]["url"] == "http://pay.invalid"
    await ann.presses(crystal)  # the same order, by the other one
    assert ann.buttons()[0]["url"].startswith("http://127.0.0.1")
    assert await counted(world) == 1
    await ann.forges(crystal.replace("p0:", "p7:"))
    assert ann.texts()[-1] == "This button is too old."


async def test_a_gateway_that_takes_other_money_is_not_offered(
    world: World, ann: Chat, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    dollars = type(scripted.traits)(**{
        **{name: getattr(scripted.traits, name) for name in scripted.traits.__struct_fields__},
        "currencies": frozenset({"USD"}),
    })  # fmt: skip
    monkeypatch.setattr(Scripted, "traits", dollars)
    assert (await ann.tells(data)).startswith("Order ")
    world.shop.gateways.pop("crystalpay")
    data = await shown(world, ann, await world.product("KEY-2"))
    assert await ann.tells(data) == "Nothing can be paid for here at the moment."


async def test_a_balance_that_suffices_pays(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    await world.pg.fetch(GIFT, (await ann.user_id(), 10_000))
    await ann.presses(data)
    assert [button["text"] for button in ann.buttons()] == ["CrystalPay", "From the balance (100.00 RUB)"]
    told = await ann.tells(ann.data()[1])
    assert told.endswith("is paid.")
    await world.drain()
    assert any("KEY-1" in text for text in ann.texts())
    assert (await ann.tells(data)).endswith("is paid.")  # and nobody is asked again how to pay
    assert (await ledger.balances(world.pg, await ann.user_id()))[0].balance_minor == 0


async def test_a_balance_that_is_spent_meanwhile_leaves_the_other_ways(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    await world.pg.fetch(GIFT, (await ann.user_id(), 4_000))
    told = await ann.tells_forged(data.replace("pay:", "pb:"))
    assert told == "That is not enough for it: 40.00 RUB of 100.00 RUB. Choose another way to pay."
    assert (await ann.tells(data)).startswith("Order ")
    assert await counted(world) == 1


async def test_a_gateway_that_is_away_says_so_and_a_second_press_mends_it(world: World, ann: Chat) -> None:
    data = await shown(world, ann, await world.product("KEY-1"))
    world.crystalpay.faults.append(ApiFault(on="create", status=502))
    assert (await ann.tells(data)).startswith("The payment service does not answer.")
    assert (await ann.tells(data)).startswith("Order ")
    assert await counted(world) == 1


# ---- what cannot be had


async def test_an_offer_whose_price_has_changed_is_made_anew(world: World, ann: Chat) -> None:
    product = await world.product("KEY-1")
    data = await shown(world, ann, product)
    await world.pg.fetch("UPDATE products SET list_price_minor = 12500 WHERE id = $1", (product,))
    await world.refresh()
    assert await ann.tells(data) == "The price has changed. What it costs now:\nKey, 1 pcs.: 125.00 RUB"
    assert await counted(world) == 0
    assert (await ann.tells(ann.data()[0])).startswith("Order ")


async def test_an_offer_that_has_ended_is_made_anew_unless_it_was_ordered(world: World, ann: Chat) -> None:
    product = await world.product("KEY-1", "KEY-2")
    await ann.writes("/start")
    signs = world.shop.deps.offers
    assert signs
    old = signs.issue(Offered(product, 1, 10_000, "RUB", await ann.user_id(), clock.unix_s() - 1))
    await ann.shows("Here", pay_buttons("en", [Offer(product, "Key", 1, 10_000, "RUB", old)]))
    assert await ann.tells(f"pay:{old}") == "This offer has ended. What it costs now:\nKey, 1 pcs.: 100.00 RUB"
    assert await counted(world) == 0


async def test_what_is_sold_out_or_taken_off_the_shelf_is_gone(world: World, ann: Chat) -> None:
    product, other = await world.product("KEY-1"), await world.product("KEY-2")
    data, off = await shown(world, ann, product), await shown(world, ann, other)
    bob = await world.buyer(1002)
    await bob.order((product, 1))
    await world.pg.fetch("UPDATE products SET active = false WHERE id = $1", (other,))
    await world.refresh()
    assert await ann.tells(data) == "This is sold out at the moment."
    assert await ann.tells(off) == "This is sold out at the moment."
    assert await counted(world) == 1


async def test_of_what_is_left_there_is_an_offer(world: World, ann: Chat) -> None:
    product = await world.product("KEY-1", "KEY-2", "KEY-3")
    data = await shown(world, ann, product, 3)
    await (await world.buyer(1002)).order((product, 1))
    assert await ann.tells(data) == "So many can be had now:\nKey, 2 pcs.: 200.00 RUB"
    assert len(ann.data()) == 1


async def test_too_many_unpaid_orders_are_said(world: World, ann: Chat) -> None:
    one = await shown(world, ann, await world.product("KEY-1"))
    two = await shown(world, ann, await world.product("KEY-2"))
    settings = msgspec.structs.replace(world.shop.deps.settings, pending_orders=1)
    world.shop = msgspec.structs.replace(world.shop, deps=msgspec.structs.replace(world.shop.deps, settings=settings))
    assert (await ann.tells(one)).startswith("Order ")
    assert (await ann.tells(two)).startswith("1 of your orders are unpaid")


async def test_postgres_away_comes_again(world: World, ann: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nobody's refusal is not answered: the batch is tried again."""

    async def away(*_: Any, **__: Any) -> Any:
        raise PostgresDown

    data = await shown(world, ann, await world.product("KEY-1"))
    press = await ann.pressing(data)
    before = ann.texts()
    with monkeypatch.context() as patch:
        patch.setattr(checkout, "accept_offer", away)
        with pytest.raises(PostgresDown):
            await BOT.feed(world.shop, press)
    assert ann.texts() == before
    await BOT.feed(world.shop, press)
    assert len(ann.texts()) == len(before) + 1
