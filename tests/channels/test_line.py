"""The Telegram line: a reply is seen growing, ends as one message with its pay buttons, and is never said twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from app.base import prose
from app.channels.line import Offer
from app.channels.telegram import line as lines
from app.channels.telegram.line import TelegramLine
from app.domain import circuits, pace
from app.errors import ProviderDown
from app.infra.messenger import Careful, Sent
from app.infra.pipe import Pipe
from app.infra.telegram import Telegram
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram as Simulator
from app.sandbox.telegram_wire import BotFault
from tests.web.listening import until
from tests.world import BOT_TOKEN

CHAT, PEER = 1001, "1001"
TURN = UUID(int=7 << 64 | 9)
TOKEN = "t" * 56
OFFER = Offer(product_id=3, title="Key", quantity=1, price_minor=1250, currency="USD", token=TOKEN)


@pytest.fixture
def api() -> Simulator:
    return Simulator(BOT_TOKEN)


@asynccontextmanager
async def opened(api: Simulator, redis: Pipe, rates: str = "*=1000000/1") -> AsyncIterator[TelegramLine]:
    """A line as the shop has it: at a pace, behind a circuit, on the real adapter."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running(api.app()))
        telegram = Telegram(BOT_TOKEN, url, timeout_ms=1000)
        stack.push_async_callback(telegram.close)
        keep = pace.Pace(redis, pace.rates(rates))
        known = circuits.Circuits(redis, circuits.rules("3/30"), lease_ms=1000)

        async def left(chat_id: int) -> None:
            return None

        yield TelegramLine(
            Careful(
                telegram,
                turn=lambda chat_id: keep.turn(chat_id, "news"),
                room=lambda chat_id: keep.turn(chat_id, "draft"),
                stop=keep.stop,
                calling=lambda: known.calling(circuits.TELEGRAM),
                alone=lambda: known.alone(circuits.TELEGRAM),
                left=left,
            )
        )
        await known.errands.finish()


@pytest.fixture
async def line(api: Simulator, redis: Pipe, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TelegramLine]:
    for name, value in (("FIRST_S", 0.0), ("DRAFT_EVERY_S", 0.01), ("EDIT_EVERY_S", 0.01)):
        monkeypatch.setattr(lines, name, value)
    async with opened(api, redis) as made:
        yield made


async def seen(api: Simulator, method: str, text: str) -> None:
    """Until the simulator has answered this call with this text in it."""
    await until(lambda: any(text in str(e.given.get("text")) and e.status for e in api.entries(name=method)))


def texts(api: Simulator) -> list[str]:
    return [message["text"] for message in api.sent_to(CHAT)]


async def test_a_reply_has_a_pay_button_for_its_offer(line: TelegramLine, api: Simulator) -> None:
    assert await line.say(PEER, "ru", "Вот ключ", [OFFER]) is Sent.DELIVERED
    (message,) = api.sent_to(CHAT)
    assert message["text"] == "Вот ключ"
    assert message["reply_markup"]["inline_keyboard"] == [
        [{"text": "Оплатить 12.50 USD", "callback_data": f"pay:{TOKEN}"}]
    ]


async def test_several_offers_say_of_what_each_is(line: TelegramLine, api: Simulator) -> None:
    other = Offer(product_id=4, title="\u202eRTL\n<b>" + "x" * 90, quantity=2, price_minor=5, currency="RUB", token="o")
    await line.say(PEER, "en", "Two", [OFFER, other])
    labels = [row[0]["text"] for row in api.sent_to(CHAT)[0]["reply_markup"]["inline_keyboard"]]
    assert labels == ["Key · Pay 12.50 USD", f"RTL <b>{'x' * 24}… · Pay 0.05 RUB"]


async def test_a_long_reply_is_several_messages_and_the_last_has_the_buttons(
    line: TelegramLine, api: Simulator
) -> None:
    text = "\n".join(f"line {n} 🙂" for n in range(900))
    await line.say(PEER, "en", text, [OFFER])
    sent = api.sent_to(CHAT)
    assert len(sent) == 3
    assert "\n".join(message["text"] for message in sent) == text
    assert [("reply_markup" in message) for message in sent] == [False, False, True]
    assert all(prose.units(message["text"]) <= 4096 for message in sent)


