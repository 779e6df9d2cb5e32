"""WhatsApp from a signed webhook to the goods: words, buttons, pictures, repeats, outages."""

from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio

from app.base import clock
from app.channels.whatsapp import texts
from app.domain import broadcasts, customers
from app.errors import ProviderDown
from app.flows import press
from app.infra.embedded import Servers
from app.infra.secrets import Offered
from app.sandbox.crystalpay import ApiFault
from app.sandbox.whatsapp_wire import GraphFault, Said
from tests.flows.talking import Gate
from tests.flows.town import ONLY_WORDS, Town, built, invoice_in, picture, pressed, someone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(servers: Servers, template: str) -> AsyncIterator[Town]:
    async with built(servers, template, "whatsapp", 7) as town:
        yield town


@pytest_asyncio.fixture(loop_scope="module")
async def town(shared: Town) -> Town:
    await shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---- what is no words


async def test_a_picture_is_answered_in_its_users_language_and_a_thumb_is_not(town: Town) -> None:
    peer = someone()
    await town.say(picture(peer, name="Zoë"))
    assert town.phone.texts_to(peer) == [ONLY_WORDS]
    (row,) = await town.world.pg.fetch("SELECT name, language, telegram_id FROM users WHERE whatsapp = $1", (peer,))
    assert tuple(row) == ("Zoë", "en", None)
    await town.world.pg.fetch("UPDATE users SET language = 'uk' WHERE whatsapp = $1", (peer,))
    await town.say(Said(sender=peer, type="reaction"))
    await town.say(Said(sender=peer, type="audio"))
    assert town.phone.texts_to(peer)[1:] == [texts.said("only_words", "uk")]


async def test_a_picture_for_a_human_is_not_the_machines_affair(town: Town) -> None:
    peer = someone()
    await town.say(picture(peer))
    await town.world.pg.fetch(
        "UPDATE conversations SET escalated_at = now(), escalation = 'user_request' WHERE peer = $1", (peer,)
    )
    await town.say(picture(peer))
    assert town.phone.texts_to(peer) == [ONLY_WORDS]


async def test_entries_changes_and_messages_are_each_answered_once_however_often_they_come(town: Town) -> None:
    peers = [someone() for _ in range(12)]
    said = [picture(peer, id=f"wamid.{uuid4()}") for peer in peers for _ in range(2)]
    entries = [[said[:4], said[4:10]], [said[10:20]], [said[20:], said[:6]]]
    assert (await town.phone.say_batch(entries)).status == 200
    assert (await town.phone.say_batch(entries[:2])).status == 200
    await town.answer()
    assert (await town.phone.say_batch(entries)).status == 200
    await town.answer()
    assert {peer: len(town.phone.texts_to(peer)) for peer in peers} == dict.fromkeys(peers, 2)


async def test_a_press_that_was_answered_and_comes_back_is_not_answered_again(town: Town) -> None:
    peer = await town.known()
    await town.phone.say(picture(peer))
    (batch,) = await town.take()
    for _ in range(3):  # its worker died each time
        await press.press(town.shop, batch)
    assert town.phone.texts_to(peer) == [ONLY_WORDS]


async def test_what_may_have_arrived_is_not_said_again(town: Town) -> None:
    peer = await town.known()
    town.phone.faults.append(GraphFault(status=500, to=peer, after=True))
    await town.phone.say(picture(peer))
    (batch,) = await town.take()
    await press.press(town.shop, batch)
    await press.press(town.shop, batch)
    assert town.phone.texts_to(peer) == [ONLY_WORDS]


async def test_what_has_not_arrived_is_said_when_the_batch_comes_again(town: Town) -> None:
    peer = await town.known()
    town.phone.faults.append(GraphFault(code=131056, to=peer))
    await town.phone.say(picture(peer))
    (batch,) = await town.take()
    with pytest.raises(ProviderDown):
        await press.press(town.shop, batch)
    assert town.phone.texts_to(peer) == []
    await press.press(town.shop, batch)
    await press.press(town.shop, batch)
    assert town.phone.texts_to(peer) == [ONLY_WORDS]


# ---- buying


async def test_a_button_becomes_an_order_its_link_and_at_last_the_goods(town: Town) -> None:
    peer, product = await town.known(), await town.world.product("KEY-OF-ANN", "KEY-2")
    made = await town.offered(peer, product)
    await town.say(pressed(peer, made.token))
    (link,) = town.phone.texts_to(peer)
    assert "100.00 RUB" in link
    await town.world.crystalpay.pay(invoice_in(link))
    await town.settle()
    assert [status for _, status in await town.orders(peer)] == ["delivered"]
    (_, goods) = town.phone.texts_to(peer)
    assert sum(key in goods for key in ("KEY-OF-ANN", "KEY-2")) == 1  # both came in one instant


async def test_a_button_pressed_again_is_the_same_order_with_the_same_link(town: Town) -> None:
    peer, product = await town.known(), await town.world.product("KEY-1", "KEY-2")
    made = await town.offered(peer, product)
    for _ in range(3):
        await town.say(pressed(peer, made.token))
    assert len(await town.orders(peer)) == 1
    assert len({invoice_in(text) for text in town.phone.texts_to(peer)}) == 1
    assert len(town.phone.texts_to(peer)) == 3


