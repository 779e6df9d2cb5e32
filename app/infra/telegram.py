"""The Bot API as Torg uses it: aiogram's Bot behind typed outcomes."""

from enum import Enum, auto

import aiogram
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    TelegramAPIError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramNotFound,
    TelegramRetryAfter,
)

from app.errors import ProviderDown

MAX_TEXT = 4096  # characters of one message (Bot API, sendMessage)


class Sent(Enum):
    """How a message ended."""

    DELIVERED = auto()
    BLOCKED = auto()  # the user stopped the bot or never started it: sending again changes nothing
    REFUSED = auto()  # Telegram calls the message itself wrong


class Telegram:
    """One bot. Sends are at least once: when an answer is lost, the job sends again."""

    def __init__(self, token: str, api_url: str, *, timeout_ms: int) -> None:
        session = AiohttpSession(api=TelegramAPIServer.from_base(api_url), timeout=timeout_ms / 1000)
        self.bot = aiogram.Bot(token, session=session)

    async def send(self, chat_id: int, text: str) -> Sent:
        """The text as it is (no markup) in that chat.

        Raises: ProviderDown when Telegram does not answer or asks to wait; then `retry_after_s` is Telegram's own.
        """
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
        except TelegramAPIError as error:
            # `from None`: aiogram's chained errors carry the request URL, and with it the token.
            raise ProviderDown(f"Telegram does not answer ({type(error).__name__})") from None
        return Sent.DELIVERED

    async def close(self) -> None:
        await self.bot.session.close()
