"""The Telegram line: replies with pay buttons, and how a reply is seen growing.

A draft (sendMessageDraft) is gone by itself after half a minute. A bot or chat that takes none sees the reply grow as a
message that is edited, and the finished reply is the last edit. A worker that is killed meanwhile leaves that message
as it was, an ellipsis at its end and no buttons; the turn's one reply is then said by whoever takes it up
(docs/bot.md).
"""

import asyncio
from collections.abc import Awaitable, Sequence
from uuid import UUID

import structlog

from app.base import prose
from app.base.money import Money
from app.channels.line import Offer
from app.channels.telegram import texts
from app.errors import ProviderDown
from app.infra.messenger import Button, Buttons, Messenger, Posted, Sent

log = structlog.get_logger(__name__)

PAY = "pay:"  # before an offer's token, in a button's data
FIRST_S = 0.05  # a reply that is whole by then is not shown growing
DRAFT_EVERY_S = 0.7
EDIT_EVERY_S = 1.0
LAST_S = 2.0  # what is on its way gets so long before the reply follows: overtaken, it would be seen after it
SHORT_S = 1  # a wait that Telegram or the pace may ask for and the draft goes on after
REMEMBERED = 10_000  # chats that take no drafts, of this process
ENDING = f" {prose.ELLIPSIS}"  # of a message that is not finished


class TelegramLine:
    """One bot's way out; `peer` is the chat's id."""

    def __init__(self, messenger: Messenger) -> None:
        self.messenger = messenger
        self.draftless: dict[int, None] = {}  # chats that have refused a draft, the oldest first

    async def say(self, peer: str, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        return await self.post(int(peer), text, pay_buttons(language, offers))

    def draft(self, peer: str, turn_id: UUID) -> "Growing":
        return Growing(self, int(peer), turn_id)

    async def post(self, chat_id: int, text: str, buttons: Buttons = (), *, instead_of: int = 0) -> Sent:
        """The whole text in as many messages as it takes, the buttons under the last; the first one in the place of
        the message `instead_of`, if that is still there. Raises: ProviderDown."""
        parts = prose.pieces(text, texts.MAX_LENGTH)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            try:
                sent = await self._put(chat_id, part, buttons if last else (), 0 if number else instead_of)
            except ProviderDown as error:
                error.unsure |= number > 0  # the beginning is there
                raise
            if sent is not Sent.DELIVERED:
                return sent
        return sent

    async def _put(self, chat_id: int, text: str, buttons: Buttons, instead_of: int) -> Sent:
        if instead_of:
            sent = await self.messenger.edit(chat_id, instead_of, text, buttons)
            if sent is not Sent.REFUSED:
                return sent  # refused: its reader has deleted it
        return (await self.messenger.post(chat_id, text, buttons)).outcome

    def refuses_drafts(self, chat_id: int) -> bool:
        return chat_id in self.draftless

    def refused_draft(self, chat_id: int) -> None:
        if len(self.draftless) >= REMEMBERED:
            del self.draftless[next(iter(self.draftless))]
        self.draftless[chat_id] = None


class Growing:
    """One reply while it is written; see `line.Draft`."""

    def __init__(self, line: TelegramLine, chat_id: int, turn_id: UUID) -> None:
        self.line, self.chat_id = line, chat_id
        self.draft_id = turn_id.int % (2**31 - 1) + 1  # the same for every worker of the turn, never 0
        self.message_id = 0  # of the message that grows, where drafts are refused
        self.text = self.shown = ""
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def show(self, text: str) -> None:
        self.text = text
        if self.task is None and not self.ended.is_set():
            self.task = asyncio.create_task(self._grow())

    async def finish(self, language: str, text: str, offers: Sequence[Offer] = ()) -> Sent:
        await self._end()
        grown, self.message_id = self.message_id, 0  # it is the reply from now on
        try:
            return await self.line.post(self.chat_id, text, pay_buttons(language, offers), instead_of=grown)
        except ProviderDown as error:
            if not error.unsure:
                self.message_id = grown
            raise

    async def close(self) -> None:
        await self._end()
        if self.message_id:
            await self._quietly(self.line.messenger.erase(self.chat_id, self.message_id))
            self.message_id = 0

    async def _end(self) -> None:
        self.ended.set()
        if self.task:
            try:
                await asyncio.wait({self.task}, timeout=LAST_S)
            finally:
                self.task.cancel()
            await asyncio.wait({self.task})

    async def _grow(self) -> None:
        """What is new is shown, at most so often, until the end."""
        pause_s = FIRST_S
        while not await self._ends_within(pause_s):
            if self.text != self.shown:
                await self._show(self.text)
            pause_s = EDIT_EVERY_S if self.line.refuses_drafts(self.chat_id) else DRAFT_EVERY_S

    async def _show(self, text: str) -> None:
        try:
            seen = await self._shown(text)
        except ProviderDown as error:
            if "whose" in error.facts and (error.retry_after_s or 0) <= SHORT_S:
                return  # no room at this moment; the next piece has it all
            seen = False
        except Exception as error:  # a defect must not cost the reply
            log.warning("draft broke off", error=repr(error))
            seen = False
        if seen:
            self.shown = text
        else:
            self.ended.set()

    async def _shown(self, text: str) -> bool:
        """False: it makes no sense to go on."""
        if not self.line.refuses_drafts(self.chat_id):
            draft = prose.cut(text, texts.MAX_LENGTH)
            sent = await self.line.messenger.draft(self.chat_id, self.draft_id, draft)
            if sent is not Sent.REFUSED:
                return sent is Sent.DELIVERED
            self.line.refused_draft(self.chat_id)
        return await self._written(prose.cut(text, texts.MAX_LENGTH - len(ENDING)).rstrip(prose.ELLIPSIS) + ENDING)

    async def _written(self, text: str) -> bool:
        """The same as a message that grows."""
        messenger = self.line.messenger
        if self.message_id:
            return await messenger.edit(self.chat_id, self.message_id, text, growing=True) is Sent.DELIVERED
        await self._quietly(messenger.typing(self.chat_id))
        posted: Posted = await messenger.post(self.chat_id, text)
        self.message_id = posted.message_id
        return posted.outcome is Sent.DELIVERED

    async def _ends_within(self, wait_s: float) -> bool:
        try:
            await asyncio.wait_for(self.ended.wait(), wait_s)
        except TimeoutError:
            return False
        return True

    async def _quietly(self, call: Awaitable[Sent]) -> None:
        try:
            await call
        except ProviderDown:
            return


def pay_buttons(language: str, offers: Sequence[Offer]) -> list[list[Button]]:
    """A row for each offer."""
    several = len(offers) > 1  # then each says of what
    return [
        [
            Button(
                texts.pay_label(language, str(Money(one.price_minor, one.currency)), one.title if several else ""),
                data=PAY + one.token,
            )
        ]
        for one in offers
    ]
