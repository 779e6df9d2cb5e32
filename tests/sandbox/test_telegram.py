"""The Bot API simulator satisfies aiogram and httpx alike, and misbehaves exactly as ordered."""

import asyncio
import hashlib
import hmac
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx
import msgspec
import pytest
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup
from aiogram.utils.web_app import safe_parse_webapp_init_data
from litestar import Litestar, Request, Response, post

from app.sandbox.initdata import sign_init_data
from app.sandbox.serve import make, running
from app.sandbox.telegram import Telegram
from app.sandbox.telegram_wire import BotError, BotFault

TOKEN = "424242:AAsandboxTOKEN"
CHAT = 1001


class World(msgspec.Struct):
    """A running Bot API, aiogram's bot and a plain client on it."""

    api: Telegram
    url: str
    bot: Bot
    http: httpx.AsyncClient

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        told: dict[str, Any] = (await self.http.post(f"/bot{TOKEN}/{method}", json=params)).json()
        return told


@pytest.fixture
async def world() -> AsyncIterator[World]:
    api = Telegram(TOKEN)
    async with running(api.app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        bot = Bot(TOKEN, session=AiohttpSession(api=TelegramAPIServer.from_base(url)))
        yield World(api, url, bot, http)
        await bot.session.close()


async def test_aiogram_knows_the_bot(world: World) -> None:
    me = await world.bot.get_me()
    assert (me.id, me.is_bot, me.username) == (424242, True, "torg_sandbox_bot")


async def test_aiogram_sends_and_edits(world: World) -> None:
    keys = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Pay", callback_data="pay:7")]])
    sent = await world.bot.send_message(CHAT, "Hello <b>you</b> 🙂", parse_mode="HTML", reply_markup=keys)
    assert (sent.message_id, sent.chat.id, sent.chat.type, sent.text) == (1, CHAT, "private", "Hello you 🙂")
    assert sent.entities is not None
    assert [(e.type, e.offset, e.length) for e in sent.entities] == [("bold", 6, 3)]
    assert sent.reply_markup is not None
    assert sent.reply_markup.model_dump() == keys.model_dump()
    assert sent.from_user is not None
    assert sent.from_user.is_bot
    edited = await world.bot.edit_message_text("Bye", chat_id=CHAT, message_id=sent.message_id)
    assert not isinstance(edited, bool)
    assert (edited.message_id, edited.text, edited.entities, edited.reply_markup) == (1, "Bye", None, None)
    assert edited.edit_date is not None
    assert (await world.bot.send_message(-1001234, "Group")).chat.type == "supergroup"
    assert [m["message_id"] for m in world.api.sent_to(CHAT)] == [1]
    assert [m["text"] for m in world.api.sent_to(-1001234)] == ["Group"]


async def test_aiogram_other_methods_are_true(world: World) -> None:
    assert await world.bot.send_chat_action(CHAT, "typing") is True
    assert await world.bot.answer_callback_query("77", text="Done") is True
    assert await world.bot.set_webhook("https://shop.example/hook", secret_token="s_1-A", allowed_updates=["message"])
    info = await world.bot.get_webhook_info()
    assert (info.url, info.allowed_updates, info.max_connections) == ("https://shop.example/hook", ["message"], 40)
    assert world.api.webhook is not None
    assert world.api.webhook.secret_token == "s_1-A"
    assert await world.bot.delete_webhook() is True
    assert (await world.bot.get_webhook_info()).url == ""


async def test_parameters_come_in_any_of_the_documented_ways(world: World) -> None:
    path = f"/bot{TOKEN}/sendMessage"
    keys = {"inline_keyboard": [[{"text": "Go", "url": "https://shop.example"}]]}
    as_text = json.dumps(keys)
    answers = [
        await world.http.get(path, params={"chat_id": CHAT, "text": "a & ü", "reply_markup": as_text}),
        await world.http.post(path, json={"chat_id": CHAT, "text": "a & ü", "reply_markup": keys}),
        await world.http.post(path, data={"chat_id": str(CHAT), "text": "a & ü", "reply_markup": as_text}),
        await world.http.post(
            path, files={"chat_id": (None, str(CHAT)), "text": (None, "a & ü"), "reply_markup": (None, as_text)}
        ),
        await world.http.post(
            f"/bot{TOKEN}/SENDMESSAGE", json={"chat_id": str(CHAT), "text": "a & ü", "reply_markup": keys}
        ),
    ]
    assert [answer.json()["ok"] for answer in answers] == [True] * 5
    assert [answer.json()["result"]["message_id"] for answer in answers] == [1, 2, 3, 4, 5]
    shown = (await world.http.get("/sandbox/messages", params={"chat_id": CHAT})).json()
    assert [(m["text"], m["reply_markup"]) for m in shown] == [("a & ü", keys)] * 5


async def test_wrong_token_and_unknown_method(world: World) -> None:
    wrong = await world.http.post("/bot1:other/getMe")
    assert (wrong.status_code, wrong.json()) == (401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
    unknown = await world.http.post(f"/bot{TOKEN}/sendRocket")
    assert (unknown.status_code, unknown.json()) == (404, {"ok": False, "error_code": 404, "description": "Not Found"})
    other = Bot("1:other", session=AiohttpSession(api=TelegramAPIServer.from_base(world.url)))
    with pytest.raises(TelegramUnauthorizedError):
        await other.get_me()
    await other.session.close()


async def test_flood_is_429_with_retry_after(world: World) -> None:
    world.api.faults.append(BotFault(on="sendMessage", retry_after_s=7, times=1))
    with pytest.raises(TelegramRetryAfter) as caught:
        await world.bot.send_message(CHAT, "Hi")
    assert caught.value.retry_after == 7
    assert world.api.sent_to(CHAT) == []
    assert world.api.entries(name="sendMessage")[0].status == 429
    await world.bot.send_message(CHAT, "Hi")


async def test_flood_in_the_documented_shape(world: World) -> None:
    world.api.faults.append(BotFault(on="sendmessage", retry_after_s=3))
    raw = await world.http.post(f"/bot{TOKEN}/sendMessage", json={"chat_id": CHAT, "text": "Hi"})
    assert raw.status_code == 429
    assert raw.json() == {
        "ok": False,
        "error_code": 429,
        "description": "Too Many Requests: retry after 3",
        "parameters": {"retry_after": 3},
    }


async def test_blocked_and_missing_chats(world: World) -> None:
    world.api.blocked.add(CHAT)
    world.api.missing.add(CHAT + 1)
    with pytest.raises(TelegramForbiddenError, match="Forbidden: bot was blocked by the user"):
        await world.bot.send_message(CHAT, "Hi")
    with pytest.raises(TelegramBadRequest, match="Bad Request: chat not found"):
        await world.bot.send_message(CHAT + 1, "Hi")
    with pytest.raises(TelegramBadRequest, match="chat not found"):
        await world.bot.send_message("@nobody", "Hi")
    await world.http.put("/sandbox/chats", json={"chat_id": CHAT, "state": "open"})
    await world.bot.send_message(CHAT, "Hi")
    await world.http.put("/sandbox/chats", json={"chat_id": CHAT, "state": "blocked"})
    with pytest.raises(TelegramForbiddenError):
        await world.bot.send_chat_action(CHAT, "typing")


async def test_faults_for_one_chat_leave_the_others_alone(world: World) -> None:
    world.api.faults.append(BotFault(status=403, chat_id=CHAT, times=None))
    with pytest.raises(TelegramForbiddenError, match="blocked"):
        await world.bot.send_message(CHAT, "Hi")
    await world.bot.send_message(CHAT + 1, "Hi")


async def test_server_error_may_come_before_or_after_the_work(world: World) -> None:
    world.api.faults.append(BotFault(on="sendMessage", status=500))
    with pytest.raises(TelegramServerError):
        await world.bot.send_message(CHAT, "lost")
    world.api.faults.append(BotFault(on="sendMessage", status=502, after=True))
    with pytest.raises(TelegramServerError):
        await world.bot.send_message(CHAT, "sent all the same")
    assert [m["text"] for m in world.api.sent_to(CHAT)] == ["sent all the same"]


async def test_hang_and_delay(world: World) -> None:
    await world.http.post("/sandbox/faults", json={"on": "sendMessage", "hold_ms": 30_000})
    with pytest.raises(httpx.ReadTimeout):
        await world.http.post(f"/bot{TOKEN}/sendMessage", json={"chat_id": CHAT, "text": "Hi"}, timeout=0.1)
    assert len(world.api.sent_to(CHAT)) == 1
    world.api.faults.append(BotFault(wait_ms=50))
    before = time.monotonic()
    await world.bot.send_message(CHAT, "Hi")
    assert time.monotonic() - before >= 0.05


async def test_html_instead_of_json_is_no_answer_for_aiogram(world: World) -> None:
    world.api.faults.append(BotFault(status=502, body="<html>502</html>", content_type="text/html"))
    with pytest.raises(ClientDecodeError):
        await world.bot.get_me()


@pytest.mark.parametrize(
    ("params", "description"),
    [
        ({"text": "Hi"}, "chat_id is empty"),
        ({"chat_id": CHAT}, "message text is empty"),
        ({"chat_id": CHAT, "text": " \n "}, "message text is empty"),
        ({"chat_id": CHAT, "text": "x" * 4097}, "message is too long"),
        ({"chat_id": CHAT, "text": "🙂" * 2049}, "message is too long"),
        ({"chat_id": CHAT, "text": "a < b", "parse_mode": "HTML"}, "can't parse entities: Unsupported start tag"),
        (
            {"chat_id": CHAT, "text": "1.5", "parse_mode": "MarkdownV2"},
            "can't parse entities: Character '.' is reserved",
        ),
        ({"chat_id": CHAT, "text": "Hi", "reply_markup": "{"}, "can't parse JSON object"),
        (
            {
                "chat_id": CHAT,
                "text": "Hi",
                "reply_markup": {"inline_keyboard": [[{"text": "x", "callback_data": "я" * 33}]]},
            },
            "BUTTON_DATA_INVALID",
        ),
    ],
)
async def test_bad_message_is_400(world: World, params: dict[str, Any], description: str) -> None:
    told = await world.call("sendMessage", **params)
    assert (told["ok"], told["error_code"]) == (False, 400)
    assert told["description"].startswith(f"Bad Request: {description}")
    assert world.api.messages == {}


async def test_text_of_the_limit_passes_and_tags_do_not_count(world: World) -> None:
    text = "x" * 4096
    assert (await world.call("sendMessage", chat_id=CHAT, text=f"<b>{text}</b>", parse_mode="HTML"))["ok"]
    assert world.api.sent_to(CHAT)[0]["text"] == text


async def test_bad_edits_are_400(world: World) -> None:
    await world.call("sendMessage", chat_id=CHAT, text="Hi")
    for params, description in (
        ({"message_id": 1, "text": "Hi"}, "message is not modified"),
        ({"message_id": 99, "text": "Hi"}, "message to edit not found"),
        ({"text": "Hi"}, "message identifier is not specified"),
    ):
        told = await world.call("editMessageText", chat_id=CHAT, **params)
        assert description in told["description"]
    assert (await world.call("sendChatAction", chat_id=CHAT, action="dancing"))["error_code"] == 400
    assert (await world.call("answerCallbackQuery"))["error_code"] == 400
    assert (await world.call("setWebhook", url="https://a.example", secret_token="a b"))["error_code"] == 400


async def test_edits_do_not_rewrite_the_journal(world: World) -> None:
    await world.call("sendMessage", chat_id=CHAT, text="before")
    held = world.api.sent_to(CHAT)
    await world.call("editMessageText", chat_id=CHAT, message_id=1, text="after")
    assert held[0]["text"] == "before"
    assert [entry.answered["result"]["text"] for entry in world.api.log] == ["before", "after"]


async def test_log_tells_every_call(world: World) -> None:
    await world.bot.send_message(CHAT, "Hi")
    await world.call("sendRocket")
    await world.call("setWebhook", url="http://127.0.0.1:1/", secret_token="hush")
    raw = (await world.http.get("/sandbox/log")).text
    told = [(e["name"], e["status"]) for e in json.loads(raw)]
    assert told == [("sendMessage", 200), ("sendRocket", 404), ("setWebhook", 200)]
    assert "hush" not in raw
    assert TOKEN not in raw


class Product:
    """A webhook that answers with the next status and remembers what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[str | None, Any]] = []

    async def hook(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        self.got.append((secret, msgspec.json.decode(await request.body())))
        return Response(b"", status_code=self.statuses.pop(0) if self.statuses else 200)


async def test_update_is_pushed_with_the_secret_until_accepted(world: World) -> None:
    product = Product(500, 503)
    with pytest.raises(BotError):
        await world.api.push_update({})
    async with running(Litestar([post("/hook")(product.hook)], openapi_config=None, logging_config=None)) as url:
        await world.bot.set_webhook(f"{url}/hook", secret_token="s3cret_-")
        entry = await world.api.push_update({"message": {"text": "Hi"}}, tries=5)
        again = await world.http.post("/sandbox/updates", json={"update": {"message": {"text": "Hey"}}})
    assert entry.status == 200
    assert again.json()["status"] == 200
    first, second, third, other = product.got
    assert first == second == third == ("s3cret_-", {"update_id": 1, "message": {"text": "Hi"}})
    assert other[1]["update_id"] == 2
    assert "503" in ((await world.bot.get_webhook_info()).last_error_message or "")


async def test_no_update_has_the_id_of_one_of_an_earlier_run() -> None:
    product = Product(200)
    api = Telegram(TOKEN, born=1_700_000_000_000)
    hook = Litestar([post("/hook")(product.hook)], openapi_config=None, logging_config=None)
    async with running(hook) as url, running(api.app()):
        api.set_webhook({"url": f"{url}/hook"})
        await api.push_update({})
    assert product.got[0][1]["update_id"] == 1_700_000_000_001


async def test_update_to_a_dead_webhook_is_told(world: World) -> None:
    await world.call("setWebhook", url="http://127.0.0.1:1/")
    entry = await world.api.push_update({"update_id": 50})
    assert (entry.status, entry.given) == (None, {"update_id": 50})
    assert "ConnectError" in entry.error
    assert (await world.http.post("/sandbox/updates", json={"update": 1})).status_code == 400


@pytest.mark.parametrize("extra", [{}, {"query_id": "AA", "start_param": "a=b&c", "signature": "x_-", "chat_type": ""}])
def test_init_data_is_signed_as_documented(extra: dict[str, str]) -> None:
    user = {"id": 42, "first_name": "Zoë & Sons 🙂", "last_name": "", "language_code": "ru"}
    query = sign_init_data(TOKEN, user, auth_date=1_733_509_682, **extra)
    assert "+" not in query
    assert " " not in query
    fields = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
    assert msgspec.json.decode(fields["user"]) == user
    assert '": ' not in fields["user"]
    told = fields.pop("hash")
    assert fields == {"user": fields["user"], "auth_date": "1733509682", **extra}
    text = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
    secret = hmac.new(b"WebAppData", TOKEN.encode(), hashlib.sha256).digest()
    assert told == hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def test_aiogram_accepts_the_init_data() -> None:
    query = sign_init_data(TOKEN, {"id": 42, "first_name": "Ann"}, auth_date=1_733_509_682, query_id="AA")
    assert safe_parse_webapp_init_data(TOKEN, query).user is not None
    with pytest.raises(ValueError, match="Invalid init data signature"):
        safe_parse_webapp_init_data("1:other", query)
    with pytest.raises(ValueError, match="hash"):
        sign_init_data(TOKEN, {}, auth_date=1, hash="00")


async def test_runs_by_name_until_signalled() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    playing = f"run('127.0.0.1', {{{port}: make('telegram', token='{TOKEN}')}})"
    code = f"import asyncio; from app.sandbox.serve import make, run; asyncio.run({playing})"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            for _ in range(400):
                try:
                    answer = await http.get(f"http://127.0.0.1:{port}/bot{TOKEN}/getMe")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.025)
        assert answer.json()["ok"] is True
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert errors == b""
    assert process.returncode in (0, -signal.SIGTERM)


def test_token_must_look_like_one() -> None:
    assert isinstance(make("telegram", token=TOKEN), Telegram)
    with pytest.raises(ValueError, match="bot token"):
        make("telegram", token="nonsense")
