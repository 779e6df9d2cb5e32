"""The bot: commands and buttons of Telegram, one at a time, each answered at most once.

aiogram chooses the handler and never polls or calls; what a handler answers is sent here, by the shop's messenger. A
handler may run again after a crash, so whatever it does is done once by a key of its own; the answer is claimed in
Postgres before it is sent (docs/bot.md).
"""

import asyncio

import aiogram
import msgspec
import structlog
from aiogram import Dispatcher
from aiogram.dispatcher.event.bases import UNHANDLED
from aiogram.types import CallbackQuery, Message, Update
from pydantic import ValidationError

from app.base import clock
from app.base.ending import to_the_end
from app.base.ids import derived_id
from app.bot import admins, buyers, buying
from app.bot.visit import Reply, Visit
from app.channels.telegram.line import TelegramLine
from app.domain import conversations, customers, referrals
from app.domain.buffers import Batch, Heard
from app.domain.conversations import Opened
from app.errors import ProviderDown
from app.infra.messenger import Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

NOBODY = "1:none"  # aiogram wants a bot; this one is never called
PATIENCE_S = 5  # that a reply waits for its chat's pace; for longer all waits in its buffer


class Bot:
    """What does commands and buttons; one for a process."""

    def __init__(self) -> None:
        self.bot = aiogram.Bot(NOBODY)
        self.dispatcher = Dispatcher(disable_fsm=True)
        self.dispatcher.include_routers(admins.router(), buyers.router(), buying.router(), buyers.rest())

    async def feed(self, shop: Shop, batch: Batch) -> None:
        """Every command or button of the batch is done, and answered at most once. Raises: Unavailable: come again."""
        for number, heard in enumerate(batch.heard):
            turn = batch if not number else _part(batch, number)
            await self._feed(shop, turn, heard)

    async def _feed(self, shop: Shop, turn: Batch, heard: Heard) -> None:
        try:
            update = Update.model_validate_json(heard.raw, context={"bot": self.bot})
        except ValidationError:
            log.warning("an update of no known shape", turn_id=str(turn.id))
            return
        event = update.message or update.callback_query
        opened = await _entered(shop, turn, heard, event) if event else None
        if opened is None or event is None:
            return
        visit = Visit(shop, opened, turn.id, int(turn.peer), heard.name, heard)
        reply = await self.dispatcher.feed_update(self.bot, update, visit=visit)
        if reply is UNHANDLED or reply is None:
            return
        await to_the_end(_send(visit, turn, reply, _pressed(event) if reply.instead else 0))


def _part(batch: Batch, number: int) -> Batch:
    return msgspec.structs.replace(batch, id=derived_id(batch.id.bytes, number.to_bytes(2)))


async def _entered(shop: Shop, turn: Batch, heard: Heard, event: Message | CallbackQuery) -> Opened | None:
    """The conversation, with its user; who comes by somebody's code, and every admin, is entered as such before."""
    telegram_id = int(turn.peer)
    is_admin = telegram_id in shop.deps.settings.admin_ids()
    referrer_id = referrals.user_of(buyers.start_parameter(event))
    if is_admin or referrer_id is not None:
        await customers.enter(
            shop.deps.pg,
            telegram_id=telegram_id,
            name=heard.name,
            username=heard.username[:64] or None,
            language=heard.language if 2 <= len(heard.language) <= 16 else "en",
            is_admin=is_admin,
            referrer_id=referrer_id,
        )
    return await conversations.open(
        shop.deps.pg, turn.channel_id, turn.peer, name=heard.name, username=heard.username, language=heard.language
    )


async def _send(visit: Visit, turn: Batch, reply: Reply, instead_of: int) -> None:
    """The reply is where it should be, or lost: whether one that nobody answered for arrived cannot be known.

    Raises: ProviderDown when it surely did not leave: the claim is given up, and all comes again.
    """
    pg, messenger, claim = visit.shop.deps.pg, visit.shop.deps.messenger, reply.claim or turn.id
    facts = {"turn_id": str(turn.id), "conversation_id": visit.opened.id}
    if messenger is None or not (reply.claimed or await conversations.claim_send(pg, claim, visit.opened.id)):
        log.info("not said again", **facts)
        return
    line, until_s = TelegramLine(messenger), clock.unix_s() + PATIENCE_S
    while True:
        try:
            sent = await line.post(visit.chat_id, reply.text, reply.buttons, instead_of=instead_of)
        except ProviderDown as error:
            wait_s = error.retry_after_s or 1
            if error.unsure:
                log.warning("nobody knows whether it was sent", error=str(error), **facts)
                return
            try:
                if clock.unix_s() + wait_s > until_s:
                    raise
                await asyncio.sleep(wait_s)
            except (ProviderDown, asyncio.CancelledError):  # the next worker says it
                await asyncio.shield(conversations.release(pg, claim))
                raise
            continue
        if sent is Sent.DELIVERED:
            await conversations.mark_sent(pg, claim)
        else:
            log.warning("not said", outcome=sent.name, **facts)
        return


def _pressed(event: Message | CallbackQuery) -> int:
    """The message whose button was pressed; 0: there is none, or it is too old to be changed."""
    message = event.message if isinstance(event, CallbackQuery) else None
    return message.message_id if isinstance(message, Message) else 0