async def test_a_reply_that_breaks_off_in_its_middle_is_unsure(line: TelegramLine, api: Simulator) -> None:
    async def second_is_refused() -> None:
        await seen(api, "sendMessage", "x")
        api.faults.append(BotFault(on="sendMessage", retry_after_s=30))

    waiting = asyncio.create_task(second_is_refused())
    api.faults.append(BotFault(on="sendMessage", hold_ms=200))
    with pytest.raises(ProviderDown) as caught:
        await line.say(PEER, "en", "x" * 5000)
    await waiting
    assert caught.value.unsure
    assert caught.value.retry_after_s == 30


# ---- drafts


async def test_a_draft_grows_and_the_reply_ends_it(line: TelegramLine, api: Simulator) -> None:
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    await seen(api, "sendMessageDraft", "Look")
    assert texts(api) == []
    draft.show("Looking for")
    await seen(api, "sendMessageDraft", "Looking for")
    assert await draft.finish("en", "Looking for a key", [OFFER]) is Sent.DELIVERED
    await draft.close()
    assert texts(api) == ["Looking for a key"]
    assert [one["text"] for one in api.drafts[CHAT]] == ["Look", "Looking for"]
    assert len({one["draft_id"] for one in api.drafts[CHAT]}) == 1
    assert api.drafting == {}
    assert api.entries(name="editMessageText") == []


async def test_a_draft_has_the_same_id_for_every_worker_of_its_turn_and_is_never_0(line: TelegramLine) -> None:
    assert line.draft(PEER, TURN).draft_id == line.draft(PEER, TURN).draft_id != line.draft(PEER, UUID(int=1)).draft_id
    assert line.draft(PEER, UUID(int=0)).draft_id > 0


async def test_pieces_that_come_faster_than_the_pace_are_shown_together(
    line: TelegramLine, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "DRAFT_EVERY_S", 0.2)
    draft = line.draft(PEER, TURN)
    for n in range(1, 101):
        draft.show("x" * n)
        await asyncio.sleep(0.005)
    await draft.finish("en", "done")
    assert 2 <= len(api.drafts[CHAT]) <= 6  # a second at the most, at five a second
    assert texts(api) == ["done"]


async def test_a_reply_that_is_there_at_once_is_not_shown_growing(
    line: TelegramLine, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "FIRST_S", 5.0)
    draft = line.draft(PEER, TURN)
    draft.show("Hello")
    await draft.finish("en", "Hello")
    assert [entry.name for entry in api.log] == ["sendMessage"]


async def test_a_draft_that_is_given_up_leaves_nothing(line: TelegramLine, api: Simulator) -> None:
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    await seen(api, "sendMessageDraft", "Look")
    await draft.close()
    draft.show("Looking")
    assert texts(api) == []
    assert len(api.entries()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        BotFault(on="sendMessageDraft", status=502, times=None),
        BotFault(on="sendMessageDraft", wait_ms=5000, times=None),
    ],
    ids=["502", "hangs"],
)
async def test_drafts_that_fail_cost_nobody_a_reply(line: TelegramLine, api: Simulator, fault: BotFault) -> None:
    """Five turns with the circuit at three failures: were drafts counted, the messages would stop."""
    api.faults.append(fault)
    for n in range(5):
        draft = line.draft(PEER, UUID(int=n))
        draft.show("Look")
        await seen_any(api, "sendMessageDraft", n + 1)
        assert await draft.finish("en", f"reply {n}") is Sent.DELIVERED
    assert texts(api) == [f"reply {n}" for n in range(5)]


async def seen_any(api: Simulator, method: str, most: int) -> None:
    await until(lambda: len(api.entries(name=method)) >= most)


