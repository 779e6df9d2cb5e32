"""The Bot API as Torg uses it: aiogram's Bot behind typed outcomes."""

from collections.abc import Awaitable, Sequence
from typing import Literal, TypeVar

import aiogram
import msgspec
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
)
from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup, WebAppInfo
from aiohttp import ClientConnectorError

from app.errors import ProviderDown, ProviderRefused
from app.infra.messenger import Button, Buttons, Posted, Sent
from app.settings import Settings

T = TypeVar("T")

SAME = "message is not modified"  # of an edit that changes nothing


class Telegram:
    """The shop's bot; see `messenger.Messenger`."""

    def __init__(self, token: str, api_url: str, *, timeout_ms: int) -> None:
        session = AiohttpSession(api=TelegramAPIServer.from_base(api_url), timeout=timeout_ms / 1000)
        self.bot = aiogram.Bot(token, session=session)

    async def send(self, chat_id: int, text: str) -> Sent:
        return (await self.post(chat_id, text)).outcome

    async def post(self, chat_id: int, text: str, buttons: Buttons = ()) -> Posted:
        keys = _keyboard(buttons)
        told = await _asked(self.bot.send_message(chat_id, text, parse_mode=None, reply_markup=keys))
        return Posted(told) if isinstance(told, Sent) else Posted(Sent.DELIVERED, told.message_id)

    async def edit(
        self, chat_id: int, message_id: int, text: str, buttons: Buttons = (), *, growing: bool = False
    ) -> Sent:
        keys = _keyboard(buttons)
        return await _done(
            self.bot.edit_message_text(text, chat_id=chat_id, message_id=message_id, parse_mode=None, reply_markup=keys)
        )

    async def erase(self, chat_id: int, message_id: int) -> Sent:
        return await _done(self.bot.delete_message(chat_id, message_id))

    async def draft(self, chat_id: int, draft_id: int, text: str) -> Sent:
        return await _done(self.bot.send_message_draft(chat_id, draft_id, text=text, parse_mode=None))

    async def typing(self, chat_id: int) -> Sent:
        return await _done(self.bot.send_chat_action(chat_id, "typing"))

    async def close(self) -> None:
        await self.bot.session.close()


def bot(settings: Settings) -> Telegram:
    """The bot of these settings."""
    return Telegram(settings.telegram_bot_token, settings.telegram_api_url, timeout_ms=settings.gateway_timeout_ms)


async def _done(call: Awaitable[object]) -> Sent:
    told = await _asked(call)
    return told if isinstance(told, Sent) else Sent.DELIVERED


async def _asked(call: Awaitable[T]) -> T | Sent:
    """What Telegram gives, or how it declines. Raises: ProviderDown."""
    try:
        return await call
    except TelegramForbiddenError:
        return Sent.BLOCKED
    except TelegramRetryAfter as error:
        raise ProviderDown("Telegram asks to wait", retry_after_s=error.retry_after) from None
    except TelegramBadRequest as error:
        if SAME in error.message:
            return Sent.DELIVERED
        return Sent.BLOCKED if "chat not found" in error.message else Sent.REFUSED
    except TelegramNotFound:
        return Sent.REFUSED
    except AiogramError as error:  # an answer that is no JSON (a proxy's 502) is no TelegramAPIError
        # `from None`: aiogram's chained errors carry the request URL, and with it the token.
        raise ProviderDown(f"Telegram does not answer ({type(error).__name__})", unsure=_unsure(error)) from None


def _unsure(error: AiogramError) -> bool:
    """It may have been obeyed: whatever failed, failed after the request could leave. Other answers are refusals."""
    if isinstance(error, TelegramNetworkError):
        return not isinstance(error.__cause__, ClientConnectorError)
    return isinstance(error, TelegramServerError | ClientDecodeError)


def _keyboard(buttons: Buttons) -> InlineKeyboardMarkup | None:
    rows = [[_button(one) for one in row] for row in buttons if row]
    return InlineKeyboardMarkup(inline_keyboard=rows) if rows else None


def _button(of: Button) -> InlineKeyboardButton:
    if of.app:
        return InlineKeyboardButton(text=of.label, web_app=WebAppInfo(url=of.app))
    return InlineKeyboardButton(text=of.label, url=of.url or None, callback_data=None if of.url else of.data)


Order = Literal["set", "show", "drop"]


class Webhook(msgspec.Struct, frozen=True):
    """Where Telegram sends updates, as Telegram has it."""

    url: str  # empty: nowhere
    waiting: int
    error: str  # the last one, with Telegram's words


async def webhook(settings: Settings, order: Order, url: str, kinds: Sequence[str]) -> Webhook:
    """The webhook after the order was carried out. Raises: ProviderDown; ProviderRefused with Telegram's words."""
    telegram = bot(settings)
    try:
        if order == "set":
            secret = settings.telegram_webhook_secret
            await telegram.bot.set_webhook(url, secret_token=secret, allowed_updates=list(kinds))
        elif order == "drop":
            await telegram.bot.delete_webhook()
        now = await telegram.bot.get_webhook_info()
    except (TelegramNetworkError, TelegramServerError, ClientDecodeError) as error:
        raise ProviderDown(f"Telegram does not answer ({type(error).__name__})") from None
    except TelegramAPIError as error:
        raise ProviderRefused(f"Telegram: {error.message}") from None
    finally:
        await telegram.close()
    return Webhook(now.url, now.pending_update_count, now.last_error_message or "")