async def test_a_forged_an_old_and_another_users_offer_are_refused(town: Town) -> None:
    peer, other, product = await town.known(), await town.known(), await town.world.product("KEY-1")
    theirs = (await town.offered(other, product)).token
    old = Offered(
        product_id=product, quantity=1, price_minor=10_000, currency="RUB", user_id=await town.user(peer),
        expires_s=clock.unix_s() - 1,
    )  # fmt: skip
    for token in (theirs, theirs[:-1] + ("A" if theirs[-1] != "A" else "B"), "", "é", town.shop.deps.offers.issue(old)):
        await town.say(pressed(peer, token))
    assert town.phone.texts_to(peer) == [texts.said("stale", "en")] * 5
    assert await town.orders(peer) == []


async def test_what_was_sold_meanwhile_is_told_so(town: Town) -> None:
    first, second = await town.known(), await town.known()
    product = await town.world.product("THE-ONLY-KEY")
    offers = {peer: await town.offered(peer, product) for peer in (first, second)}
    for peer, made in offers.items():
        await town.say(pressed(peer, made.token))
    assert town.phone.texts_to(second) == [texts.said("sold_out", "en")]
    assert await town.orders(second) == []


async def test_a_gateway_that_is_down_keeps_the_order_for_the_next_press(town: Town) -> None:
    peer, product = await town.known(), await town.world.product("KEY-1")
    made = await town.offered(peer, product)
    town.world.crystalpay.faults.append(ApiFault(status=500))
    await town.say(pressed(peer, made.token))
    assert town.phone.texts_to(peer) == [texts.said("not_now", "en")]
    await town.say(pressed(peer, made.token))
    assert invoice_in(town.phone.texts_to(peer)[1]) in town.world.crystalpay.invoices
    assert len(await town.orders(peer)) == 1


async def test_what_no_gateway_takes_is_told_so(town: Town) -> None:
    peer, product = await town.known(), await town.world.product("KEY-1")
    made = await town.offered(peer, product)
    await town.phone.say(pressed(peer, made.token))
    (batch,) = await town.take()
    await press.press(msgspec.structs.replace(town.shop, gateways={}), batch)
    assert town.phone.texts_to(peer) == [texts.said("no_gateway", "en")]
    assert await town.orders(peer) == []


async def test_who_has_no_telegram_is_neither_broadcast_to_nor_told_as_staff(town: Town) -> None:
    peer, product = await town.known(), await town.world.product("KEY-1")
    seller = town.world.seller_id
    await town.world.pg.fetch("UPDATE users SET role = 'seller', seller_id = $2 WHERE whatsapp = $1", (peer, seller))
    made = await town.offered(peer, product)
    await town.say(pressed(peer, made.token))
    ((order_id, _),) = await town.orders(peer)
    assert await customers.people(town.world.pg, seller) == []
    assert await customers.suppliers(town.world.pg, order_id) == []
    admin = await town.world.pg.fetch(
        "INSERT INTO users (telegram_id, name, role) VALUES (4242, 'A', 'admin') RETURNING id", ()
    )
    done = await broadcasts.create(town.world.pg, admin[0][0], {"en": "hello", "ru": "привет"}, "all")
    assert done.id is not None
    told = await broadcasts.recipients(town.world.pg, done.id, after=0, size=1000)
    assert [one.telegram_id for one in told] == [4242]
    await town.world.pg.fetch("UPDATE broadcasts SET state = 'cancelled', ended_at = now() WHERE id = $1", (done.id,))
    await town.world.pg.fetch("UPDATE outbox SET state = 'done' WHERE kind = 'broadcast'", ())


async def test_a_line_that_is_off_leaves_the_press_alone(town: Town) -> None:
    peer = await town.known()
    await town.phone.say(picture(peer))
    (batch,) = await town.take()
    await press.press(msgspec.structs.replace(town.shop, lines={}), batch)
    assert town.phone.texts_to(peer) == []


async def test_an_answer_to_a_press_leaves_though_its_worker_stops(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, line = someone(), town.shop.lines["whatsapp"]
    await town.phone.say(picture(peer))
    (batch,) = await town.take()
    gate = Gate(line.say)
    monkeypatch.setattr(line, "say", gate)
    await gate.cut(press.press(town.shop, batch))
    assert town.phone.texts_to(peer) == [ONLY_WORDS]


# ---- words


async def test_words_are_answered_by_the_consultant_with_buttons_that_sell(town: Town) -> None:
    peer = someone()
    await town.world.product("KEY-FOR-WORDS", title="Zeppelin voucher")
    await town.say(Said(sender=peer, name="Ann", text="Do you have a zeppelin voucher?"))
    (message,) = town.phone.sent_to(peer)
    (button,) = message["interactive"]["buttons"]
    assert button["title"] == "Pay 100.00 RUB"
    await town.say(Said(sender=peer, button=button["id"]))
    await town.world.crystalpay.pay(invoice_in(town.phone.texts_to(peer)[-1]))
    await town.settle()
    assert "KEY-FOR-WORDS" in town.phone.texts_to(peer)[-1]


async def test_words_from_a_webhook_of_many_are_each_answered_once_in_their_language(town: Town) -> None:
    said = {someone(): text for text in ("Hello", "Здравствуйте", "Вітаю, що є?")}
    told = [Said(sender=peer, text=text, id=f"wamid.{uuid4()}") for peer, text in said.items()]
    for _ in range(2):
        assert (await town.phone.say_batch([[told, told], [told]])).status == 200
        await town.answer()
    assert [len(town.phone.texts_to(peer)) for peer in said] == [1, 1, 1]
    found = [await town.world.scalar("SELECT language FROM users WHERE whatsapp = $1", peer) for peer in said]
    assert found == ["en", "ru", "uk"]
