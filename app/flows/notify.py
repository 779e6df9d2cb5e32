"""Notify: buyers, admins and sellers are told what happened, each in their language, at least once."""

import sys
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.lease import Lease
from app.base.money import Money
from app.channels.telegram import texts
from app.channels.whatsapp.line import is_open
from app.domain import customers, goods, orders, outbox
from app.domain.customers import Colleague
from app.errors import NotFound, ProviderDown
from app.flows import mail
from app.infra.messenger import Messenger, Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

WAIT_S, WAITS = 3600, 336  # news look each hour, for two weeks, whether their WhatsApp user has written


class News(msgspec.Struct, frozen=True):
    """What the tell job is told: what became of the order, and the money that the message is about."""

    order_id: UUID
    status: str
    amount_minor: int = 0


class Alarm(msgspec.Struct, frozen=True):
    """What the alert and supply jobs are told; an event of an unknown order has none."""

    word: str
    order_id: UUID | None = None
    provider: str = ""
    invoice_id: str = ""
    amount_minor: int = 0
    currency: str = ""
    delivered: int = 0  # goods that are out of reach
    seller_id: int = 0  # whose people are told too
    endpoint: str = ""  # the host of a seller's webhook


_news = msgspec.json.Decoder(News)
_alarm = msgspec.json.Decoder(Alarm)


async def tell(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Closed | None:
    """The buyer has the news, with the goods if they are there.

    Raises: ProviderDown: the job runs again later.
    """
    news, deps = job.read(_news), shop.deps
    to = await customers.recipient(deps.pg, news.order_id, deps.settings.whatsapp_phone_id)
    if to and to.mailed:
        await mail.owe(shop, job.id, news.order_id)  # first: what follows may wait for Telegram
    if deps.sealer is None or to is None:
        raise NotFound("no goods keys or no such order: nobody can be told")
    if to.blocked:
        log.info("not told, the user has stopped the bot; the goods wait in the shop", order_id=str(news.order_id))
        return await outbox.finish(deps.pg, lease)
    money = {
        "amount": str(Money(news.amount_minor, to.currency)),
        "due": str(Money(max(to.due_minor, 0), to.currency)),
    }
    shown: list[tuple[str, str]] = []
    if news.status in texts.WITH_GOODS:
        opened = await goods.read(deps.pg, deps.sealer, news.order_id, to.user_id)
        shown = [(good.title, good.content) for good in opened[0]] if opened else []
    # In Telegram the goods are a button away; a WhatsApp user has nothing but the messages, however many they fill.
    most = texts.MAX_LENGTH if to.telegram_id is not None else sys.maxsize
    text = texts.order_news(news.status, to.language, to.number, shown, max_length=most, **money)
    if to.telegram_id is not None:
        await _send(_messenger(shop), to.telegram_id, text, order_id=str(news.order_id))
    else:
        await _write(shop, to, text, job, goods_in_it=bool(shown))
    return await outbox.finish(deps.pg, lease)  # and the next message about this order has its turn


async def alert(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Every admin knows, and the seller whom it concerns. Raises: ProviderDown: all are told again later."""
    alarm, deps = job.read(_alarm), shop.deps
    to = await customers.recipient(deps.pg, alarm.order_id) if alarm.order_id else None
    currency = alarm.currency or (to.currency if to else "")
    known = currency in texts.CURRENCIES
    facts = {
        "number": str(to.number) if to else "?",
        "amount": str(Money(alarm.amount_minor, currency)) if known else f"{alarm.amount_minor} {currency}",
        "invoice": f"{alarm.provider}:{alarm.invoice_id}",
        "delivered": str(alarm.delivered),
        "endpoint": alarm.endpoint,
    }
    people = await customers.admins(deps.pg, sorted(deps.settings.admin_ids()))
    if alarm.seller_id:
        people = list(dict.fromkeys([*people, *await customers.people(deps.pg, alarm.seller_id)]))
    await _tell_all(shop, people, lambda code: texts.alert(alarm.word, code, **facts))
    await outbox.finish(deps.pg, lease)


async def supply(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The seller's people know what was sold, and what must be made by when. Raises: ProviderDown."""
    alarm, deps = job.read(_alarm), shop.deps
    assert alarm.order_id is not None
    told = await orders.supplied(deps.pg, alarm.order_id)
    lines = [
        (line.title, line.quantity, line.due_at.strftime("%Y-%m-%d %H:%M UTC") if line.due_at else "") for line in told
    ]
    if lines:
        number = told[0].number
        people = await customers.suppliers(deps.pg, alarm.order_id)
        await _tell_all(shop, people, lambda code: texts.supply(code, number, lines))
    await outbox.finish(deps.pg, lease)


async def inform(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The seller's people know what the buyer has done with the order. Raises: ProviderDown: again later."""
    alarm, pg = job.read(_alarm), shop.deps.pg
    to = await customers.recipient(pg, alarm.order_id) if alarm.order_id else None
    if alarm.order_id and to:
        number, people = to.number, await customers.suppliers(pg, alarm.order_id)
        await _tell_all(shop, people, lambda code: texts.informed(alarm.word, code, number))
    await outbox.finish(pg, lease)


async def _tell_all(shop: Shop, people: list[Colleague], text: "texts.Wording") -> None:
    if people:
        messenger = _messenger(shop)
        for one in people:
            await _send(messenger, one.telegram_id, text(one.language))


def _messenger(shop: Shop) -> Messenger:
    if shop.deps.messenger is None:
        raise NotFound("no bot: nobody can be told")
    return shop.deps.messenger


async def _send(messenger: Messenger, chat_id: int, text: str, **facts: str) -> None:
    sent = await messenger.send(chat_id, text)
    if sent is not Sent.DELIVERED:
        # The goods wait in the shop; a user who stopped the bot cannot be told by sending again.
        log.warning("not told", outcome=sent.name, **facts)


async def _write(shop: Shop, to: customers.Recipient, text: str, job: outbox.Job, *, goods_in_it: bool) -> None:
    """The WhatsApp user has the text, or the job waits until they write: Meta takes nothing from us before.

    Goods have no other way to them, so what keeps these back ends as a dead letter, for a human to look at.
    Raises: ProviderDown; NotFound.
    """
    line = shop.lines.get("whatsapp")
    if line is None or to.whatsapp is None:
        raise NotFound("WhatsApp is off: nobody there can be told")
    if is_open(to.heard_at, clock.now()):
        outcome = (await line.say(to.whatsapp, to.language, text)).name
    elif job.attempts < WAITS:
        raise ProviderDown("waits for its user to write by WhatsApp", retry_after_s=WAIT_S)
    else:
        outcome = "window"
    if outcome != Sent.DELIVERED.name:
        log.warning("not told", outcome=outcome, outbox_id=job.id)
        if goods_in_it:
            raise NotFound(f"its WhatsApp user could not be given the goods ({outcome.lower()})")
