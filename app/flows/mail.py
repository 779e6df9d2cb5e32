"""Mail: a buyer who has confirmed an address gets the news of orders there, too, whatever Telegram is doing.

Owed by the first attempt of `tell`, before it speaks to Telegram, and for all news that wait behind it (docs/email.md).
Written when it is sent, from what the order is then. Dies before the row is closed: sent again with its Message-ID.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.money import Money
from app.channels.email import letter as letters
from app.channels.email.letter import Letter, Line
from app.domain import circuits, email, outbox
from app.errors import NotFound, RedisDown
from app.infra import queue
from app.infra.secrets import Confirmation
from app.infra.smtp import Outcome, Smtp
from app.shop import Shop

log = structlog.get_logger(__name__)

BATCH = 10  # F4
WAITS = outbox.Growing(most_s=3600.0)  # a full mailbox or a greylisting server wants hours, not minutes
TRIES = 40  # about fourteen hours of being told "not now"
LINK_LIFE_S = 86_400
CONFIRM_PATH = "/api/me/email/confirm"


class Payload(msgspec.Struct, frozen=True):
    """What a mail is told: news of an order, as `tell` has them, or whose address waits for a link."""

    order_id: UUID | None = None
    status: str = ""
    amount_minor: int = 0
    user_id: int = 0
    digest: str = ""
    expires_s: int = 0


class Mail(msgspec.Struct, frozen=True):
    """A mail that can be sent."""

    to: str
    message: bytes


# None: nobody wants it any more. An exception is this mail's alone.
Written = Mail | Exception | None

_payload = msgspec.json.Decoder(Payload)


async def owe(shop: Shop, tell_id: int, order_id: UUID) -> None:
    """The buyer is owed the mails of this news and those behind it, each once. Nobody is where e-mail is off."""
    if shop.deps.smtp is not None:
        for outbox_id in await email.owe(shop.deps.pg, tell_id, order_id):
            await ring(shop, outbox_id)


async def ring(shop: Shop, outbox_id: int) -> None:
    """A worker looks at the mails that are due."""
    try:
        await shop.deps.queue.ring(outbox_id, job=queue.MAIL)
    except RedisDown as error:
        log.warning("not rung, workers look by themselves", outbox_id=outbox_id, error=str(error))


async def write(shop: Shop, batch: Sequence[email.Due]) -> list[Written]:
    """The mails of a batch, read by two statements at most. Raises: PostgresDown; NotFound when e-mail is off."""
    smtp = on(shop)
    told = [_read(due) for due in batch]
    good = [one for one in told if isinstance(one, Payload)]
    orders, asked = await asyncio.gather(
        email.news(shop.deps.pg, [one.order_id for one in good if one.order_id]),
        email.asked(shop.deps.pg, [one.user_id for one in good if not one.order_id]),
    )

    def written(due: email.Due, one: Payload | outbox.BadPayload) -> Written:
        try:
            if isinstance(one, Exception):
                return one
            if one.order_id:
                return _news(shop, smtp, due, one, orders[one.order_id]) if one.order_id in orders else None
            return _link(shop, smtp, due, one, asked[one.user_id]) if one.user_id in asked else None
        except Exception as error:  # whatever it is, the others of the batch can be written
            return error

    return [written(due, one) for due, one in zip(batch, told, strict=True)]


async def send(shop: Shop, mail: Mail) -> Outcome:
    """What the mail server says. Raises: ProviderDown, with `circuit` among its facts when nobody was asked."""
    smtp = on(shop)
    async with shop.circuits.calling(circuits.MAIL):
        return await smtp.send(mail.to, mail.message)


def on(shop: Shop) -> Smtp:
    """Raises: NotFound when e-mail is off."""
    if shop.deps.smtp is None:
        raise NotFound("this shop sends no e-mail: TORG_SMTP_URL is not set")
    return shop.deps.smtp


def _read(due: email.Due) -> Payload | outbox.BadPayload:
    try:
        told = outbox.Job(due.id, "email", due.payload, due.attempts).read(_payload)
    except outbox.BadPayload as error:
        return error
    return told if bool(told.order_id) != bool(told.user_id) else outbox.BadPayload("of an order or of a user")


def _news(shop: Shop, smtp: Smtp, due: email.Due, told: Payload, news: email.News) -> Mail | None:
    lines = [Line(line.title, line.quantity, str(Money(line.total_minor, news.currency))) for line in news.read_lines()]
    settings = shop.deps.settings
    bot = settings.telegram_bot_name
    written = letters.order_letter(
        told.status, news.language, news.number, lines,
        total=str(Money(news.total_minor, news.currency)),
        link=f"https://t.me/{bot}?startapp" if bot else settings.public_url,
        amount=str(Money(told.amount_minor, news.currency)), due=str(Money(max(news.due_minor, 0), news.currency)),
    )  # fmt: skip
    return _sealed(smtp, due, written, news.email) if news.email else None


def _link(shop: Shop, smtp: Smtp, due: email.Due, told: Payload, asked: email.Asked) -> Mail | None:
    """None when another address was given since, or the link would be dead by now."""
    confirmations = shop.deps.confirmations
    if asked.digest != told.digest or told.expires_s <= clock.unix_s() or confirmations is None:
        return None
    token = confirmations.issue(Confirmation(asked.id, asked.email_asked, told.expires_s))
    link = f"{shop.deps.settings.public_url}{CONFIRM_PATH}?token={token}"
    written = letters.confirmation_letter(asked.language, link=link, hours=LINK_LIFE_S // 3600)
    return _sealed(smtp, due, written, asked.email_asked)


def _sealed(smtp: Smtp, due: email.Due, written: Letter, to: str) -> Mail:
    # With the moment when it was owed: another shop with the same sender has other moments for the same numbers.
    key = f"torg.{due.id}.{int(due.created_at.timestamp() * 1_000_000):x}"
    return Mail(to, letters.message(written, smtp.sender, to, key=key, at=clock.now()))
