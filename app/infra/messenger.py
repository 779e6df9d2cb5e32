"""How a buyer is told something, whatever carries it. Kept apart from its adapter: importing aiogram takes seconds,
and only the process that sends should pay for it."""

from enum import Enum, auto
from typing import Protocol


class Sent(Enum):
    """How a message ended."""

    DELIVERED = auto()
    BLOCKED = auto()  # the user stopped the bot or never started it: sending again changes nothing
    REFUSED = auto()  # Telegram calls the message itself wrong


class Messenger(Protocol):
    """One bot. Sends are at least once: when an answer is lost, the job sends again."""

    max_text: int  # characters of one message

    async def send(self, chat_id: int, text: str) -> Sent:
        """The text as it is (no markup) in that chat.

        Raises: ProviderDown when Telegram does not answer or asks to wait; then `retry_after_s` is Telegram's own.
        """
        ...

    async def close(self) -> None: ...
