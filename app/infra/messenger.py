"""How a buyer is told something, whatever carries it.

Kept apart from its adapter: importing aiogram takes seconds of processor time, so only the process that sends
pays for it, and pays beside its other work.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import Protocol

from app.base import tally
from app.errors import ProviderDown


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


class Careful:
    """The messenger as everybody uses it: at the bot's pace, behind its circuit, and it remembers who left.

    `turn` waits for a chat's turn or raises; `stop` is told when Telegram asks to wait, and gives what to raise;
    `calling` counts how calls go; `left` is told of a user who cannot be reached.
    """

    def __init__(
        self,
        messenger: Messenger,
        *,
        turn: Callable[[int], Awaitable[None]],
        stop: Callable[[int, int], Awaitable[ProviderDown]],
        calling: Callable[[], AbstractAsyncContextManager[None]],
        left: Callable[[int], Awaitable[None]],
    ) -> None:
        self.messenger, self.turn, self.stop, self.calling, self.left = messenger, turn, stop, calling, left

    async def send(self, chat_id: int, text: str) -> Sent:
        await self.turn(chat_id)
        asked = None
        async with self.calling():
            try:
                sent = await self.messenger.send(chat_id, text)
            except ProviderDown as error:
                tally.TELEGRAM.add("failed" if error.retry_after_s is None else "paced")
                if error.retry_after_s is None:
                    raise
                asked = error  # it answered: the pace's affair, not the circuit's
        if asked:
            raise await self.stop(chat_id, asked.retry_after_s or 0) from None
        tally.TELEGRAM.add(sent.name.lower())
        if sent is Sent.BLOCKED:
            await self.left(chat_id)
        return sent

    async def close(self) -> None:
        await self.messenger.close()
