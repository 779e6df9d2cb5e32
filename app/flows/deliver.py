"""Deliver: a paid order's goods become its buyer's in one statement, then the buyer is told."""

from uuid import UUID

import msgspec
import structlog

from app.base.lease import Lease
from app.channels.telegram import texts
from app.domain import customers, goods, orders, outbox
from app.errors import NotFound
from app.infra.messenger import Sent
from app.shop import Shop

log = structlog.get_logger(__name__)


class Delivery(msgspec.Struct, frozen=True):
    """What the deliver job is told."""

    order_id: UUID


class News(msgspec.Struct, frozen=True):
    """What the tell job is told."""

    order_id: UUID
    status: str


_delivery = msgspec.json.Decoder(Delivery)
_news = msgspec.json.Decoder(News)


async def deliver(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
    """The goods are the buyer's, and the message that says so is owed."""
    order_id = _delivery.decode(job.payload).order_id
    done = await orders.deliver(shop.deps.pg, lease, order_id)
    if done is None:
        log.warning("nothing to deliver", order_id=str(order_id))
        return None
    log.info("order delivered", order_id=str(order_id), status=done.status)
    if done.outbox_id is None:
        return None
    payload = msgspec.json.encode(News(order_id, done.status)).decode()
    return outbox.Owed(done.outbox_id, "tell", payload)


async def tell(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The buyer has the news with the goods, at least once: an answer that is lost makes the job send again.

    Raises: ProviderDown: the job runs again later.
    """
    news = _news.decode(job.payload)
    deps = shop.deps
    to = await customers.recipient(deps.pg, news.order_id)
    if deps.messenger is None or deps.sealer is None or to is None:
        raise NotFound("no bot, no goods keys or no such order: nobody can be told")
    opened = await goods.read(deps.pg, deps.sealer, news.order_id, to.user_id)
    shown = [(good.title, good.content) for good in opened[0]] if opened else []
    text = texts.order_news(news.status, to.language, to.number, shown, max_length=texts.MAX_LENGTH)
    sent = await deps.messenger.send(to.telegram_id, text)
    if sent is not Sent.DELIVERED:
        # The goods wait in the shop; a user who stopped the bot cannot be told by sending again.
        log.warning("buyer not told", order_id=str(news.order_id), outcome=sent.name)
    await outbox.finish(deps.pg, lease)
