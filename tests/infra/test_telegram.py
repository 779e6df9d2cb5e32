"""A message to a buyer ends in one of three ways or is tried again; the bot's token is in no error."""

import traceback
from collections.abc import AsyncIterator

import pytest

from app.errors import ProviderDown
from app.infra.messenger import Button, Late, Posted, Sent
from app.infra.telegram import Telegram
from app.sandbox.serve import running
from app.sandbox.telegram import Telegram as Simulator
from app.sandbox.telegram_wire import BotFault
from tests.world import BOT_TOKEN

CHAT = 1001


@pytest.fixture
def api() -> Simulator:
    return Simulator(BOT_TOKEN)


@pytest.fixture
async def telegram(api: Simulator) -> AsyncIterator[Telegram]:
    async with running(api.app()) as url:
        telegram = Telegram(BOT_TOKEN, url, timeout_ms=2000)
        yield telegram
        await telegram.close()


async def test_a_message_arrives_as_it_is(telegram: Telegram, api: Simulator) -> None:
    text = "Order 7 <b>is</b> *here* _now_\nKEY-1 & 🙂"
    assert await telegram.send(CHAT, text) is Sent.DELIVERED
    (message,) = api.sent_to(CHAT)
    assert message["text"] == text
    assert "entities" not in message


async def test_a_user_who_stopped_the_bot_is_not_told(telegram: Telegram, api: Simulator) -> None:
    api.blocked.add(CHAT)
    assert await telegram.send(CHAT, "hello") is Sent.BLOCKED


async def test_a_chat_that_is_not_there_is_not_told(telegram: Telegram, api: Simulator) -> None:
    api.missing.add(CHAT)
    assert await telegram.send(CHAT, "hello") is Sent.BLOCKED


@pytest.mark.parametrize("text", ["", " ", "x" * 4097])
async def test_a_message_that_telegram_refuses_is_refused(telegram: Telegram, text: str) -> None:
    assert await telegram.send(CHAT, text) is Sent.REFUSED


async def test_telegrams_own_wait_is_kept(telegram: Telegram, api: Simulator) -> None:
    api.faults.append(BotFault(on="sendMessage", retry_after_s=17))
    with pytest.raises(ProviderDown) as caught:
        await telegram.send(CHAT, "hello")
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    "fault",
    [
        BotFault(status=500),
        BotFault(status=502, body="<html>Bad Gateway</html>", content_type="text/html"),
        BotFault(status=200, body="<html>hello</html>", content_type="text/html"),
        BotFault(status=200, body="{}"),
        BotFault(status=200, body='{"ok":true,"result":"what?"}'),
        BotFault(status=401),
        BotFault(status=409, description="Conflict"),
        BotFault(wait_ms=20_000),
    ],
    ids=["500", "502 HTML", "200 HTML", "no ok", "no message", "401", "409", "hangs"],
)
async def test_any_other_failure_is_tried_again_and_tells_no_token(
    telegram: Telegram, api: Simulator, fault: BotFault
) -> None:
    api.faults.append(fault)
    with pytest.raises(ProviderDown) as caught:
        await telegram.send(CHAT, "hello")
    tells_no_token(caught.value)
    assert await telegram.send(CHAT, "again") is Sent.DELIVERED


async def test_a_server_that_is_not_there_tells_no_token() -> None:
    telegram = Telegram(BOT_TOKEN, "http://127.0.0.1:9", timeout_ms=500)
    with pytest.raises(ProviderDown) as caught:
        await telegram.send(CHAT, "hello")
    tells_no_token(caught.value)
    await telegram.close()


def tells_no_token(error: BaseException) -> None:
    """Neither its text nor whatever a log would write of it and of what it came from."""
    written = "".join(traceback.format_exception(error)) + repr(error)
    assert BOT_TOKEN not in written
    assert BOT_TOKEN.partition(":")[2] not in written


async def test_a_late_messenger_sends_once_it_is_made(telegram: Telegram, api: Simulator) -> None:
    late = Late(lambda: telegram)
    assert await late.send(CHAT, "hello") is Sent.DELIVERED
    assert len(api.sent_to(CHAT)) == 1


