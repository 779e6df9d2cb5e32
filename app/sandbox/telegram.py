"""Telegram's Bot API on loopback, for one bot: chats that keep what was sent, and a webhook that gets updates.

It behaves as a local Bot API server does: plain http webhooks on any port are taken (core.telegram.org/bots/api
"Using a Local Bot API Server"). Tests make it misbehave through `faults`, `blocked` and `missing`.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Litestar, Response, get, post, put, route

from app.base import clock
from app.sandbox import telegram_wire as wire
from app.sandbox.party import Answer, Entry, Party, Req, play, reply

JOURNAL = 2000  # entries kept
KEPT_MESSAGES = 1000  # per chat, the newest
SECRET_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Telegram(Party[wire.BotFault]):
    """The Bot API of one bot."""

    fault_type = wire.BotFault

    def __init__(self, token: str, *, username: str = "torg_sandbox_bot", keep: int = JOURNAL, born: int = 0) -> None:
        bot_id, _, rest = token.partition(":")
        if not (bot_id.isdecimal() and rest):
            raise ValueError("a bot token is <digits>:<letters>")
        super().__init__(keep)
        self.token = token
        self.me = {"id": int(bot_id), "is_bot": True, "first_name": "Torg", "username": username}
        self.messages: dict[int, deque[dict[str, Any]]] = {}
        self.drafts: dict[int, deque[dict[str, Any]]] = {}  # every draft that was shown, oldest first
        self.drafting: dict[int, dict[str, Any]] = {}  # the one that a chat shows now; a message ends it
        self.turns: dict[int, asyncio.Lock] = {}  # updates of one chat come in order
        self.blocked: set[int] = set()
        self.missing: set[int] = set()
        self.webhook: wire.Webhook | None = None
        self.last_message_id = 0
        self.last_update_id = born  # from a clock: ids of an earlier run never come again
        # Method names are case-insensitive (Bot API "Making requests").
        self.methods: dict[str, Callable[[wire.Params], Any]] = {
            "getme": self.get_me,
            "sendmessage": self.send_message,
            "editmessagetext": self.edit_message_text,
            "sendmessagedraft": self.send_message_draft,
            "deletemessage": self.delete_message,
            "sendchataction": self.send_chat_action,
            "answercallbackquery": self.answer_callback_query,
            "setwebhook": self.set_webhook,
            "deletewebhook": self.delete_webhook,
            "getwebhookinfo": self.get_webhook_info,
        }

    def app(self) -> Litestar:
        """The Bot API and the control surface as one ASGI app."""
        return self.litestar(
            [
                route("/{bot:str}/{method:str}", http_method=["GET", "POST"], status_code=200)(self.call_method),
                get("/sandbox/messages")(self.show_messages),
                get("/sandbox/drafts")(self.show_drafts),
                get("/sandbox/buttons")(self.show_buttons),
                put("/sandbox/chats")(self.set_chat),
                post("/sandbox/say", status_code=200)(self.order_say),
                post("/sandbox/updates", status_code=200)(self.order_update),
            ],
            bad_order=wire.BotError,
        )

    def sent_to(self, chat_id: int) -> list[dict[str, Any]]:
        """The messages in a chat, oldest first, as Telegram's Message objects, edits applied."""
        return [dict(message) for message in self.messages.get(chat_id, ())]

    async def push_update(self, update: dict[str, Any], *, tries: int = 1, pause_ms: float = 0) -> Entry:
        """The update reaches the webhook, offered again until it answers 2xx or `tries` are used up.

        An update without `update_id` gets the next one. The entry of the last try comes back.
        Raises: BotError when no webhook is set.
        """
        if self.webhook is None:
            raise wire.BotError(400, "Bad Request: no webhook is set")
        update = {"update_id": self.last_update_id + 1} | update
        self.last_update_id = max(self.last_update_id, update["update_id"])
        hook, body = self.webhook, msgspec.json.encode(update)
        headers = {"x-telegram-bot-api-secret-token": hook.secret_token} if hook.secret_token else {}
        for left in reversed(range(max(tries, 1))):
            entry = await self.call(self.record("update", hook.url, update), hook.url, body, headers)
            if entry.status is not None and 200 <= entry.status < 300:
                self.perform(entry.answered)
                break
            hook.last_error_date = clock.unix_s()
            hook.last_error_message = f"Wrong response from the webhook: {entry.status or entry.error}"
            if left:
                await asyncio.sleep(pause_ms / 1000)
        return entry

    async def say(self, say: wire.Say) -> Entry:
        """The user's message or pressed button reaches the webhook, after what this user did before.

        Raises: BotError when there is no such button, or no webhook.
        """
        async with self.turns.setdefault(say.chat_id, asyncio.Lock()):
            update = self.pressed(say) if say.data else {"message": self.written(say)}
            return await self.push_update(update, tries=say.tries, pause_ms=say.pause_ms)

    def written(self, say: wire.Say) -> dict[str, Any]:
        self.last_message_id += 1
        return wire.written(say, self.last_message_id, clock.unix_s())

    def pressed(self, say: wire.Say) -> dict[str, Any]:
        """Raises: BotError when no message of the chat has this button."""
        found = [
            message
            for message in self.messages.get(say.chat_id, ())
            if wire.has_button(message, say.data) and say.message_id in (None, message["message_id"])
        ]
        if not found:
            raise wire.BotError(400, "no message of this chat has that button")
        query = {"id": str(clock.unix_s() * 1000 + self.last_update_id), "from": wire.user_of(say)}
        return {"callback_query": query | {"message": found[-1], "chat_instance": str(say.chat_id), "data": say.data}}

    def perform(self, answered: Any) -> None:
        """What a webhook may put into its answer instead of a call: `{"method": …}`. Its result goes nowhere."""
        try:
            told = msgspec.json.decode(answered or b"null")
        except msgspec.DecodeError:
            return
        if isinstance(told, dict) and (method := str(told.pop("method", ""))):
            entry = self.record("request", method, told)
            answer = self.answer(method, told)
            entry.status, entry.answered = answer.status, msgspec.json.decode(answer.raw())

    def get_me(self, params: wire.Params) -> Any:
        rights = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
        return self.me | rights

    def send_message(self, params: wire.Params) -> Any:
        chat_id = self.reachable(params)
        said = wire.formatted(params)
        self.last_message_id += 1
        message: dict[str, Any] = {"message_id": self.last_message_id, "from": self.me, "chat": wire.chat_of(chat_id)}
        message |= {"date": clock.unix_s()} | said
        if thread := wire.numeric(params.get("message_thread_id")):
            message |= {"message_thread_id": thread, "is_topic_message": True}
        self.messages.setdefault(chat_id, deque(maxlen=KEPT_MESSAGES)).append(message)
        self.drafting.pop(chat_id, None)
        return message

    def send_message_draft(self, params: wire.Params) -> Any:
        chat_id = self.reachable(params)
        if chat_id < 0:
            raise wire.BotError(400, "Bad Request: drafts are for private chats")
        draft_id, text = wire.drafted(params)
        draft = {"draft_id": draft_id, "text": text}
        self.drafts.setdefault(chat_id, deque(maxlen=KEPT_MESSAGES)).append(draft)
        self.drafting[chat_id] = draft
        return True

    def delete_message(self, params: wire.Params) -> Any:
        chat = self.messages.get(self.reachable(params), deque())
        message_id = wire.numeric(params.get("message_id"))
        found = next((message for message in chat if message["message_id"] == message_id), None)
        if found is None:
            raise wire.BotError(400, "Bad Request: message to delete not found")
        chat.remove(found)
        return True

    def edit_message_text(self, params: wire.Params) -> Any:
        chat_id = self.reachable(params)
        message_id = wire.numeric(params.get("message_id"))
        if message_id is None:
            raise wire.BotError(400, "Bad Request: message identifier is not specified")
        found = next((m for m in self.messages.get(chat_id, ()) if m["message_id"] == message_id), None)
        if found is None:
            raise wire.BotError(400, "Bad Request: message to edit not found")
        said = wire.formatted(params)
        if said == {name: found[name] for name in ("text", "entities", "reply_markup") if name in found}:
            raise wire.BotError(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are exactly the "
                "same as a current content and reply markup of the message",
            )
        for name in ("entities", "reply_markup"):
            found.pop(name, None)
        found |= said | {"edit_date": clock.unix_s()}
        return found

    def send_chat_action(self, params: wire.Params) -> Any:
        self.reachable(params)
        if params.get("action") not in wire.ACTIONS:
            raise wire.BotError(400, "Bad Request: wrong parameter action in request")
        return True

    def answer_callback_query(self, params: wire.Params) -> Any:
        if not params.get("callback_query_id"):
            raise wire.BotError(
                400, "Bad Request: query is too old and response timeout expired or query ID is invalid"
            )
        return True

    def set_webhook(self, params: wire.Params) -> Any:
        url = str(params.get("url") or "")
        secret = str(params.get("secret_token") or "")
        if secret and not SECRET_TOKEN.fullmatch(secret):
            raise wire.BotError(400, "Bad Request: secret token contains unallowed characters")
        if url and not url.startswith(("http://", "https://")):
            raise wire.BotError(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        allowed = wire.structure(params.get("allowed_updates"))
        most = wire.numeric(params.get("max_connections")) or 40
        self.webhook = (
            wire.Webhook(url=url, secret_token=secret, max_connections=most, allowed_updates=allowed) if url else None
        )
        return True

    def delete_webhook(self, params: wire.Params) -> Any:
        self.webhook = None
        return True

    def get_webhook_info(self, params: wire.Params) -> Any:
        told: dict[str, Any] = {"url": "", "has_custom_certificate": False, "pending_update_count": 0}
        if self.webhook is not None:
            stored: dict[str, Any] = msgspec.to_builtins(self.webhook)
            told |= {name: value for name, value in stored.items() if name != "secret_token" and value is not None}
        return told

    def reachable(self, params: wire.Params) -> int:
        """The chat that a call is about.

        Raises: BotError when there is no such chat, or it does not let the bot in.
        """
        if params.get("chat_id") in (None, ""):
            raise wire.BotError(400, "Bad Request: chat_id is empty")
        chat_id = wire.numeric(params.get("chat_id"))
        if chat_id is None or chat_id == 0 or chat_id in self.missing:
            raise wire.BotError(400, wire.DESCRIPTIONS[400])
        if chat_id in self.blocked:
            raise wire.BotError(403, wire.DESCRIPTIONS[403])
        return chat_id

    async def call_method(self, request: Req) -> Response[bytes]:
        """`/bot<token>/<method>`."""
        bot, method = str(request.path_params["bot"]), str(request.path_params["method"])
        params = await wire.read_params(request)
        entry = self.record("request", method, params | ({"secret_token": "***"} if "secret_token" in params else {}))
        if bot != f"bot{self.token}":
            status, words = (401, "Unauthorized") if bot.startswith("bot") else (404, "Not Found")
            return await play(request, entry, None, lambda: wire.refused(status, words))
        fault = self.take_fault(method, lambda fault: fault.chat_id in (None, wire.numeric(params.get("chat_id"))))

        return await play(request, entry, wire.worded(fault), lambda: self.answer(method, params))

    def answer(self, method: str, params: wire.Params) -> Answer:
        work = self.methods.get(method.lower())
        if work is None:
            return wire.refused(404, "Not Found")
        try:
            return Answer(200, {"ok": True, "result": work(params)})
        except wire.BotError as error:
            return wire.refused(error.status, error.description)

    async def show_messages(self, request: Req) -> Response[bytes]:
        chat_id = wire.numeric(request.query_params.get("chat_id"))
        if chat_id is not None:
            return reply(self.sent_to(chat_id))
        return reply([message for chat in self.messages for message in self.sent_to(chat)])

    async def show_drafts(self, request: Req) -> Response[bytes]:
        return reply(list(self.drafts.get(wire.numeric(request.query_params.get("chat_id")) or 0, ())))

    async def show_buttons(self, request: Req) -> Response[bytes]:
        """The rows under the chat's last message."""
        sent = self.messages.get(wire.numeric(request.query_params.get("chat_id")) or 0)
        return reply(wire.buttons_of(sent[-1]) if sent else [])

    async def order_say(self, request: Req) -> Response[bytes]:
        return reply(await self.say(msgspec.json.decode(await request.body(), type=wire.Say)))

    async def set_chat(self, request: Req) -> Response[bytes]:
        chat = msgspec.json.decode(await request.body(), type=wire.Chat)
        for state, chats in (("blocked", self.blocked), ("missing", self.missing)):
            (chats.add if chat.state == state else chats.discard)(chat.chat_id)
        return reply(chat)

    async def order_update(self, request: Req) -> Response[bytes]:
        order = msgspec.json.decode(await request.body(), type=wire.Push)
        return reply(await self.push_update(order.update, tries=order.tries))


SIMULATOR = Telegram
