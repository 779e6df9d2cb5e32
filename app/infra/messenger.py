"""How a buyer is told something, whatever carries it.

Kept apart from its adapter: importing aiogram takes seconds of processor time, so only the process that sends
pays for it, and pays beside its other work.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol


class Sent(Enum):
    """How a message ended."""

    DELIVERED = auto()
    BLOCKED = auto()  # the user stopped the bot or never started it: sending again changes nothing
    REFUSED = auto()  # Telegram calls the message itself wrong


class Messenger(Protocol):
    """One bot. Sends are at least once: when an answer is lost, the job sends again."""

    async def send(self, chat_id: int, text: str) -> Sent:
        """The text as it is (no markup) in that chat.

        Raises: ProviderDown when Telegram does not answer or asks to wait; then `retry_after_s` is Telegram's own.
        """
        ...

    async def close(self) -> None: ...


class Late:
    """A messenger that is made in a thread while the process already works; the first send waits for it."""

    def __init__(self, make: Callable[[], Messenger]) -> None:
        self.made = asyncio.get_running_loop().run_in_executor(None, make)

    async def send(self, chat_id: int, text: str) -> Sent:
        messenger = await asyncio.shield(self.made)
        return await messenger.send(chat_id, text)

    async def close(self) -> None:
        await (await self.made).close()