async def test_a_messenger_that_could_not_be_made_fails_every_send_and_can_be_closed() -> None:
    def broken() -> Telegram:
        raise ValueError("no token")

    late = Late(broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="no token"):
            await late.send(CHAT, "hello")


# ---- what a conversation needs


async def test_buttons_do_what_they_say(telegram: Telegram, api: Simulator) -> None:
    rows = [
        [Button("Pay", data="pay:" + "t" * 56), Button("Site", url="https://shop.example/?a=1&b=2")],
        [],
        [Button("Shop", app="https://shop.example")],
    ]
    posted = await telegram.post(CHAT, "x", rows)
    assert posted == Posted(Sent.DELIVERED, 1)
    assert api.sent_to(CHAT)[0]["reply_markup"] == {
        "inline_keyboard": [
            [
                {"text": "Pay", "callback_data": "pay:" + "t" * 56},
                {"text": "Site", "url": "https://shop.example/?a=1&b=2"},
            ],
            [{"text": "Shop", "web_app": {"url": "https://shop.example"}}],
        ]
    }
    assert await telegram.post(CHAT, "x", [[Button("Long", data="d" * 65)]]) == Posted(Sent.REFUSED)


async def test_a_message_is_edited_and_erased(telegram: Telegram, api: Simulator) -> None:
    message_id = (await telegram.post(CHAT, "one", [[Button("Go", data="go")]])).message_id
    assert await telegram.edit(CHAT, message_id, "two") is Sent.DELIVERED
    assert await telegram.edit(CHAT, message_id, "two") is Sent.DELIVERED  # it says that already
    assert [(m["text"], "reply_markup" in m) for m in api.sent_to(CHAT)] == [("two", False)]
    assert await telegram.erase(CHAT, message_id) is Sent.DELIVERED
    assert await telegram.erase(CHAT, message_id) is Sent.REFUSED
    assert await telegram.edit(CHAT, message_id, "three") is Sent.REFUSED


async def test_drafts_and_typing(telegram: Telegram, api: Simulator) -> None:
    assert await telegram.draft(CHAT, 7, "grow") is Sent.DELIVERED
    assert await telegram.draft(CHAT, 7, "") is Sent.DELIVERED
    assert await telegram.draft(-100, 7, "x") is Sent.REFUSED
    assert await telegram.typing(CHAT) is Sent.DELIVERED
    api.blocked.add(CHAT)
    assert await telegram.typing(CHAT) is Sent.BLOCKED
    assert [entry.name for entry in api.log][-2:] == ["sendChatAction", "sendChatAction"]


@pytest.mark.parametrize(
    ("fault", "unsure"),
    [
        (BotFault(status=500), True),
        (BotFault(status=502, after=True), True),
        (BotFault(status=200, body="<html>", content_type="text/html"), True),
        (BotFault(hold_ms=20_000), True),
        (BotFault(retry_after_s=3), False),
        (BotFault(status=401), False),
        (BotFault(status=409, description="Conflict"), False),
    ],
    ids=["500", "502 after", "HTML", "hangs", "429", "401", "409"],
)
async def test_a_failure_tells_whether_the_message_may_be_there(
    telegram: Telegram, api: Simulator, fault: BotFault, unsure: bool
) -> None:
    api.faults.append(fault)
    with pytest.raises(ProviderDown) as caught:
        await telegram.post(CHAT, "hello")
    assert caught.value.unsure is unsure


async def test_a_server_that_takes_no_connection_has_surely_not_sent() -> None:
    telegram = Telegram(BOT_TOKEN, "http://127.0.0.1:9", timeout_ms=500)
    with pytest.raises(ProviderDown) as caught:
        await telegram.post(CHAT, "hello")
    assert not caught.value.unsure
    await telegram.close()


async def test_a_late_messenger_passes_everything_on(telegram: Telegram, api: Simulator) -> None:
    late = Late(lambda: telegram)
    posted = await late.post(CHAT, "one", [[Button("Go", data="go")]])
    await late.edit(CHAT, posted.message_id, "two", growing=True)
    await late.draft(CHAT, 7, "grow")
    await late.typing(CHAT)
    await late.erase(CHAT, posted.message_id)
    assert [entry.name for entry in api.log] == [
        "sendMessage", "editMessageText", "sendMessageDraft", "sendChatAction", "deleteMessage",
    ]  # fmt: skip