async def test_a_defect_in_showing_costs_nobody_a_reply(
    line: TelegramLine, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> Sent:
        raise ValueError("a defect")

    monkeypatch.setattr(line.messenger, "draft", broken)
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    async with asyncio.timeout(5):
        await draft.ended.wait()
    await draft.finish("en", "whole")
    assert texts(api) == ["whole"]


async def test_the_pause_that_telegram_asks_for_ends_the_draft_and_is_kept(line: TelegramLine, api: Simulator) -> None:
    api.faults.append(BotFault(on="sendMessageDraft", retry_after_s=30))
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    await seen(api, "sendMessageDraft", "Look")
    with pytest.raises(ProviderDown) as caught:
        await draft.finish("en", "whole")
    assert not caught.value.unsure
    assert (caught.value.retry_after_s or 0) >= 29
    assert texts(api) == []


async def test_a_draft_takes_no_place_of_its_chats_messages(api: Simulator, redis: Pipe) -> None:
    async with opened(api, redis, "") as slow:
        for n in range(3):
            draft = slow.draft(PEER, UUID(int=n))
            draft.show("Look")
            await seen_any(api, "sendMessageDraft", n + 1)
            await draft.finish("en", f"reply {n}")
    assert texts(api) == ["reply 0", "reply 1", "reply 2"]


# ---- where drafts are refused


async def refused(line: TelegramLine, api: Simulator, *, status: int = 400) -> lines.Growing:
    """A draft whose first piece stands in the chat as a message."""
    api.faults.append(BotFault(on="sendMessageDraft", status=status, description="Bad Request: no drafts", times=None))
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    await seen(api, "sendMessage", "Look")
    return draft


@pytest.mark.parametrize("status", [400, 404])
async def test_a_chat_without_drafts_sees_a_message_that_grows_into_the_reply(
    line: TelegramLine, api: Simulator, status: int
) -> None:
    draft = await refused(line, api, status=status)
    assert texts(api) == ["Look …"]
    assert [e.name for e in api.entries()] == ["sendMessageDraft", "sendChatAction", "sendMessage"]
    draft.show("Looking for")
    await seen(api, "editMessageText", "Looking for …")
    assert await draft.finish("en", "Looking for a key", [OFFER]) is Sent.DELIVERED
    await draft.close()
    (message,) = api.sent_to(CHAT)
    assert message["text"] == "Looking for a key"
    assert message["reply_markup"]["inline_keyboard"][0][0]["callback_data"] == f"pay:{TOKEN}"
    # And no draft is tried there again.
    after = line.draft(PEER, UUID(int=1))
    after.show("Again")
    await seen(api, "sendMessage", "Again …")
    await after.finish("en", "Again, whole")
    assert len(api.entries(name="sendMessageDraft")) == 1
    assert texts(api) == ["Looking for a key", "Again, whole"]


async def test_a_grown_message_that_its_reader_has_deleted_is_said_anew(line: TelegramLine, api: Simulator) -> None:
    draft = await refused(line, api)
    api.messages[CHAT].clear()
    assert await draft.finish("en", "whole") is Sent.DELIVERED
    assert texts(api) == ["whole"]


async def test_a_grown_message_that_is_whole_already_is_the_reply(line: TelegramLine, api: Simulator) -> None:
    draft = await refused(line, api)
    api.messages[CHAT][0]["text"] = "Look"
    assert await draft.finish("en", "Look") is Sent.DELIVERED
    assert texts(api) == ["Look"]


async def test_a_grown_message_whose_reply_is_not_to_be_said_is_erased(line: TelegramLine, api: Simulator) -> None:
    draft = await refused(line, api)
    await draft.close()
    assert texts(api) == []


async def test_a_first_message_that_nobody_answered_for_is_followed_by_the_whole_reply(
    line: TelegramLine, api: Simulator
) -> None:
    """It may be there, unfinished and without buttons; the reply is there once."""
    api.faults.append(BotFault(on="sendMessageDraft", status=404, times=None))
    api.faults.append(BotFault(on="sendMessage", status=502, after=True))
    draft = line.draft(PEER, TURN)
    draft.show("Look")
    await seen(api, "sendMessage", "Look")
    assert await draft.finish("en", "whole", [OFFER]) is Sent.DELIVERED
    assert texts(api) == ["Look …", "whole"]
    assert [("reply_markup" in message) for message in api.sent_to(CHAT)] == [False, True]


async def test_a_worker_that_is_killed_leaves_an_unfinished_piece_and_the_next_one_says_one_reply(
    line: TelegramLine, api: Simulator
) -> None:
    killed = await refused(line, api)
    assert killed.task
    killed.task.cancel()  # neither finished nor closed
    next_one = TelegramLine(line.messenger).draft(PEER, TURN)
    assert await next_one.finish("en", "whole", [OFFER]) is Sent.DELIVERED
    assert texts(api) == ["Look …", "whole"]
    assert [("reply_markup" in message) for message in api.sent_to(CHAT)] == [False, True]


async def test_the_last_edit_that_telegram_puts_off_can_be_made_later(line: TelegramLine, api: Simulator) -> None:
    draft = await refused(line, api)
    api.faults.append(BotFault(on="editMessageText", status=401))
    with pytest.raises(ProviderDown) as caught:
        await draft.finish("en", "whole")
    assert not caught.value.unsure
    assert await draft.finish("en", "whole") is Sent.DELIVERED
    assert texts(api) == ["whole"]


async def test_chats_without_drafts_are_bounded(line: TelegramLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "REMEMBERED", 2)
    for chat_id in (1, 2, 3):
        line.refused_draft(chat_id)
    assert list(line.draftless) == [2, 3]
