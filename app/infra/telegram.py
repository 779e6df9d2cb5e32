"""The Bot API as Torg uses it: aiogram's Bot behind typed outcomes."""

import aiogram
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    AiogramError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramNotFound,
    TelegramRetryAfter,
)

from app.errors import ProviderDown
from app.infra.messenger import Sent
from app.settings import Settings


class Telegram:
    """The shop's bot; see `messenger.Messenger`."""

    def __init__(self, token: str, api_url: str, *, timeout_ms: int) -> None:
        session = AiohttpSession(api=TelegramAPIServer.from_base(api_url), timeout=timeout_ms / 1000)
        self.bot = aiogram.Bot(token, session=session)

    async def send(self, chat_id: int, text: str) -> Sent:
        try:
            await self.bot.send_message(chat_id, text, parse_mode=None)
        except TelegramForbiddenError:
            return Sent.BLOCKED
        except TelegramRetryAfter as error:
            raise ProviderDown("Telegram asks to wait", retry_after_s=error.retry_after) from None
        except TelegramBadRequest as error:
            return Sent.BLOCKED if "chat not found" in error.message else Sent.REFUSED
        except TelegramNotFound:
            return Sent.REFUSED
        except AiogramError as error:  # an answer that is no JSON (a proxy's 502) is no TelegramAPIError
            # `from None`: aiogram's chained errors carry the request URL, and with it the token.
            raise ProviderDown(f"Telegram does not answer ({type(error).__name__})") from None
        return Sent.DELIVERED

    async def close(self) -> None:
        await self.bot.session.close()


def bot(settings: Settings) -> Telegram:
    """The bot of these settings."""
    return Telegram(settings.telegram_bot_token, settings.telegram_api_url, timeout_ms=settings.gateway_timeout_ms)
