"""A scripted user of the simulated Telegram: what they write or press reaches the webhook as Telegram tells it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from aiogram.types import Update
from litestar import Litestar, Request, Response, post

from app.sandbox.serve import running
from app.sandbox.telegram import Telegram
from app.sandbox.telegram_wire import BotError, Say
from tests.world import BOT_TOKEN

CHAT = 1001
PAY = {"inline_keyboard": [[{"text": "Pay", "callback_data": "pay:7"}], [{"text": "Site", "url": "https://x.example"}]]}


class Product:
    """A webhook that answers as the test says, and keeps what came."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.got: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def hook(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        self.got.append(msgspec.json.decode(await request.body()))
        await self.open.wait()
        status, body = self.answers.pop(0) if self.answers else (200, b"")
        return Response(body, status_code=status)


@asynccontextmanager
async def hooked() -> AsyncIterator[tuple[Telegram, Product, httpx.AsyncClient]]:
    api, product = Telegram(BOT_TOKEN), Product()
    async with (
        running(api.app()) as url,
        running(Litestar([post("/hook")(product.hook)], openapi_config=None, logging_config=None)) as shop,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        api.set_webhook({"url": f"{shop}/hook"})
        yield api, product, http


async def test_words_commands_and_pictures_are_updates_that_aiogram_reads() -> None:
    async with hooked() as (_, product, http):
        for say in (
            {"chat_id": CHAT, "text": "Hi", "name": "Zoë <b>", "username": "zoe", "language": "uk"},
            {"chat_id": CHAT, "text": "/start@torg_bot ref_1"},
            {"chat_id": CHAT, "media": "photo", "text": "look"},
            {"chat_id": CHAT, "media": "sticker"},
            {"chat_id": CHAT, "media": "voice", "language": None},
        ):
            told = await http.post("/sandbox/say", json=say)
            assert told.json()["status"] == 200
    updates = [Update.model_validate(update).message for update in product.got]
    words, command, photo, sticker, voice = [message for message in updates if message]
    assert (words.text, words.chat.type, words.chat.id) == ("Hi", "private", CHAT)
    assert words.from_user
    assert (words.from_user.first_name, words.from_user.username) == ("Zoë <b>", "zoe")
    assert words.from_user.language_code == "uk"
    assert command.entities
    assert command.entities[0].extract_from(command.text or "") == "/start@torg_bot"
    assert (photo.caption, bool(photo.photo), bool(sticker.sticker), bool(voice.voice)) == ("look", True, True, True)
    assert voice.from_user
    assert voice.from_user.language_code is None
    assert [update["update_id"] for update in product.got] == [1, 2, 3, 4, 5]


async def test_a_button_comes_back_with_its_message() -> None:
    async with hooked() as (api, product, http):
        for text in ("old", "new"):
            api.send_message({"chat_id": CHAT, "text": text, "reply_markup": PAY})
        shown = await http.get("/sandbox/buttons", params={"chat_id": CHAT})
        assert shown.json() == PAY["inline_keyboard"]
        assert (await http.get("/sandbox/buttons", params={"chat_id": 5})).json() == []
        await http.post("/sandbox/say", json={"chat_id": CHAT, "data": "pay:7"})
        await http.post("/sandbox/say", json={"chat_id": CHAT, "data": "pay:7", "message_id": 1})
        missing = await http.post("/sandbox/say", json={"chat_id": CHAT, "data": "pay:8"})
    queries = [Update.model_validate(update).callback_query for update in product.got]
    assert [query.message.text for query in queries if query] == ["new", "old"]  # type: ignore[union-attr]
    assert [query.data for query in queries if query] == ["pay:7", "pay:7"]
    assert len({query.id for query in queries if query}) == 2
    assert (missing.status_code, "no message" in missing.json()["error"]) == (400, True)


async def test_an_update_that_was_not_taken_comes_again_and_the_next_one_waits() -> None:
    async with hooked() as (api, product, _):
        product.answers = [(503, b""), (500, b"")]
        await asyncio.gather(
            api.say(Say(chat_id=CHAT, text="first", tries=3)), api.say(Say(chat_id=CHAT, text="second"))
        )
    assert [update["message"]["text"] for update in product.got] == ["first"] * 3 + ["second"]
    assert len({update["update_id"] for update in product.got}) == 2


async def test_chats_do_not_wait_for_each_other() -> None:
    async with hooked() as (api, product, _):
        product.open.clear()
        both = asyncio.gather(api.say(Say(chat_id=1, text="a")), api.say(Say(chat_id=2, text="b")))
        async with asyncio.timeout(5):
            while len(product.got) < 2:  # noqa: ASYNC110  (both wait inside the webhook)
                await asyncio.sleep(0.005)
        product.open.set()
        await both


async def test_a_method_in_the_webhooks_answer_is_performed_and_its_result_goes_nowhere() -> None:
    text = "Hello " * 300  # more than a journal's line
    reply = {"method": "sendMessage", "chat_id": CHAT, "text": text}
    async with hooked() as (api, product, _):
        product.answers = [
            (200, msgspec.json.encode(reply)),
            (200, b'{"method":"sendRocket"}'),
            (200, b"[]"),
            (200, b"no json"),
            (500, msgspec.json.encode(reply)),
        ]
        for _ in range(5):
            await api.say(Say(chat_id=CHAT, text="Hi"))
    assert [message["text"] for message in api.sent_to(CHAT)] == [text]
    assert [(e.name, e.status) for e in api.entries("request")] == [("sendMessage", 200), ("sendRocket", 404)]


async def test_a_bot_without_a_webhook_hears_nothing() -> None:
    async with running(Telegram(BOT_TOKEN).app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.post("/sandbox/say", json={"chat_id": CHAT, "text": "Hi"})).status_code == 400
        assert (await http.post("/sandbox/say", json={"chat_id": CHAT, "nonsense": 1})).status_code == 400


# ---- drafts


async def draft(http: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    told: dict[str, Any] = (await http.post(f"/bot{BOT_TOKEN}/sendMessageDraft", json=params)).json()
    return told


async def test_a_draft_is_shown_until_a_message_comes_and_is_no_message() -> None:
    async with hooked() as (api, _, http):
        for text in ("", "Loo", "<b>Look</b>"):
            told = await draft(http, chat_id=CHAT, draft_id=7, text=text, parse_mode="HTML")
            assert told == {"ok": True, "result": True}
        assert api.drafting[CHAT] == {"draft_id": 7, "text": "Look"}
        assert api.sent_to(CHAT) == []
        api.send_message({"chat_id": CHAT, "text": "Looked"})
        assert api.drafting == {}
        shown = (await http.get("/sandbox/drafts", params={"chat_id": CHAT})).json()
        assert [one["text"] for one in shown] == ["", "Loo", "Look"]


@pytest.mark.parametrize(
    "params",
    [
        {"chat_id": -100, "draft_id": 7, "text": "x"},
        {"chat_id": CHAT, "draft_id": 0, "text": "x"},
        {"chat_id": CHAT, "text": "x"},
        {"chat_id": CHAT, "draft_id": 7, "text": "x" * 4097},
        {"chat_id": CHAT, "draft_id": 7, "text": "<b>x", "parse_mode": "HTML"},
    ],
)
async def test_a_bad_draft_is_400(params: dict[str, Any]) -> None:
    async with hooked() as (api, _, http):
        assert (await draft(http, **params))["error_code"] == 400
        assert api.drafts == {}


async def test_a_deleted_message_is_gone() -> None:
    async with hooked() as (api, _, http):
        api.send_message({"chat_id": CHAT, "text": "x"})
        for ok in (True, False):
            told = await http.post(f"/bot{BOT_TOKEN}/deleteMessage", json={"chat_id": CHAT, "message_id": 1})
            assert told.json()["ok"] is ok
        assert api.sent_to(CHAT) == []
        with pytest.raises(BotError, match="message to delete not found"):
            api.delete_message({"chat_id": CHAT})
