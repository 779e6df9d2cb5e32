"""How a buyer is told something, whatever carries it.

Kept apart from its adapter: importing aiogram takes seconds of processor time, so only the process that sends
pays for it, and pays beside its other work.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import Protocol, TypeVar

import msgspec

from app.base import tally
from app.errors import ProviderDown

T = TypeVar("T")


class Sent(Enum):
    """How a message ended."""

    DELIVERED = auto()
    BLOCKED = auto()  # the user stopped the bot or never started it: sending again changes nothing
    REFUSED = auto()  # Telegram calls the message itself wrong


class Posted(msgspec.Struct, frozen=True):
    """How a message ended, and its id in its chat when it is there."""

    outcome: Sent
    message_id: int = 0


class Button(msgspec.Struct, frozen=True):
    """A button under a message. It does one thing: comes back to us, opens a page, or opens a Mini App."""

    label: str
    data: str = ""  # what comes back, 1 to 64 bytes
    url: str = ""
    app: str = ""  # the Mini App's URL, https


Buttons = Sequence[Sequence[Button]]  # rows


class Messenger(Protocol):
    """One bot. Text is sent as it is, no markup; each call is made once.

    All of them raise ProviderDown when Telegram does not answer or asks to wait (then `retry_after_s` is Telegram's
    own); `unsure` tells whether the call may have been obeyed all the same.
    """

    async def send(self, chat_id: int, text: str) -> Sent:
        """The text in that chat."""
        ...

    async def post(self, chat_id: int, text: str, buttons: Buttons = ()) -> Posted:
        """The text in that chat, with its buttons; whoever posts may edit."""
        ...

    async def edit(
        self, chat_id: int, message_id: int, text: str, buttons: Buttons = (), *, growing: bool = False
    ) -> Sent:
        """The message says this now; repeated, nothing changes. `growing`: nobody misses it, another follows."""
        ...

    async def erase(self, chat_id: int, message_id: int) -> Sent:
        """The message is gone. Nobody misses it when it fails."""
        ...

    async def draft(self, chat_id: int, draft_id: int, text: str) -> Sent:
        """What is being written there, seen for half a minute or until the next message. Nobody misses it."""
        ...

    async def typing(self, chat_id: int) -> Sent:
        """That something is being written there, seen for five seconds. Nobody misses it."""
        ...

    async def close(self) -> None: ...


class Late:
    """A messenger that is made in a thread while the process already works; the first call waits for it."""

    def __init__(self, make: Callable[[], Messenger]) -> None:
        self.made = asyncio.get_running_loop().run_in_executor(None, make)

    async def send(self, chat_id: int, text: str) -> Sent:
        return await (await self._it()).send(chat_id, text)

    async def post(self, chat_id: int, text: str, buttons: Buttons = ()) -> Posted:
        return await (await self._it()).post(chat_id, text, buttons)

    async def edit(
        self, chat_id: int, message_id: int, text: str, buttons: Buttons = (), *, growing: bool = False
    ) -> Sent:
        return await (await self._it()).edit(chat_id, message_id, text, buttons, growing=growing)

    async def erase(self, chat_id: int, message_id: int) -> Sent:
        return await (await self._it()).erase(chat_id, message_id)

    async def draft(self, chat_id: int, draft_id: int, text: str) -> Sent:
        return await (await self._it()).draft(chat_id, draft_id, text)

    async def typing(self, chat_id: int) -> Sent:
        return await (await self._it()).typing(chat_id)

    async def close(self) -> None:
        await (await self.made).close()

    async def _it(self) -> Messenger:
        return await asyncio.shield(self.made)


class Careful:
    """The messenger as everybody uses it: at the bot's pace, behind its circuit, and it remembers who left.

    `turn` waits for a chat's turn or raises; `room` raises unless there is room for what nobody misses; `stop` is told
    when Telegram asks to wait, and gives what to raise; `calling` counts how calls go; `alone` raises while Telegram
    is left alone; `left` is told of a user who cannot be reached.

    What nobody misses counts for nothing: a method that fails by itself (drafts) must not stop the messages.
    """

    def __init__(
        self,
        messenger: Messenger,
        *,
        turn: Callable[[int], Awaitable[None]],
        room: Callable[[int], Awaitable[None]],
        stop: Callable[[int, int], Awaitable[ProviderDown]],
        calling: Callable[[], AbstractAsyncContextManager[None]],
        alone: Callable[[], None],
        left: Callable[[int], Awaitable[None]],
    ) -> None:
        self.messenger, self.turn, self.room, self.stop = messenger, turn, room, stop
        self.calling, self.alone, self.left = calling, alone, left

    async def send(self, chat_id: int, text: str) -> Sent:
        sent = await self._call(chat_id, lambda: self.messenger.send(chat_id, text))
        return await self._told(chat_id, sent)

    async def post(self, chat_id: int, text: str, buttons: Buttons = ()) -> Posted:
        posted = await self._call(chat_id, lambda: self.messenger.post(chat_id, text, buttons))
        await self._told(chat_id, posted.outcome)
        return posted

    async def edit(
        self, chat_id: int, message_id: int, text: str, buttons: Buttons = (), *, growing: bool = False
    ) -> Sent:
        def call() -> Awaitable[Sent]:
            return self.messenger.edit(chat_id, message_id, text, buttons)

        if growing:
            return await self._try(chat_id, call)
        return await self._told(chat_id, await self._call(chat_id, call))

    async def erase(self, chat_id: int, message_id: int) -> Sent:
        return await self._try(chat_id, lambda: self.messenger.erase(chat_id, message_id))

    async def draft(self, chat_id: int, draft_id: int, text: str) -> Sent:
        return await self._try(chat_id, lambda: self.messenger.draft(chat_id, draft_id, text))

    async def typing(self, chat_id: int) -> Sent:
        return await self._try(chat_id, lambda: self.messenger.typing(chat_id))

    async def close(self) -> None:
        await self.messenger.close()

    async def _call(self, chat_id: int, call: Callable[[], Awaitable[T]]) -> T:
        await self.turn(chat_id)
        async with self.calling():
            try:
                return await call()
            except ProviderDown as error:
                tally.TELEGRAM.add("failed" if error.retry_after_s is None else "paced")
                if error.retry_after_s is None:
                    raise
                asked = error  # it answered: the pace's affair, not the circuit's
        raise await self.stop(chat_id, asked.retry_after_s or 0) from None

    async def _told(self, chat_id: int, sent: Sent) -> Sent:
        tally.TELEGRAM.add(sent.name.lower())
        if sent is Sent.BLOCKED:
            await self.left(chat_id)
        return sent

    async def _try(self, chat_id: int, call: Callable[[], Awaitable[Sent]]) -> Sent:
        self.alone()
        await self.room(chat_id)
        try:
            return await call()
        except ProviderDown as error:
            if error.retry_after_s is None:
                raise
            asked = error
        raise await self.stop(chat_id, asked.retry_after_s or 0) from None
