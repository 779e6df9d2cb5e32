"""WhatsApp's window of a day: what is sent outside it, and what becomes of news and goods that met it closed."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from app.base import clock
from app.channels.line import Offer
from app.channels.whatsapp.line import WhatsAppLine
from app.errors import PostgresDown, ProviderDown
from app.flows import notify
from app.flows.offer import offer
from app.infra.embedded import Servers
from app.sandbox.whatsapp_wire import GraphFault, Said
from tests.flows.town import Town, built, invoice_in, picture, pressed, someone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(servers: Servers, template: str) -> AsyncIterator[Town]:
    async with built(servers, template, "whatsapp_window", 8) as town:
        yield town


@pytest_asyncio.fixture(loop_scope="module")
async def town(shared: Town) -> Town:
    await shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bought(town: Town, peer: str) -> Any:
    """An order that is paid, and whose goods are still to be told."""
    product = await town.world.product("KEY-LATE")
    made = await town.offered(peer, product)
    await town.say(pressed(peer, made.token))
    invoice = invoice_in(town.phone.texts_to(peer)[-1])
    town.phone.messages[peer].clear()
    await town.silent(peer, 25)
    await town.world.crystalpay.pay(invoice)
    await town.settle()
    ((order_id, status),) = await town.orders(peer)
    assert status == "delivered"
    return order_id


async def tell_of(town: Town, order_id: Any) -> tuple[str, int]:
    query = (
        "SELECT state, extract(epoch FROM run_at - now())::int8 FROM outbox WHERE aggregate = $1 ORDER BY id LIMIT 1"
    )
    (row,) = await town.world.pg.fetch(query, (f"tell:{order_id}",))
    return row[0], row[1]


async def test_news_wait_outside_the_window_and_come_when_the_buyer_writes(town: Town) -> None:
    peer = await town.known()
    order_id = await bought(town, peer)
    assert town.phone.texts_to(peer) == []
    state, wait_s = await tell_of(town, order_id)
    assert (state, notify.WAIT_S - 60 < wait_s <= notify.WAIT_S) == ("owed", True)
    await town.say(picture(peer))
    assert sorted("KEY-LATE" in text for text in town.phone.texts_to(peer)) == [False, True]
    assert (await tell_of(town, order_id))[0] == "done"
    await town.say(picture(peer))
    assert sum("KEY-LATE" in text for text in town.phone.texts_to(peer)) == 1


@pytest.mark.parametrize("what", [{"text": "hello?"}, {"type": "image"}])
async def test_what_was_written_days_ago_opens_no_window(town: Town, what: dict[str, str]) -> None:
    peer = await town.known()
    order_id = await bought(town, peer)
    calls = len(town.phone.entries("request"))
    town.phone.heard_s[peer] = clock.unix_s() - 3 * 86_400
    await town.phone.say(Said(sender=peer, at_s=clock.unix_s() - 3 * 86_400, **what))  # Meta could not reach us
    await town.answer()
    assert len(town.phone.entries("request")) == calls
    assert (await tell_of(town, order_id))[0] == "owed"
    await town.say(picture(peer))
    assert any("KEY-LATE" in text for text in town.phone.texts_to(peer))


async def aged(town: Town, peer: str) -> Any:
    """News that have waited for two weeks."""
    order_id = await bought(town, peer)
    await town.world.pg.fetch(
        "UPDATE outbox SET run_at = now(), attempts = $2 WHERE aggregate = $1", (f"tell:{order_id}", notify.WAITS)
    )
    return order_id


async def test_goods_that_nobody_came_for_are_a_dead_letter_that_can_be_replayed(town: Town) -> None:
    peer = await town.known()
    order_id = await aged(town, peer)
    await town.settle()
    assert (await tell_of(town, order_id))[0] == "dead"
    assert town.phone.texts_to(peer) == []


async def test_other_news_are_given_up_after_two_weeks(town: Town) -> None:
    peer = await town.known()
    order_id = await aged(town, peer)
    await town.world.pg.fetch(
        'UPDATE outbox SET payload = payload || \'{"status": "moved_completed"}\' WHERE aggregate = $1',
        (f"tell:{order_id}",),
    )
    await town.settle()
    assert (await tell_of(town, order_id))[0] == "done"
    assert town.phone.texts_to(peer) == []


async def test_goods_that_meta_refuses_come_again(town: Town) -> None:
    peer = await town.known()
    order_id = await bought(town, peer)
    town.phone.faults.append(GraphFault(code=131047, to=peer))
    await town.silent(peer, 1)
    await town.world.pg.fetch("UPDATE outbox SET run_at = now() WHERE aggregate = $1", (f"tell:{order_id}",))
    await town.settle()
    assert (await tell_of(town, order_id))[0] == "owed"
    await town.world.pg.fetch("UPDATE outbox SET run_at = now() WHERE aggregate = $1", (f"tell:{order_id}",))
    await town.settle()
    assert [("KEY-LATE" in text) for text in town.phone.texts_to(peer)] == [True]


async def test_many_goods_fill_as_many_messages_as_they_need(town: Town) -> None:
    peer = await town.known()
    product = await town.world.product("A" * 4000 + "-FIRST", "B" * 4000 + "-SECOND")
    made = await offer(town.shop, await town.user(peer), product, 2)
    assert isinstance(made, Offer)
    await town.say(pressed(peer, made.token))
    await town.world.crystalpay.pay(invoice_in(town.phone.texts_to(peer)[0]))
    await town.settle()
    told = "".join(town.phone.texts_to(peer)[1:])
    assert "A-FIRST" in told
    assert "B-SECOND" in told


async def test_nothing_is_sent_to_who_was_silent_for_a_day_or_never_wrote(town: Town) -> None:
    peer, line = await town.known(), town.shop.lines["whatsapp"]
    assert isinstance(line, WhatsAppLine)
    calls = len(town.phone.entries("request"))
    await town.silent(peer, 24)
    assert (await line.say(peer, "en", "hello")).name == "REFUSED"
    assert (await line.say(someone(), "en", "hello")).name == "REFUSED"
    assert len(town.phone.entries("request")) == calls
    await town.silent(peer, 23)
    assert (await line.say(peer, "en", "hello")).name == "DELIVERED"


async def test_the_window_is_asked_for_once_as_long_as_it_is_open(town: Town) -> None:
    asked: list[str] = []
    reopened: list[str] = []
    peer, real = someone(), town.shop.lines["whatsapp"]
    at = [clock.now()]

    async def heard(peer: str) -> Any:
        asked.append(peer)
        return at[0]

    town.phone.heard_s[peer] = clock.unix_s()
    line = WhatsAppLine(real.phone, heard=heard, reopened=reopened.append, calling=real.calling)
    for _ in range(3):
        await line.draft(peer, uuid4()).finish("en", "hello")
    assert (asked, reopened) == ([peer], [peer])
    line._until[peer] = clock.now()  # a day later
    at[0] -= timedelta(days=2)
    assert (await line.say(peer, "en", "hello")).name == "REFUSED"
    assert (asked, reopened) == ([peer, peer], [peer])


@pytest.mark.parametrize("what", ["words", "picture"])
async def test_a_reply_whose_window_could_not_be_looked_up_is_sent_by_the_next_try(
    town: Town, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    peer, line = someone(), town.shop.lines["whatsapp"]
    heard, failures = line.heard, [PostgresDown("the connection was cut")]

    async def failing(peer: str) -> Any:
        if failures:
            raise failures.pop()
        return await heard(peer)

    monkeypatch.setattr(line, "heard", failing)
    await town.phone.say(picture(peer) if what == "picture" else Said(sender=peer, text="hello"))
    (batch,) = await town.take()
    for tries in range(2):
        assert len(town.phone.texts_to(peer)) == 0, tries
        await town.talk._work_on(town.shop, batch)
    assert (failures, len(town.phone.texts_to(peer))) == ([], 1)


async def test_a_reply_that_breaks_off_in_the_middle_is_not_said_again(town: Town) -> None:
    peer, line = await town.known(), town.shop.lines["whatsapp"]
    long = "\n".join(f"line {n}" for n in range(1000))
    town.phone.faults += [GraphFault(on="nothing"), GraphFault(code=131056, to=peer)]
    with pytest.raises(ProviderDown) as caught:
        await line.say(peer, "en", long)
    assert not caught.value.unsure
    assert town.phone.texts_to(peer) == []

    class Breaking:
        """The second message meets Meta's limit."""

        def __init__(self) -> None:
            self.sent = 0

        async def text(self, to: str, text: str) -> Any:
            self.sent += 1
            if self.sent == 2:
                raise ProviderDown("too fast", retry_after_s=6)
            return await line.phone.text(to, text)

        async def ask(self, to: str, text: str, buttons: Any) -> Any: ...

    broken = WhatsAppLine(Breaking(), heard=line.heard, reopened=line.reopened, calling=line.calling)
    with pytest.raises(ProviderDown) as caught:
        await broken.say(peer, "en", long)
    assert (caught.value.unsure, len(town.phone.texts_to(peer))) == (True, 1)
